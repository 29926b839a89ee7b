"""What the tests of mirrors share: many vectors at once, processes that follow, and waiting until mirrors are up to date."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes, vector_wire
from evervec.store.schema.embeddables import MESSAGE
from tests.fakes.vectors import expected_vectors
from tests.store.planting import plant

MODEL, WIDTH = "embedder", 32
"""What the fake provider of these tests is asked for."""
TEXTS = [f"the queue number {n} is full of jobs" for n in range(40)]


async def embedded(resources: Resources, psql: Any, dataset: DatasetRef, *texts: str) -> list[int]:
    """Messages embedded by the engine; return their row ids."""
    ids = [await plant(psql, MESSAGE, dataset.id, text) for text in texts]
    await embed_dataset(resources, dataset.id)
    return ids


async def stored(
    resources: Resources, dataset: DatasetRef, texts: Sequence[str], rows: NDArray[np.float32] | None = None
) -> list[int]:
    """Messages with vectors in one transaction, those of the fake provider or `rows` `(n, 32)`; return vector ids."""
    rows = expected_vectors(MODEL, texts, WIDTH) if rows is None else rows
    async with resources.database.transaction() as tx:
        ids = [
            row["id"]
            for row in await tx.fetch(
                "INSERT INTO messages (dataset_id, chat, external_id, author, content) SELECT $1, 'chat', "
                "gen_random_uuid()::text, 'dev', t FROM unnest($2::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n RETURNING id",
                dataset.id,
                list(texts),
            )
        ]
        found = await tx.fetch(
            "UPDATE embeddings e SET embedding = v.vector, embedded_hash = content_hash, embedded_at = now(), "
            "space_id = (SELECT id FROM embedding_spaces WHERE state = 'active') "
            "FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector) WHERE e.kind = 1 AND e.row_id = v.id "
            "RETURNING e.row_id, e.vector_id",
            ids,
            vector_wire.pack(rows),
        )
        by_row = {row["row_id"]: row["vector_id"] for row in found}
    return [by_row[row_id] for row_id in ids]


@asynccontextmanager
async def process(resources: Resources, **changed: Any) -> AsyncIterator[Resources]:
    """Another process as far as mirrors go, with other settings; its poll is quick."""
    settings = resources.settings.model_copy(update={"mirror_poll_seconds": 0.05, **changed})
    mirrors = Mirrors(settings, resources.database)
    try:
        yield replace(resources, settings=settings, mirrors=mirrors)
    finally:
        await mirrors.aclose()


@asynccontextmanager
async def following(resources: Resources) -> AsyncIterator[Mirrors]:
    """Follow with this process, as a worker does."""
    finish = asyncio.Event()
    task = asyncio.create_task(follow(resources.mirrors, resources.doorbell, finish))
    try:
        yield resources.mirrors
    finally:
        finish.set()
        await task


@asynccontextmanager
async def worker(resources: Resources, **changed: Any) -> AsyncIterator[Resources]:
    """Another process that follows."""
    async with process(resources, **changed) as other, following(other):
        yield other


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something to hold; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait for something that has to be asked for; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.01)


async def true(resources: Resources, dataset: DatasetRef) -> bool:
    """Whether the mirror in memory is what the database says now."""
    index = resources.mirrors.mirror(dataset).index
    async with resources.database.read() as tx:
        return index is not None and Digest.of(*index.versions()) == await changes.digest(
            tx, dataset.id, dataset.space_id
        )


async def until_true(resources: Resources, dataset: DatasetRef, seconds: float = 60) -> Mirror:
    """Wait until the mirror of a dataset is ready, checked, and what the database says."""
    mirror = resources.mirrors.mirror(dataset)
    async with asyncio.timeout(seconds):
        while mirror.last_check is None or mirror.state != "ready" or not await true(resources, dataset):
            await asyncio.sleep(0.01)
            mirror = resources.mirrors.mirror(dataset)
    return mirror


async def ids_in(resources: Resources, dataset: DatasetRef) -> list[int]:
    """Return the ids of a dataset's vectors, sorted."""
    async with resources.database.read() as tx:
        return sorted((await changes.versions(tx, dataset.id, dataset.space_id))[0].tolist())
