"""A table that is followed by logical decoding: a publication and a slot, which the server keeps what we have not read for."""

from dataclasses import dataclass
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.store import sources
from evervec.store.attached import capture
from evervec.store.attached.changes import Backlog, Taken
from evervec.store.captures import slots
from evervec.store.database.session import Database, Tx

MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Decoded(Taken):
    """What was decoded, and the position to be confirmed once it is taken in."""

    position: str


class Logical:
    """Reads what was written out of a slot.

    A slot that is missing, or for which more of the log is kept than `most_mb`, is made anew, and all rows are compared:
    the disk of a server whose worker stood still does not fill.
    """

    def __init__(
        self, home: Database, database: Database, source_id: UUID, table: AttachedTable, most_mb: float
    ) -> None:
        self._home, self._database, self._source_id, self._table = home, database, source_id, table
        self._most_bytes = most_mb * MB

    async def waits(self) -> bool:
        """Return whether the log has grown, or the slot is to be made anew."""
        async with self._database.read() as tx:
            found = await slots.state(tx, self._source_id)
        return found.behind or found.problem is not None or found.kept_bytes > self._most_bytes

    async def take(self, limit: int) -> Taken:
        """Return what was written to the table, up to the end of a transaction."""
        async with self._database.read() as tx:
            found = await slots.state(tx, self._source_id)
            table = await capture.locate(tx, self._source_id, self._table)
        if found.problem is not None or found.kept_bytes > self._most_bytes:
            if table is not None:
                await self._make_anew(table)
            return Taken((), (), everything=True)
        async with self._database.read() as tx:
            peeked = await slots.peek(tx, self._source_id, table or self._table, limit)
        if peeked is None:
            return Taken((), (), everything=False)
        taken = Decoded(records=(), keys=list(peeked.keys), everything=peeked.everything, position=peeked.position)
        if taken.is_empty:
            await self.forget_after(taken)
        return taken

    async def _make_anew(self, table: AttachedTable) -> None:
        """Make publication and slot anew; none is left where the table was detached meanwhile."""
        await slots.remove(self._database, self._source_id)
        if await self._is_attached():
            await slots.make(self._database, self._source_id, table)
            if not await self._is_attached():
                await slots.remove(self._database, self._source_id)

    async def _is_attached(self) -> bool:
        async with self._home.read() as tx:
            return await sources.by_id(tx, self._source_id) is not None

    async def forget_inside(self, tx: Tx, taken: Taken) -> None:
        """Do nothing yet: the rows may still be rolled back."""

    async def forget_after(self, taken: Taken) -> None:
        """Confirm what was taken."""
        if isinstance(taken, Decoded):
            async with self._database.transaction() as tx:
                await slots.advance(tx, self._source_id, taken.position)

    async def backlog(self) -> Backlog:
        """Return how much of the log the server keeps; how many rows that are is known when it is read."""
        async with self._database.read() as tx:
            found = await slots.state(tx, self._source_id)
        return Backlog(0, 0.0, found.kept_bytes)
