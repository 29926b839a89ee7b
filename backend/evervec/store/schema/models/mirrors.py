"""Which process holds which mirror, and what was measured of its recall."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import ZERO, Model, column, dataset, filled_time, identity, optional, optional_time


class MirrorReport(Model, table=True):
    """What one process (`holder`) last reported of its mirror of one dataset in one space, and what it is asked to do.

    `watermark` is the PostgreSQL snapshot that the mirror has reached. `missing`, `extra` and `stale` are of its last check.
    """

    __tablename__ = "mirrors"
    __table_args__ = (
        CheckConstraint("state IN ('loading', 'building', 'ready', 'dropped', 'failed')", name="state_known"),
        CheckConstraint("asked IN ('check', 'rebuild', 'compact')", name="asked_known"),
        CheckConstraint("num_nulls(checked_at, in_sync, missing, extra, stale) IN (0, 5)", name="checked_whole_or_not"),
        Index(None, "dataset_id"),
    )

    holder: UUID = column(pg.UUID(as_uuid=True), primary_key=True)
    dataset_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    space_id: int = column(Integer, primary_key=True)
    host: str = column(Text)
    folder: str = column(Text)
    pid: int = column(Integer)
    state: str = column(Text)
    reason: str = column(Text, server_default=text("''"))
    vectors: int = column(BigInteger, server_default=ZERO)
    bytes: int = column(BigInteger, server_default=ZERO)
    watermark: str | None = optional(Text)
    watermark_at: datetime | None = optional_time()
    seen_at: datetime = filled_time()
    checked_at: datetime | None = optional_time()
    in_sync: bool | None = optional(Boolean)
    missing: int | None = optional(BigInteger)
    extra: int | None = optional(BigInteger)
    stale: int | None = optional(BigInteger)
    asked: str | None = optional(Text)
    asked_at: datetime | None = optional_time()
    answered_at: datetime | None = optional_time()


class RecallCheck(Model, table=True):
    """One measured recall@10 of an engine in a dataset, against exact answers to `sampled` questions."""

    __tablename__ = "recall_checks"
    __table_args__ = (
        CheckConstraint("engine IN ('mirror', 'pgvector')", name="engine_known"),
        CheckConstraint("recall BETWEEN 0 AND 1 AND target BETWEEN 0 AND 1", name="recall_bounded"),
        Index(None, "dataset_id", "engine", "measured_at"),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    engine: str = column(Text)
    recall: float = column(pg.REAL)
    target: float = column(pg.REAL)
    sampled: int = column(Integer)
    measured_at: datetime = filled_time()
