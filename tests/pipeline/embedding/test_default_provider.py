"""A database without any provider gets the local one, from whichever process comes first."""

import asyncio

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.store import providers as stored


async def test_processes_that_start_together_add_it_once(bare: Resources) -> None:
    await asyncio.gather(*(providers.ensure_default(bare) for _ in range(6)))
    async with bare.database.read() as tx:
        (added,) = await stored.every(tx)
    assert added.space.active
