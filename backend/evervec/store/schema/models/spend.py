"""What was sent to providers, and how much may be."""

from datetime import date
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Date, SmallInteger, Text, UniqueConstraint
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.spending import Reason
from evervec.store.schema.columns import ZERO, Model, column, identity, one_of, optional


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
