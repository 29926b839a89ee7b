"""Waiting for an attached table: its rows are taken in and embedded here, beside whatever workers do."""

import asyncio
from uuid import UUID

from evervec.pipeline.attached.follow import follow_table
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.attached.work import Taken
from evervec.pipeline.captures import opening
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store import sources

WAITING_LOOK_SECONDS = 0.1


async def until_taken_in(resources: Resources, source_id: UUID, taken: Taken | None = None) -> Progress:
    """Take existing rows and recorded changes in until none waits; return the state. Ends early at an error."""
    counted = 0
    while True:
        await follow_table(resources, source_id)
        async with resources.database.read() as tx:
            record = await sources.by_id(tx, source_id)
        if record is None:
            return Progress(error="It was detached meanwhile.")
        progress = Progress.load(record.cursor)
        if taken is not None:
            taken(max(0, progress.taken_in - counted))
            counted = max(counted, progress.taken_in)
        if progress.error is not None:
            return progress
        if progress.done and not await (await opening.opened(resources, record)).waits():
            return progress
        # a worker has the lease: it does the same
        await asyncio.sleep(WAITING_LOOK_SECONDS)


async def embed_all(resources: Resources, source_id: UUID, done: Taken | None = None) -> int:
    """Embed what is pending in the datasets of an attachment; return how many rows were embedded."""
    async with resources.database.read() as tx:
        filled = [one for one in (await sources.filled(tx, source_id)).values() if one.is_live]
    return sum([(await embed_dataset(resources, one.id, progress=done)).success for one in filled])
