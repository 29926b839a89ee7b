"""A table or view that is looked at again and again: what is written to it leaves no record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from evervec.domain.attachment import AttachedColumn, AttachedTable
from evervec.pipeline.captures.records import NOTHING
from evervec.store.attached import attachments, capture
from evervec.store.attached.changes import Backlog, Taken
from evervec.store.captures import polling
from evervec.store.captures.polling import Look, Position
from evervec.store.database.session import Database, ReadTx, Tx

POSITION: Final = "position"
"""The place of the position in the cursor of a source."""


@dataclass(frozen=True, kw_only=True)
class Looked(Taken):
    """What a look found, and the position to be kept with it."""

    position: Position
    moves: bool

    @property
    def is_empty(self) -> bool:
        """Return whether there was nothing to take, and the position stays what it is."""
        return super().is_empty and not self.moves


async def first_position(tx: ReadTx, table: AttachedTable, column: AttachedColumn | None) -> dict[str, object]:
    """Return what is kept before the rows are taken in that are there now; without a column `xmin` tells what is new."""
    found = await (polling.begin_by_xmin(tx) if column is None else polling.begin_by_time(tx, table, column))
    return {POSITION: found.dump()}


class Polled:
    """Looks for rows that are new or changed, by a column of times or by `xmin`; and at times for those that are gone."""

    def __init__(
        self,
        database: Database,
        source_id: UUID,
        table: AttachedTable,
        column: AttachedColumn | None,
        cursor: Mapping[str, Any],
        compare_seconds: float,
    ) -> None:
        self._database, self._source_id, self._table, self._column = database, source_id, table, column
        self._position = Position.load(cursor[POSITION])
        self._compare_seconds = compare_seconds

    async def waits(self) -> bool:
        """Return whether a look would find anything, or the keys are to be compared."""
        async with self._database.read() as tx:
            if await self._is_compared_late(tx):
                return True
            table = await capture.locate(tx, self._source_id, self._table)
            if table is None:
                return True
            if self._column is None:
                return await polling.any_by_xmin(tx, table, self._position)
            return await polling.any_by_time(tx, table, self._column, self._position)

    async def take(self, limit: int) -> Taken:
        """Return the next rows that were written."""
        async with self._database.read() as tx:
            table = await capture.locate(tx, self._source_id, self._table)
            compares = await self._is_compared_late(tx)
            now = await polling.clock(tx)
            # without the table nothing is known of its rows: whoever takes that finds it gone, or all rows are read again
            gone = Look((), self._position, everything=True)
            look = gone if table is None else await self._look(tx, table, limit)
        position = replace(look.position, compared_at=now) if compares else look.position
        return Looked(
            records=(),
            keys=look.keys,
            everything=look.everything,
            compares=compares,
            position=position,
            moves=position != self._position,
        )

    async def _look(self, tx: ReadTx, table: AttachedTable, limit: int) -> Look:
        if self._column is None:
            return await polling.look_by_xmin(tx, table, self._position, limit)
        return await polling.look_by_time(tx, table, self._column, self._position, limit)

    async def _is_compared_late(self, tx: ReadTx) -> bool:
        return await polling.clock(tx) - self._position.compared_at >= self._compare_seconds

    async def forget_inside(self, tx: Tx, taken: Taken) -> None:
        """Keep the position after what was taken."""
        if isinstance(taken, Looked):
            await attachments.merge_cursor(tx, self._source_id, {POSITION: taken.position.dump()})

    async def forget_after(self, taken: Taken) -> None:
        """Go on from there."""
        if isinstance(taken, Looked):
            self._position = taken.position

    async def backlog(self) -> Backlog:
        """Return nothing: how many rows were written is known when they are found."""
        return NOTHING
