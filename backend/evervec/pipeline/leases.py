"""Leases: renewed while the work lasts, released when it ends. A process that dies or freezes lets its leases run out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Protocol
from uuid import UUID, uuid4

from evervec import log
from evervec.errors import EvervecError, LeaseLostError
from evervec.store import leases
from evervec.store.database.session import Database, Tx

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
        try:
            async with _renewed(self._renew, self.seconds):
                yield
        finally:
            if ids:
                await asyncio.shield(_released(self._release(list(ids))))

    async def _renew(self) -> bool:
        async with self._database.transaction() as tx:
            await self._table.renew(tx, self.owner, lease=self.seconds)
        return True

    async def _release(self, ids: Sequence[int]) -> None:
        async with self._database.transaction() as tx:
            await self._table.release(tx, self.owner, ids)


class HeldLease:
    """The lease of one owner on a named piece of work. A new one is made for each acquisition.

    `database` is for what only the holder may write: a transaction of it raises `LeaseLostError` once another owner has
    the lease, and nobody takes the lease over while it is open. Reading needs no such check.
    """

    def __init__(self, database: Database, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.database = database.guarded(self._require)
        self._plain_database, self._owner = database, uuid4()
        self._sure_until = 0.0

    async def confirm(self) -> None:
        """Make sure that the lease is held now, before something outside of the database. Raises `LeaseLostError`."""
        # the time of a process that was stopped goes on: after a while nothing is sure but what PostgreSQL says
        if monotonic() >= self._sure_until and not await self._renew():
            raise LeaseLostError(name=self.name)

    async def _require(self, tx: Tx) -> None:
        await leases.require(tx, self.name, self._owner)

    async def _acquire(self) -> bool:
        asked = monotonic()
        async with self._plain_database.transaction() as tx:
            acquired = await leases.acquire(tx, self.name, self._owner, seconds=self.seconds)
        self._sure_until = asked + self.seconds
        return acquired

    async def _renew(self) -> bool:
        asked = monotonic()
        async with self._plain_database.transaction() as tx:
            renewed = await leases.renew(tx, self.name, self._owner, seconds=self.seconds)
        self._sure_until = asked + self.seconds
        return renewed

    async def _release(self) -> None:
        async with self._plain_database.transaction() as tx:
            await leases.release(tx, self.name, self._owner)


@asynccontextmanager
async def held(database: Database, name: str, seconds: float) -> AsyncIterator[HeldLease | None]:
    """Hold the lease on a named piece of work while the body runs, and release it, also after a cancellation.

    Yield None if somebody else has it. A body that stood still for longer than `seconds` may have lost it: what it does
    then ends at the next transaction of the lease's database, with `LeaseLostError`.
    """
    lease, is_free = HeldLease(database, name, seconds), True
    try:
        is_free = await lease._acquire()
        if not is_free:
            yield None
            return
        async with _renewed(lease._renew, seconds):
            yield lease
    finally:
        # also after a cancellation that came while PostgreSQL was asked
        if is_free:
            await asyncio.shield(_released(lease._release()))


@asynccontextmanager
async def _renewed(renew: Callable[[], Awaitable[bool]], seconds: float) -> AsyncIterator[None]:
    """Renew while the body runs, until there is nothing left to renew."""
    renewer = asyncio.create_task(_keep_renewing(renew, seconds))
    try:
        yield
    finally:
        renewer.cancel()
        with suppress(asyncio.CancelledError):
            await renewer


async def _keep_renewing(renew: Callable[[], Awaitable[bool]], seconds: float) -> None:
    pause, still_ours = seconds / 3, True
    while still_ours:
        await asyncio.sleep(pause)
        try:
            # a connection that is silently dead must not take all of the lease's time
            async with asyncio.timeout(seconds / 2):
                still_ours = await renew()
            pause = seconds / 3
        except (EvervecError, TimeoutError) as error:
            logger.warning("lease not renewed", error=str(error))
            pause = seconds / 10
    logger.warning("lease lost")


async def _released(release: Awaitable[None]) -> None:
    try:
        await release
    except EvervecError as error:
        # the database is away: the lease runs out by itself
        logger.warning("lease not released", error=str(error))
