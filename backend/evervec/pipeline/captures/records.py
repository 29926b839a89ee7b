"""Change records that triggers write: in our own database, or in the outbox of another one."""

from uuid import UUID

from evervec.store.attached import changes
from evervec.store.attached.changes import Backlog, Taken
from evervec.store.database.session import Database, Tx

NOTHING = Backlog(0, 0.0)


class HomeRecords:
    """The records in our own database: forgotten in the transaction that writes the rows."""

    def __init__(self, database: Database, source_id: UUID) -> None:
        self._database, self._source_id = database, source_id

    async def waits(self) -> bool:
        """Return whether there is any record."""
        async with self._database.read() as tx:
            return await changes.any_of(tx, self._source_id)

    async def take(self, limit: int) -> Taken:
        """Return the oldest records."""
        async with self._database.read() as tx:
            return await changes.take(tx, self._source_id, limit)

    async def forget_inside(self, tx: Tx, taken: Taken) -> None:
        """Delete what was taken."""
        await changes.forget(tx, self._source_id, taken)

    async def forget_after(self, taken: Taken) -> None:
        """Do nothing more."""

    async def backlog(self) -> Backlog:
        """Return how many records there are, and the age of the oldest."""
        async with self._database.read() as tx:
            return (await changes.backlog(tx, [self._source_id])).get(self._source_id, NOTHING)


class OutboxRecords(HomeRecords):
    """The records in an outbox: deleted there after our commit, so that a crash between only has them taken again."""

    async def forget_inside(self, tx: Tx, taken: Taken) -> None:
        """Do nothing yet: the rows may still be rolled back."""

    async def forget_after(self, taken: Taken) -> None:
        """Delete what was taken."""
        async with self._database.transaction() as tx:
            await changes.forget(tx, self._source_id, taken)
