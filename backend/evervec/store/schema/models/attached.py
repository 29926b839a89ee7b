"""What triggers on attached tables write, and the rows that could not be taken in."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import Model, column, filled_time, optional


class AttachedChange(Model, table=True):
    """A row of an attached table that was written, by its key; the key `[]` stands for all rows, as after TRUNCATE.

    Rows that one statement inserts are recorded a hundred at a time: the key is a list of keys then.

    Records are only added and deleted, so no writer waits for another. `changed_at` is in the key because a restored dump
    brings ids that the triggers may have given anew; there is no foreign key, which would cost a look-up a row.
    """

    __tablename__ = "attached_changes"

    source_id: UUID = column(pg.UUID(as_uuid=True), primary_key=True)
    id: int = column(BigInteger, Identity(), primary_key=True)
    changed_at: datetime = column(DateTime(timezone=True), server_default=text("now()"), primary_key=True)
    key: list[Any] = column(pg.JSONB)


class AttachedFailure(Model, table=True):
    """A row of an attached table whose text could not be made, and the reason; its next change clears it.

    Its `id` is how people name it, `dataset_id` the dataset that it would be in if that is known.
    """

    __tablename__ = "attached_failures"
    __table_args__ = (UniqueConstraint("id"), Index(None, "dataset_id"))

    source_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True)
    key: list[Any] = column(pg.JSONB, primary_key=True)
    reason: str = column(Text)
    failed_at: datetime = filled_time()
    id: int = column(BigInteger, Identity(always=True))
    dataset_id: UUID | None = optional(pg.UUID(as_uuid=True))
