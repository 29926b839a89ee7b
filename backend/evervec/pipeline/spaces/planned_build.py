"""The plan of a build: every row of its datasets, with documents chunked as for the other space, in the parts of claims."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from evervec.pipeline import chunking
from evervec.pipeline.budget.planning import SendPlan, plan_rows
from evervec.pipeline.chunking import Chunker
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, space_of
from evervec.pipeline.spaces.step import CHUNKED_DOCUMENTS
from evervec.store import datasets, providers
from evervec.store.budget import planned_rows
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import spaces, unchunked


async def plan(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> SendPlan:
    """Return what a build with these options would send; nothing is sent or written. Raises as `start` does.

    Datasets that are searched in that space, or build it already, are left out.
    """
    async with resources.database.read() as tx:
        target = await space_of(tx, options)
        provider = replace(await providers.by_name(tx, options.provider), space=target)
        building = {(one.dataset_id, one.space_id) for one in await spaces.others(tx)}
        scope = [
            one
            for one in await datasets.find(tx, dataset)
            if one.space_id != target.id and (one.id, target.id) not in building
        ]
    chunker = chunking.for_provider(resources, provider)
    return await plan_rows(resources, provider, _claims(resources, chunker, scope))


async def _claims(resources: Resources, chunker: Chunker, scope: Sequence[DatasetRef]) -> AsyncIterator[Sequence[str]]:
    size = resources.settings.embed_batch
    for one in scope:
        async for texts in _rows(resources, one, size):
            yield texts
        waiting: list[str] = []
        async for texts in _chunks(resources, chunker, one):
            waiting += texts
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield waiting


async def _rows(resources: Resources, dataset: DatasetRef, size: int) -> AsyncIterator[Sequence[str]]:
    after: int | None = 0
    while after is not None:
        async with resources.database.read() as tx:
            page = await planned_rows.of_every_space(tx, dataset.id, after=after, limit=size)
        after = page.after
        if page.texts:
            yield page.texts


async def _chunks(resources: Resources, chunker: Chunker, dataset: DatasetRef) -> AsyncIterator[Sequence[str]]:
    after = 0
    while True:
        async with resources.database.read() as tx:
            read = await unchunked.every(tx, dataset.id, after=after, limit=CHUNKED_DOCUMENTS)
        if not read:
            return
        after = read[-1].id
        chunked = await asyncio.to_thread(chunker.chunk, [one.document for one in read])
        yield [chunk.vector_text for _, chunks in chunked for chunk in chunks]
