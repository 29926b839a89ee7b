"""Leases on rows: renewed while the work lasts, released when it ends. A process that dies lets its leases run out."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from uuid import UUID, uuid4

from evervec import log
from evervec.errors import EvervecError
from evervec.store.session import Database, Tx

logger = log.get("leases")


class LeasedTable(Protocol):
    """The module of a table in the store whose rows are claimed with a lease."""

    async def renew(self, tx: Tx, owner: UUID, /, *, lease: float) -> object:
        """Extend every lease of an owner."""
        ...

    async def release(self, tx: Tx, owner: UUID, ids: Sequence[int], /) -> object:
        """Make rows of an owner free again, as they were."""
        ...


class Lease:
    """The lease of one owner on the rows that it claims; without renewal it ends `seconds` after the claim."""

    def __init__(self, database: Database, table: LeasedTable, seconds: float) -> None:
        self.owner = uuid4()
        self.seconds = seconds
        self._database, self._table = database, table

    @asynccontextmanager
    async def renewed(self, ids: Collection[int]) -> AsyncIterator[None]:
        """Renew the lease while the body runs, then release the rows in `ids`, also after a cancellation.

        The body takes the rows that it has finished out of `ids`; releasing a finished row changes nothing.
        """
        renewer = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewer.cancel()
            with suppress(asyncio.CancelledError):
                await renewer
            if ids:
                await asyncio.shield(self._release(list(ids)))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.seconds / 3)
            try:
                async with self._database.transaction() as tx:
                    await self._table.renew(tx, self.owner, lease=self.seconds)
            except EvervecError as error:
                logger.warning("leases not renewed", error=str(error))

    async def _release(self, ids: Sequence[int]) -> None:
        try:
            async with self._database.transaction() as tx:
                await self._table.release(tx, self.owner, ids)
        except EvervecError as error:
            # the database is away: the leases run out by themselves
            logger.warning("leases not released", rows=len(ids), error=str(error))
