"""Chat messages, and the work of scoring and extracting them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.extraction.knowledge import Signal
from evervec.store.schema.columns import (
    ZERO,
    Model,
    column,
    dataset,
    filled_time,
    identity,
    one_of,
    optional,
    optional_time,
)
from evervec.store.schema.predicates import UNEXTRACTED_ID, UNSCORED_ID


class Message(Model, table=True):
    """A message of a chat, by the identity that its source gives it.

    An edit of `content` is a new `revision`. The message waits for a score while `scored_revision` is another one, and
    for extraction while `extracted_revision` is; `unscored_id` and `unextracted_id` are generated, its id while it waits.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("dataset_id", "chat", "external_id"),
        CheckConstraint(one_of("signal", Signal), name="signal_known"),
        CheckConstraint("score BETWEEN 0 AND 1", name="score_bounded"),
        CheckConstraint(
            "num_nulls(score, signal, score_factors, scored_revision) IN (0, 4)", name="scored_whole_or_not"
        ),
        CheckConstraint("scored_revision <= revision AND extracted_revision <= revision", name="revision_not_ahead"),
        Index("messages_unscored_idx", "dataset_id", "unscored_id", postgresql_where=text("unscored_id IS NOT NULL")),
        Index(
            "messages_unextracted_idx",
            "dataset_id",
            "unextracted_id",
            postgresql_where=text("unextracted_id IS NOT NULL"),
        ),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    chat: str = column(Text)
    external_id: str = column(Text)
    author: str = column(Text)
    sent_at: datetime = filled_time()
    edited_at: datetime | None = optional_time()
    reply_to: str | None = optional(Text)
    content: str = column(Text)
    revision: int = column(Integer, server_default=text("1"))
    score: float | None = optional(pg.REAL)
    signal: str | None = optional(Text)
    score_factors: dict[str, Any] | None = optional(pg.JSONB)
    scored_revision: int | None = optional(Integer)
    extracted_revision: int | None = optional(Integer)
    unscored_id: int | None = optional(BigInteger, Computed(UNSCORED_ID, persisted=True))
    unextracted_id: int | None = optional(BigInteger, Computed(UNEXTRACTED_ID, persisted=True))


class ExtractWork(Model, table=True):
    """A message that is being scored or extracted, waits to be tried again, or has failed for good (`dead_at`)."""

    __tablename__ = "extract_work"
    __table_args__ = (
        CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole_or_not"),
        CheckConstraint("dead_at IS NULL OR last_error IS NOT NULL", name="dead_with_reason"),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    message_id: int = column(BigInteger, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    revision: int = column(Integer)
    attempts: int = column(Integer, server_default=ZERO)
    not_before: datetime = filled_time()
    lease_owner: UUID | None = optional(pg.UUID(as_uuid=True))
    lease_until: datetime | None = optional_time()
    dead_at: datetime | None = optional_time()
    last_code: str | None = optional(Text)
    last_error: str | None = optional(Text)
