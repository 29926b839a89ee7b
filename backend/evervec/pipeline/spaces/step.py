"""One step of a build: rows are taken in, documents chunked, texts embedded, vectors indexed; each may be the last one of a process."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from evervec.domain.documents.chunking import ChunkDraft
from evervec.domain.spending import Reason
from evervec.pipeline import chunking
from evervec.pipeline.chunking import Chunker, DatasetGone, lock_dataset
from evervec.pipeline.embedding.embed import Progress, Until, embed_dataset, within_time_slice
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.index import index_filled
from evervec.store import datasets, documents
from evervec.store.batch import batch_queue
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import space_builds, spaces, unchunked
from evervec.store.spaces.spaces import OtherSpace
from evervec.store.spaces.unchunked import UnchunkedDocument

TAKEN_IN = 5_000
CHUNKED_DOCUMENTS = 50
CLAIM_SECONDS = 0.25
"""How long a build claims rows before it looks again whether rows wait that people search: what is claimed then is embedded first."""


async def opened(resources: Resources) -> list[tuple[OtherSpace, DatasetRef]]:
    """Return the spaces that are written to beside those that are searched, each with its dataset as it is there."""
    async with resources.database.read() as tx:
        live = {one.id: one for one in await datasets.live(tx)}
        return [
            (one, replace(live[one.dataset_id], space_id=one.space_id, provider_id=one.provider_id))
            for one in await spaces.others(tx)
            if one.dataset_id in live
        ]


async def step(
    resources: Resources, one: OtherSpace, dataset: DatasetRef, until: Until, progress: Progress | None = None
) -> bool:
    """Do the next part of a build; return whether there was anything to do."""
    if not one.taken_in:
        return await _take_in(resources, one, until)
    if await _chunk(resources, dataset):
        return True
    if one.batch_hours is not None and not one.marked:
        await _leave_to_batch_jobs(resources, one, one.batch_hours)
    counts = await embed_dataset(
        resources,
        dataset.id,
        space_id=dataset.space_id,
        until=within_time_slice(until, CLAIM_SECONDS),
        progress=progress,
        reason=Reason.REEMBED,
    )
    # not only when nothing is left: where rows are written all the time, a few always wait
    indexed = not one.indexed and await index_filled(resources, one.space_id)
    return indexed or counts.success + counts.failed > 0


async def _take_in(resources: Resources, one: OtherSpace, until: Until) -> bool:
    """Give every row a record in the space; return False while transactions are open that do not know of it."""
    async with resources.database.transaction() as tx:
        if not await spaces.older_writers_ended(tx, one.dataset_id, one.space_id):
            return False
        present = await datasets.by_id(tx, one.dataset_id)
    if present is None:
        raise DatasetGone
    reached: int | None = 0
    while reached is not None and not until():
        after = reached
        reached = await resources.database.with_retries(
            lambda tx, after=after: spaces.take_in(  # type: ignore[misc]
                tx, one.dataset_id, one.space_id, present=present.space_id, after=after, limit=TAKEN_IN
            )
        )
    if reached is None:
        async with resources.database.transaction() as tx:
            await spaces.documents_due(tx, one.dataset_id, one.space_id)
            await spaces.taken_in(tx, one.dataset_id, one.space_id)
    return True


async def _leave_to_batch_jobs(resources: Resources, one: OtherSpace, hours: float) -> None:
    """Mark the rows that are there for batch jobs; what is written later is little, and is embedded at once."""
    async with resources.database.transaction() as tx:
        await batch_queue.mark_datasets(tx, [one.dataset_id], space_id=one.space_id, hours=hours)
        await space_builds.marked(tx, one.dataset_id, one.space_id)


async def _chunk(resources: Resources, dataset: DatasetRef) -> bool:
    """Make the chunks of some documents for the space; return whether there were any."""
    async with resources.database.read() as tx:
        read = await unchunked.for_space(tx, dataset.id, dataset.space_id, limit=CHUNKED_DOCUMENTS)
    if not read:
        return False
    chunker = await chunking.of_dataset(resources, dataset)
    chunked = await asyncio.to_thread(chunker.chunk, [one.document for one in read])
    await _write(resources, chunker, dataset, list(zip(read, (chunks for _, chunks in chunked), strict=True)))
    return True


async def _write(
    resources: Resources,
    chunker: Chunker,
    dataset: DatasetRef,
    pairs: Sequence[tuple[UnchunkedDocument, Sequence[ChunkDraft]]],
) -> None:
    async def once(tx: Tx) -> None:
        await lock_dataset(tx, dataset.id)
        unchanged = await unchunked.lock_unchanged(tx, [one for one, _ in pairs])
        same = [(one.id, chunks) for one, chunks in pairs if one.id in unchanged]
        await documents.replace_chunks(tx, dataset.id, chunker.provider.space.id, same)

    await resources.database.with_retries(once)
