"""The tables of the batch lane: jobs, the rows that they hold, and media that wait to be described."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, UUID

from evervec.store.schema.columns import dataset, metadata, time

COUNTS = ("rows", "texts", "ready", "failed", "dropped", "returned", "strays", "listings")

# The id is the intent: it is there before anything is sent, and whatever is made at the provider carries it.
batch_jobs = Table(
    "batch_jobs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("job_type", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="CREATED"),
    Column("provider_id", UUID(as_uuid=True), ForeignKey("llm_providers.id", ondelete="SET NULL"), index=True),
    Column("space_id", Integer),
    Column("model", Text, nullable=False),
    Column("external_id", Text),
    Column("input_file", Text),
    *(Column(name, Integer, nullable=False, server_default="0") for name in COUNTS),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("reserved_tokens", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("usd_per_million_tokens", DOUBLE_PRECISION),
    Column("said", Text),
    Column("error", Text),
    time("created_at"),
    time("updated_at"),
    time("submitting_at", filled=False),
    time("submitted_at", filled=False),
    time("deadline", filled=False),
    time("finished_at", filled=False),
    time("cleaned_at", filled=False),
    CheckConstraint("job_type IN ('EMBEDDING', 'MEDIA_DESCRIPTION')", name="job_type_known"),
    CheckConstraint(
        "status IN ('CREATED', 'SUBMITTED', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED')",
        name="status_known",
    ),
    CheckConstraint(
        "status NOT IN ('SUBMITTED', 'PROCESSING', 'COMPLETED') OR external_id IS NOT NULL", name="submitted_with_id"
    ),
    CheckConstraint(
        "(status IN ('CREATED', 'SUBMITTED', 'PROCESSING')) = (finished_at IS NULL)", name="finished_or_not"
    ),
    CheckConstraint("status <> 'FAILED' OR error IS NOT NULL", name="failed_with_reason"),
    CheckConstraint("external_id IS NULL OR submitting_at IS NOT NULL", name="asked_before_told"),
    CheckConstraint("cleaned_at IS NULL OR finished_at IS NOT NULL", name="cleaned_at_the_end"),
    Index("batch_jobs_open_idx", "created_at", postgresql_where=text("cleaned_at IS NULL")),
)

# An item is deleted once it is settled, in the transaction that settles it: what is here is still to come. Rows of equal
# text share the key of the one whose text was sent. No foreign key to embeddings: a row that vanished is simply not found.
batch_items = Table(
    "batch_items",
    metadata,
    Column("job_id", UUID(as_uuid=True), ForeignKey("batch_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("vector_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Index(None, "job_id", "key"),
)

# A picture or a sound is a document without a text, until a model has described it.
media = Table(
    "media",
    metadata,
    Column(
        "document_id", BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    dataset(),
    Column("path", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("described_hash", LargeBinary),
    Column("failed_hash", LargeBinary),
    Column("error", Text),
    Column("job_id", UUID(as_uuid=True), ForeignKey("batch_jobs.id", ondelete="SET NULL"), index=True),
    Column("tries", SmallInteger, nullable=False, server_default="0"),
    CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
    CheckConstraint("failed_hash IS NULL OR error IS NOT NULL", name="failed_with_reason"),
    Index(None, "dataset_id"),
)
