"""Rings after the commit of somebody else: a transaction is followed by its id, and what it wrote is rung for at its end."""

import asyncio
from collections.abc import Collection
from uuid import UUID

from evervec.errors import EvervecError
from evervec.pipeline.resources import Resources
from evervec.queue.names import SWEEP
from evervec.store.callers import savepoints

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.01, 0.5
"""Seconds between two looks at an open transaction: each is twice as long as the one before, up to the last."""

FOLLOWED_SECONDS = 60.0
"""Longest time that an open transaction is followed; what it commits later is found by the sweep."""


async def ring(resources: Resources, dataset_ids: Collection[UUID]) -> None:
    """Ring for datasets whose rows are committed."""
    for dataset_id in dataset_ids:
        await resources.doorbell.ring(SWEEP, of=dataset_id)


class CommitFollower:
    """Follows open transactions in the background, and rings for those that commit."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._following: set[asyncio.Task[None]] = set()

    def follow(self, xid: int, dataset_ids: Collection[UUID]) -> None:
        """Ring for datasets when a transaction has committed."""
        task = asyncio.create_task(self._follow(xid, dataset_ids))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def aclose(self) -> None:
        """Stop; may be called twice."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def _follow(self, xid: int, dataset_ids: Collection[UUID]) -> None:
        pause = FIRST_LOOK_SECONDS
        try:
            async with asyncio.timeout(FOLLOWED_SECONDS):
                while (found := await self._outcome(xid)) == savepoints.OPEN:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LAST_LOOK_SECONDS)
        except (TimeoutError, EvervecError):
            return  # the sweep finds it
        if found == savepoints.COMMITTED:
            await ring(self._resources, dataset_ids)

    async def _outcome(self, xid: int) -> str | None:
        async with self._resources.database.read() as tx:
            return await savepoints.outcome(tx, xid)
