"""The plan of a build: the rows and documents of datasets, as the build would read, chunk and claim them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from evervec.pipeline import chunking
from evervec.pipeline.budget.planning import SendPlan, plan_rows
from evervec.pipeline.chunking import Chunker
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, space_of
from evervec.store import datasets, providers, unchunked
from evervec.store.budget import planned_rows
from evervec.store.datasets import DatasetRef

DOCUMENTS = 50


async def plan(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> SendPlan:
    """Return what a build with the same options would send. Raises as `build.start` does. Sends and writes nothing."""
    async with resources.database.read() as tx:
        target = await space_of(tx, options)
        provider = replace(await providers.by_name(tx, options.provider), space=target)
        scope = [one for one in await datasets.find(tx, dataset) if one.space_id != target.id]
    return await plan_rows(resources, provider, _claims(resources, chunking.for_provider(resources, provider), scope))


async def _claims(resources: Resources, chunker: Chunker, scope: Sequence[DatasetRef]) -> AsyncIterator[Sequence[str]]:
    for one in scope:
        after: int | None = 0
        while after is not None:
            async with resources.database.read() as tx:
                page = await planned_rows.searched(tx, one.id, after=after, limit=resources.settings.embed_batch)
            after = page.after
            if page.texts:
                yield page.texts
        async for texts in _chunks(resources, chunker, one):
            yield texts


async def _chunks(resources: Resources, chunker: Chunker, dataset: DatasetRef) -> AsyncIterator[Sequence[str]]:
    """Yield the chunks that the documents of a dataset would have, in the parts that claims would take."""
    size, waiting, after = resources.settings.embed_batch, list[str](), 0
    while True:
        async with resources.database.read() as tx:
            read = await unchunked.of_dataset(tx, dataset.id, after=after, limit=DOCUMENTS)
        if not read:
            break
        after = read[-1].id
        chunked = await asyncio.to_thread(chunker.chunk, [one.document for one in read])
        waiting += [chunk.vector_text for _, chunks in chunked for chunk in chunks]
        while len(waiting) >= size:
            yield waiting[:size]
            del waiting[:size]
    if waiting:
        yield waiting
