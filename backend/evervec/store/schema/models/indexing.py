"""Where the documents of datasets come from, and the runs that index them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.sources import SourceType
from evervec.store.schema.columns import (
    ZERO,
    Model,
    column,
    dataset,
    filled_time,
    one_of,
    optional,
    optional_time,
    random_key,
)


class DocumentSource(Model, table=True):
    """A source that fills datasets of a project: a folder of files, or tables of a database.

    `cursor` is where its last sync came to; `url_encrypted` is sealed, it holds a password. An attached table has a `view`
    in our schema, by this name.
    """

    __tablename__ = "sources"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        UniqueConstraint("view"),
        CheckConstraint("name <> ''", name="name_given"),
        CheckConstraint(one_of("type", SourceType), name="type_known"),
    )

    id: UUID = random_key()
    project_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("projects.id", ondelete="CASCADE"))
    name: str = column(Text)
    type: str = column(Text)
    spec: dict[str, Any] = column(pg.JSONB)
    url_encrypted: bytes | None = optional(LargeBinary)
    cursor: dict[str, Any] = column(pg.JSONB, server_default=text("'{}'"))
    created_at: datetime = filled_time()
    synced_at: datetime | None = optional_time()
    view: str | None = optional(Text)


def _count() -> Any:
    return column(BigInteger, server_default=ZERO)


def _seconds() -> Any:
    return column(pg.DOUBLE_PRECISION, server_default=ZERO)


class IndexRun(Model, table=True):
    """One index run of a dataset, from the request to its end, with everything that it counted.

    `mode` is delta (the ids in `changed` alone), compare (everything) or full (and what is gone is deleted). A dataset
    has one run that is running and one that is queued, at most. `cursor` is where it came to; `full_…` is what the
    dataset holds at its end.
    """

    __tablename__ = "index_runs"
    __table_args__ = (
        CheckConstraint("mode IN ('delta', 'compare', 'full')", name="mode_known"),
        CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state_known"),
        CheckConstraint("(mode = 'delta') = (changed IS NOT NULL)", name="delta_with_ids"),
        CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished_or_not"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_with_reason"),
        Index("index_runs_one_running", "dataset_id", unique=True, postgresql_where=text("state = 'running'")),
        Index("index_runs_one_queued", "dataset_id", unique=True, postgresql_where=text("state = 'queued'")),
        Index(None, "dataset_id", "created_at"),
    )

    id: UUID = random_key()
    dataset_id: UUID = dataset()
    mode: str = column(Text)
    trigger: str = column(Text)
    state: str = column(Text, server_default=text("'queued'"))
    changed: dict[str, list[str | int]] | None = optional(pg.JSONB(none_as_null=True))
    scope: list[str] | None = optional(pg.ARRAY(Text))
    embeds: bool = column(Boolean, server_default=true())
    deferred: bool = column(Boolean, server_default=false())
    cursor: str | None = optional(Text)
    attempts: int = column(Integer, server_default=ZERO)
    not_before: datetime = filled_time()
    created_at: datetime = filled_time()
    started_at: datetime | None = optional_time()
    finished_at: datetime | None = optional_time()
    documents_new: int = _count()
    documents_changed: int = _count()
    documents_unchanged: int = _count()
    documents_moved: int = _count()
    documents_deleted: int = _count()
    documents_skipped: int = _count()
    chunks_new: int = _count()
    chunks_updated: int = _count()
    chunks_skipped: int = _count()
    chunks_deleted: int = _count()
    texts_sent: int = _count()
    embeddings_generated: int = _count()
    embeddings_reused: int = _count()
    requests: int = _count()
    tokens: int = _count()
    full_texts: int = _count()
    full_tokens: int = _count()
    seconds_list: float = _seconds()
    seconds_read: float = _seconds()
    seconds_chunk: float = _seconds()
    seconds_write: float = _seconds()
    seconds_embed: float = _seconds()
    seconds_total: float = _seconds()
    cost_usd: float | None = optional(pg.DOUBLE_PRECISION)
    full_cost_usd: float | None = optional(pg.DOUBLE_PRECISION)
    skipped: dict[str, int] = column(pg.JSONB, server_default=text("'{}'"))
    examples: list[dict[str, str]] = column(pg.JSONB, server_default=text("'[]'"))
    error: str | None = optional(Text)
