"""Which process does what only one may do at a time."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Text
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import Model, column, filled_time


class NamedLease(Model, table=True):
    """A lease on one piece of work, such as `index:<dataset id>`; no row, or one that has expired, means that it is free.

    `owner` is drawn anew with each acquisition, so it also tells two leases of one process apart.
    """

    __tablename__ = "leases"

    name: str = column(Text, primary_key=True)
    owner: UUID = column(pg.UUID(as_uuid=True))
    acquired_at: datetime = filled_time()
    lease_until: datetime = column(DateTime(timezone=True))
