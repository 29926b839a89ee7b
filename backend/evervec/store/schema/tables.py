"""The tables, as alembic knows them; those of documents are in `source_tables.py`, of jobs in `batch_tables.py`, triggers and views in `triggers.py`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal,
    text,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB, REAL, UUID

from evervec.domain.chunking import LEAST_TOKENS, TEMPLATE, TOKENS
from evervec.domain.knowledge import AtomType, LinkType, Signal
from evervec.store.schema.columns import Vector, Xid8, dataset, id_key, metadata, one_of, time, uuid_key
from evervec.store.schema.predicates import PENDING, PENDING_ID, UNEXTRACTED_ID, UNSCORED_ID

projects = Table(
    "projects",
    metadata,
    uuid_key(),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("root_path", Text),
    time("created_at"),
    time("deleted_at", filled=False),
    CheckConstraint("slug <> ''", name="slug_given"),
)

datasets = Table(
    "datasets",
    metadata,
    uuid_key(),
    Column("project_id", UUID(as_uuid=True), ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("slug", Text, nullable=False),
    Column("name", Text, nullable=False),
    time("created_at"),
    time("deleted_at", filled=False),
    Column("recall_target", REAL),
    Column("feed_from", Xid8),
    Column("source_id", UUID(as_uuid=True), ForeignKey("sources.id", ondelete="SET NULL"), index=True),
    Column("tenant", Text),
    UniqueConstraint("project_id", "slug"),
    CheckConstraint("slug <> ''", name="slug_given"),
    CheckConstraint("recall_target > 0 AND recall_target <= 1", name="recall_target_bounded"),
)

messages = Table(
    "messages",
    metadata,
    id_key(),
    dataset(),
    Column("chat", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("author", Text, nullable=False),
    time("sent_at"),
    time("edited_at", filled=False),
    Column("reply_to", Text),
    Column("content", Text, nullable=False),
    Column("revision", Integer, nullable=False, server_default=text("1")),
    Column("score", REAL),
    Column("signal", Text),
    Column("score_factors", JSONB),
    Column("scored_revision", Integer),
    Column("extracted_revision", Integer),
    Column("unscored_id", BigInteger, Computed(UNSCORED_ID, persisted=True)),
    Column("unextracted_id", BigInteger, Computed(UNEXTRACTED_ID, persisted=True)),
    UniqueConstraint("dataset_id", "chat", "external_id"),
    CheckConstraint(one_of("signal", Signal), name="signal_known"),
    CheckConstraint("score BETWEEN 0 AND 1", name="score_bounded"),
    CheckConstraint("num_nulls(score, signal, score_factors, scored_revision) IN (0, 4)", name="scored_whole_or_not"),
    CheckConstraint("scored_revision <= revision AND extracted_revision <= revision", name="revision_not_ahead"),
    Index("messages_unscored_idx", "dataset_id", "unscored_id", postgresql_where=text("unscored_id IS NOT NULL")),
    Index(
        "messages_unextracted_idx", "dataset_id", "unextracted_id", postgresql_where=text("unextracted_id IS NOT NULL")
    ),
)

extract_work = Table(
    "extract_work",
    metadata,
    Column("message_id", BigInteger, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time("not_before"),
    Column("lease_owner", UUID(as_uuid=True)),
    time("lease_until", filled=False),
    time("dead_at", filled=False),
    Column("last_code", Text),
    Column("last_error", Text),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole_or_not"),
    CheckConstraint("dead_at IS NULL OR last_error IS NOT NULL", name="dead_with_reason"),
    postgresql_with={"fillfactor": "70"},
)

topics = Table(
    "topics",
    metadata,
    id_key(),
    dataset(),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    time("created_at"),
    time("updated_at"),
    CheckConstraint("name <> ''", name="name_given"),
    Index("topics_dataset_id_name_key", "dataset_id", text("lower(name)"), unique=True),
)

atoms = Table(
    "atoms",
    metadata,
    id_key(),
    dataset(),
    Column("topic_id", BigInteger, ForeignKey("topics.id", ondelete="SET NULL"), index=True),
    Column("type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
    time("created_at"),
    time("updated_at"),
    CheckConstraint(one_of("type", AtomType), name="type_known"),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_bounded"),
    CheckConstraint("version >= 1", name="version_positive"),
    Index("atoms_dataset_id_idx", "dataset_id", "id"),
)

atom_versions = Table(
    "atom_versions",
    metadata,
    Column("atom_id", BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("confidence", REAL, nullable=False),
    time("created_at"),
    CheckConstraint(one_of("type", AtomType), name="type_known"),
)

atom_sources = Table(
    "atom_sources",
    metadata,
    Column("atom_id", BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True),
    Column("message_id", BigInteger, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True, index=True),
)

atom_links = Table(
    "atom_links",
    metadata,
    Column("source_id", BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True),
    Column("type", Text, primary_key=True),
    Column("target_id", BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("confidence", REAL, nullable=False),
    time("created_at"),
    CheckConstraint(one_of("type", LinkType), name="type_known"),
    CheckConstraint("source_id <> target_id", name="not_to_itself"),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_bounded"),
)

embedding_spaces = Table(
    "embedding_spaces",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("metric", Text, nullable=False, server_default=text("'cosine'")),
    Column("state", Text, nullable=False, server_default=text("'ready'")),
    time("created_at"),
    time("activated_at", filled=False),
    Column("template", Text, nullable=False, server_default=literal(TEMPLATE)),
    Column("chunk_tokens", Integer, nullable=False, server_default=literal(TOKENS)),
    Column("text_tokens", Integer),
    UniqueConstraint("provider", "model", "dimensions", "metric"),
    # 4,000 is the widest halfvec that pgvector can index.
    CheckConstraint("dimensions BETWEEN 1 AND 4000", name="dimensions_indexable"),
    CheckConstraint("metric = 'cosine'", name="metric_known"),
    CheckConstraint("state IN ('ready', 'active')", name="state_known"),
    CheckConstraint("state <> 'active' OR activated_at IS NOT NULL", name="active_since"),
    CheckConstraint(f"chunk_tokens >= {LEAST_TOKENS}", name="chunk_tokens_enough"),
    Index("embedding_spaces_one_active", "state", unique=True, postgresql_where=text("state = 'active'")),
)

llm_providers = Table(
    "llm_providers",
    metadata,
    uuid_key(),
    Column("name", Text, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("base_url", Text),
    Column("model", Text, nullable=False),
    Column("chat_model", Text),
    Column("api_key_encrypted", LargeBinary),
    Column("space_id", Integer, ForeignKey("embedding_spaces.id"), nullable=False),
    time("created_at"),
    time("used_at"),
    time("paused_until", filled=False),
    Column("pause_code", Text),
    Column("pause_error", Text),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("usd_per_million_tokens", DOUBLE_PRECISION),
    CheckConstraint("usd_per_million_tokens >= 0", name="price_not_negative"),
    Column("dimensions", Integer),
    CheckConstraint("type IN ('local', 'ollama', 'gemini', 'openai')", name="type_known"),
    CheckConstraint("name <> '' AND model <> ''", name="name_given"),
)

# No foreign keys to datasets and spaces here: each would cost a look-up per vector written, and a trigger that
# follows its source row keeps them right (docs/decisions/0002).
embeddings = Table(
    "embeddings",
    metadata,
    Column("vector_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("row_id", BigInteger, nullable=False),
    Column("dataset_id", UUID(as_uuid=True), nullable=False),
    Column("content_hash", LargeBinary),
    Column("embedding", Vector()),
    Column("embedded_hash", LargeBinary),
    Column("space_id", Integer),
    time("embedded_at", filled=False),
    Column("failed_hash", LargeBinary),
    Column("changed_xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()")),
    Column("pending_id", BigInteger, Computed(PENDING_ID, persisted=True)),
    UniqueConstraint("kind", "row_id"),
    CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
    CheckConstraint(
        "num_nulls(embedding, embedded_hash, space_id, embedded_at) IN (0, 4)", name="embedded_whole_or_not"
    ),
    CheckConstraint("content_hash IS NOT NULL OR embedding IS NULL", name="blank_without_vector"),
    CheckConstraint("failed_hash <> embedded_hash", name="embedded_or_failed"),
    Index(
        "embeddings_pending_idx",
        "dataset_id",
        "pending_id",
        postgresql_include=["kind"],
        postgresql_where=text(PENDING),
    ),
    # the feed and the sync check both read this index alone; a row without a vector is in neither
    Index(
        "embeddings_changed_idx",
        "dataset_id",
        "changed_xid",
        "vector_id",
        postgresql_where=text("embedding IS NOT NULL"),
    ),
    Index("embeddings_same_text_idx", "embedded_hash", postgresql_where=text("embedded_hash IS NOT NULL")),
    Index("embeddings_failed_idx", "dataset_id", "vector_id", postgresql_where=text("failed_hash = content_hash")),
)

embed_work = Table(
    "embed_work",
    metadata,
    Column("vector_id", BigInteger, ForeignKey("embeddings.vector_id", ondelete="CASCADE"), primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time("not_before"),
    Column("lease_owner", UUID(as_uuid=True)),
    time("lease_until", filled=False),
    Column("last_code", Text),
    Column("last_error", Text),
    Column("deferred", Boolean, nullable=False, server_default=false()),
    Column("batch_tries", SmallInteger, nullable=False, server_default=text("0")),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole_or_not"),
    Index("embed_work_content_hash_idx", "content_hash"),
    Index("embed_work_lease_owner_idx", "lease_owner", postgresql_where=text("lease_owner IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)

vector_tombstones = Table(
    "vector_tombstones",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("vector_id", BigInteger, nullable=False),
    Column("dataset_id", UUID(as_uuid=True), nullable=False),
    Column("deleted_xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()")),
    Index("vector_tombstones_feed_idx", "dataset_id", "deleted_xid", "vector_id"),
)

mirrors = Table(
    "mirrors",
    metadata,
    Column("holder", UUID(as_uuid=True), primary_key=True),
    Column("dataset_id", UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("host", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("vectors", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("watermark", Text),
    time("watermark_at", filled=False),
    time("seen_at"),
    time("checked_at", filled=False),
    Column("in_sync", Boolean),
    Column("missing", BigInteger),
    Column("extra", BigInteger),
    Column("stale", BigInteger),
    Column("asked", Text),
    time("asked_at", filled=False),
    time("answered_at", filled=False),
    CheckConstraint("state IN ('loading', 'building', 'ready', 'dropped', 'failed')", name="state_known"),
    CheckConstraint("asked IN ('check', 'rebuild', 'compact')", name="asked_known"),
    CheckConstraint("num_nulls(checked_at, in_sync, missing, extra, stale) IN (0, 5)", name="checked_whole_or_not"),
    Index(None, "dataset_id"),
)

recall_checks = Table(
    "recall_checks",
    metadata,
    id_key(),
    dataset(),
    Column("engine", Text, nullable=False),
    Column("recall", REAL, nullable=False),
    Column("target", REAL, nullable=False),
    Column("sampled", Integer, nullable=False),
    time("measured_at"),
    CheckConstraint("engine IN ('mirror', 'pgvector')", name="engine_known"),
    CheckConstraint("recall BETWEEN 0 AND 1 AND target BETWEEN 0 AND 1", name="recall_bounded"),
    Index(None, "dataset_id", "engine", "measured_at"),
)
