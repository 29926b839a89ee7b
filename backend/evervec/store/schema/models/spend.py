"""What was sent to providers, and how much may be."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    ForeignKey,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.spending import Reason
from evervec.store.schema.columns import ZERO, Model, column, filled_time, identity, one_of, optional, optional_time


def _count() -> int:
    """Declare a count that starts at zero."""
    counted: int = column(BigInteger, server_default=ZERO)
    return counted


def _sum() -> float:
    """Declare a sum that starts at zero."""
    summed: float = column(pg.DOUBLE_PRECISION, server_default=ZERO)
    return summed


class Spend(Model, table=True):
    """What was sent on one day (UTC) to a provider for a dataset, and what was saved beside it.

    The counts of a day are spread over several `part`s, so that workers do not wait for each other. A provider is named
    and not referred to: what was spent stays when it is removed.
    """

    __tablename__ = "spend"
    __table_args__ = (
        UniqueConstraint(
            "day",
            "provider",
            "model",
            "dataset_id",
            "reason",
            "part",
            name="spend_key",
            postgresql_nulls_not_distinct=True,
        ),
        CheckConstraint(one_of("reason", Reason), name="reason_known"),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: int = identity()
    day: date = column(Date)
    part: int = column(SmallInteger)
    provider: str = column(Text)
    model: str = column(Text)
    dataset_id: UUID | None = optional(pg.UUID(as_uuid=True))
    reason: str = column(Text)
    requests: int = _count()
    texts: int = _count()
    tokens: int = _count()
    told_tokens: int = _count()
    output_tokens: int = _count()
    seconds: float = _sum()
    usd: float = _sum()
    unpriced_tokens: int = _count()
    reused: int = _count()
    reused_tokens: int = _count()
    unchanged: int = _count()
    unchanged_tokens: int = _count()
    saved_usd: float = _sum()


class BudgetRecord(Model, table=True):
    """What may be sent to a provider or for a dataset, what was, and the bucket of the pace that all workers share.

    `requests` and `tokens` are in the bucket at `filled_at`, below 0 if they were taken in advance; NULL is a full one.
    `share` is the part of the limits per minute that is used. Nothing fits under the ceiling `closed_by` until `closed_until`.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("num_nonnulls(provider_id, dataset_id) = 1", name="of_provider_or_dataset"),
        CheckConstraint(
            "dataset_id IS NULL OR num_nonnulls(requests_per_minute, tokens_per_minute) = 0", name="pace_of_provider"
        ),
        CheckConstraint("requests_per_minute > 0 AND tokens_per_minute > 0", name="pace_above_zero"),
        CheckConstraint(
            "tokens_per_day >= 0 AND tokens_per_month >= 0 AND usd_per_day >= 0 AND usd_per_month >= 0",
            name="ceilings_not_negative",
        ),
        CheckConstraint("(closed_by IS NULL) = (closed_until IS NULL)", name="closed_whole_or_not"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    id: int = identity()
    provider_id: UUID | None = optional(
        pg.UUID(as_uuid=True), ForeignKey("llm_providers.id", ondelete="CASCADE"), unique=True
    )
    dataset_id: UUID | None = optional(
        pg.UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"), unique=True
    )
    requests_per_minute: int | None = optional(Integer)
    tokens_per_minute: int | None = optional(BigInteger)
    tokens_per_day: int | None = optional(BigInteger)
    tokens_per_month: int | None = optional(BigInteger)
    usd_per_day: float | None = optional(pg.DOUBLE_PRECISION)
    usd_per_month: float | None = optional(pg.DOUBLE_PRECISION)
    share: float = column(pg.DOUBLE_PRECISION, server_default=text("1"))
    requests: float | None = optional(pg.DOUBLE_PRECISION)
    tokens: float | None = optional(pg.DOUBLE_PRECISION)
    filled_at: datetime = filled_time()
    slowed_at: datetime | None = optional_time()
    day: date | None = optional(Date)
    day_tokens: int = _count()
    day_usd: float = _sum()
    month: date | None = optional(Date)
    month_tokens: int = _count()
    month_usd: float = _sum()
    closed_by: str | None = optional(Text)
    closed_until: datetime | None = optional_time()
