"""The tables of what is indexed: sources, documents, chunks and the runs that keep them true."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB, UUID

from evervec.store.runs import COUNTS, NUMBERS
from evervec.store.schema.columns import dataset, id_key, metadata, time, uuid_key

sources = Table(
    "sources",
    metadata,
    uuid_key(),
    Column("project_id", UUID(as_uuid=True), ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("url_encrypted", LargeBinary),
    Column("cursor", JSONB, nullable=False, server_default=text("'{}'")),
    time("created_at"),
    time("synced_at", filled=False),
    UniqueConstraint("project_id", "name"),
    CheckConstraint("name <> ''", name="name_given"),
    CheckConstraint("type IN ('files', 'sql')", name="type_known"),
)

# `content` is a text that still has to be chunked; once its chunks hold it, it is NULL. `recipe` says how they were
# made: a document of another recipe than the active space's is chunked again, one without a recipe is not ours to chunk.
documents = Table(
    "documents",
    metadata,
    id_key(),
    dataset(),
    Column("uri", Text, nullable=False),
    Column("title", Text, nullable=False, server_default=text("''")),
    Column("content_hash", LargeBinary),
    Column("version", Integer, nullable=False, server_default=text("1")),
    time("created_at"),
    time("updated_at"),
    Column("format", Text, nullable=False, server_default=text("'plain'")),
    Column("stamp", Text),
    Column("content", Text),
    Column("recipe", Text),
    Column("chunk_count", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("dataset_id", "uri"),
    CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
    Index(None, "dataset_id", "content_hash"),
    Index(None, "recipe", "dataset_id", postgresql_where=text("recipe IS NOT NULL")),
    Index("documents_waiting_idx", "dataset_id", "id", postgresql_where=text("content IS NOT NULL")),
)

chunks = Table(
    "chunks",
    metadata,
    id_key(),
    dataset(),
    Column("document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("vector_text", Text, nullable=False),
    Column("content_hash", LargeBinary),
    Column("heading", Text, nullable=False, server_default=text("''")),
    Column("line_start", Integer),
    Column("line_end", Integer),
    Column("tokens", Integer),
    # deferred: a paragraph that comes in moves the ordinals of all that follow it
    UniqueConstraint("document_id", "ordinal", deferrable=True, initially="DEFERRED"),
    CheckConstraint("ordinal >= 0", name="ordinal_not_negative"),
    CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
    CheckConstraint("line_start >= 1 AND line_end >= line_start", name="lines_in_order"),
    # with the tokens, so that what a full run would send is summed without reading a text
    Index("chunks_dataset_id_idx", "dataset_id", "id", postgresql_include=["tokens"]),
)

index_runs = Table(
    "index_runs",
    metadata,
    uuid_key(),
    dataset(),
    Column("mode", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'queued'")),
    Column("changed", JSONB),
    Column("scope", ARRAY(Text)),
    Column("embeds", Boolean, nullable=False, server_default=text("true")),
    Column("deferred", Boolean, nullable=False, server_default=false()),
    Column("cursor", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time("not_before"),
    time("created_at"),
    time("started_at", filled=False),
    time("finished_at", filled=False),
    *(Column(name, BigInteger, nullable=False, server_default=text("0")) for name in COUNTS),
    *(Column(name, DOUBLE_PRECISION, nullable=False, server_default=text("0")) for name in NUMBERS[len(COUNTS) :]),
    Column("cost_usd", DOUBLE_PRECISION),
    Column("full_cost_usd", DOUBLE_PRECISION),
    Column("skipped", JSONB, nullable=False, server_default=text("'{}'")),
    Column("examples", JSONB, nullable=False, server_default=text("'[]'")),
    Column("error", Text),
    CheckConstraint("mode IN ('delta', 'compare', 'full')", name="mode_known"),
    CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state_known"),
    CheckConstraint("(mode = 'delta') = (changed IS NOT NULL)", name="delta_with_ids"),
    CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished_or_not"),
    CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_with_reason"),
    Index("index_runs_one_running", "dataset_id", unique=True, postgresql_where=text("state = 'running'")),
    Index("index_runs_one_queued", "dataset_id", unique=True, postgresql_where=text("state = 'queued'")),
    Index(None, "dataset_id", "created_at"),
)
