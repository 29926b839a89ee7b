"""Jobs of a provider's batch API, the rows in them, and media that wait to be described."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, LargeBinary, SmallInteger, Text, text
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.batch import JobStatus, JobType
from evervec.store.schema.columns import (
    ZERO,
    Digest,
    Model,
    column,
    dataset,
    filled_time,
    one_of,
    optional,
    optional_time,
)


def _count() -> Any:
    return column(Integer, server_default=ZERO)


class BatchJob(Model, table=True):
    """A job of a provider's batch API. The row is there before anything is sent; what is made there carries its `id`.

    `external_id` is the provider's name for it, `said` the provider's last word on its state. `rows` are in it, `texts`
    were sent for them; rows got a vector (`ready`), failed, were `dropped` (edited or gone meanwhile) or `returned` to
    the queue; `strays` are lines of the answer that nobody asked for. `budget_tokens` are taken from the budgets
    for a job that is not submitted yet.
    """

    __tablename__ = "batch_jobs"
    __table_args__ = (
        CheckConstraint(one_of("job_type", JobType), name="job_type_known"),
        CheckConstraint(one_of("status", JobStatus), name="status_known"),
        CheckConstraint(
            "status NOT IN ('SUBMITTED', 'PROCESSING', 'COMPLETED') OR external_id IS NOT NULL",
            name="submitted_with_id",
        ),
        CheckConstraint(
            "(status IN ('CREATED', 'SUBMITTED', 'PROCESSING')) = (finished_at IS NULL)", name="finished_or_not"
        ),
        CheckConstraint("status <> 'FAILED' OR error IS NOT NULL", name="failed_with_reason"),
        CheckConstraint("external_id IS NULL OR submitting_at IS NOT NULL", name="asked_before_told"),
        CheckConstraint("cleaned_at IS NULL OR finished_at IS NOT NULL", name="cleaned_at_the_end"),
        Index("batch_jobs_open_idx", "created_at", postgresql_where=text("cleaned_at IS NULL")),
    )

    id: UUID = column(pg.UUID(as_uuid=True), primary_key=True)
    job_type: str = column(Text)
    status: str = column(Text, server_default=text("'CREATED'"))
    provider_id: UUID | None = optional(
        pg.UUID(as_uuid=True), ForeignKey("llm_providers.id", ondelete="SET NULL"), index=True
    )
    space_id: int | None = optional(Integer)
    model: str = column(Text)
    external_id: str | None = optional(Text)
    input_file: str | None = optional(Text)
    rows: int = _count()
    texts: int = _count()
    ready: int = _count()
    failed: int = _count()
    dropped: int = _count()
    returned: int = _count()
    strays: int = _count()
    listings: int = _count()
    tokens: int = column(BigInteger, server_default=ZERO)
    reserved_tokens: int = column(BigInteger, server_default=ZERO)
    bytes: int = column(BigInteger, server_default=ZERO)
    usd_per_million_tokens: float | None = optional(pg.DOUBLE_PRECISION)
    said: str | None = optional(Text)
    error: str | None = optional(Text)
    created_at: datetime = filled_time()
    updated_at: datetime = filled_time()
    submitting_at: datetime | None = optional_time()
    submitted_at: datetime | None = optional_time()
    deadline: datetime | None = optional_time()
    finished_at: datetime | None = optional_time()
    cleaned_at: datetime | None = optional_time()
    budget_tokens: int | None = optional(BigInteger)


class BatchItem(Model, table=True):
    """A row in a batch job whose answer is still to come; it is deleted in the transaction that settles it.

    Rows of equal text share the `key` of the one whose text was sent. There is no foreign key to embeddings: a row that
    vanished is simply not found.
    """

    __tablename__ = "batch_items"
    __table_args__ = (Index(None, "job_id", "key"),)

    job_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("batch_jobs.id", ondelete="CASCADE"), primary_key=True)
    vector_id: int = column(BigInteger, primary_key=True, autoincrement=False)
    key: str = column(Text)
    content_hash: Digest = column(LargeBinary)


class MediaFile(Model, table=True):
    """A picture or a sound: a document without a text until a model has described it.

    `described_hash` is the digest of the file that was described, `failed_hash` of one that could not be.
    """

    __tablename__ = "media"
    __table_args__ = (
        CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
        CheckConstraint("failed_hash IS NULL OR error IS NOT NULL", name="failed_with_reason"),
        Index(None, "dataset_id"),
    )

    document_id: int = column(
        BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    dataset_id: UUID = dataset()
    path: str = column(Text)
    media_type: str = column(Text)
    bytes: int = column(BigInteger)
    content_hash: Digest = column(LargeBinary)
    described_hash: Digest | None = optional(LargeBinary)
    failed_hash: Digest | None = optional(LargeBinary)
    error: str | None = optional(Text)
    job_id: UUID | None = optional(pg.UUID(as_uuid=True), ForeignKey("batch_jobs.id", ondelete="SET NULL"), index=True)
    tries: int = column(SmallInteger, server_default=ZERO)
