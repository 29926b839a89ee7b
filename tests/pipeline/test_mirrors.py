"""The mirrors of a process: opened or built, following, checked, repaired, rebuilt; search asks them and falls back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from evervec.domain.feed import Digest
from evervec.pipeline.embed import embed_dataset
from evervec.pipeline.mirrors import Mirrors
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search
from evervec.store import changes
from evervec.store.datasets import Dataset
from evervec.store.embeddables import MESSAGE
from tests.store.planting import plant

TEXTS = [f"the queue number {n} is full of jobs" for n in range(40)]


async def embedded(resources: Resources, psql: Any, dataset: Dataset, *texts: str) -> list[int]:
    """Messages embedded by the engine; answers their row ids."""
    ids = [await plant(psql, MESSAGE, dataset.id, text) for text in texts]
    await embed_dataset(resources, dataset.id)
    return ids


@asynccontextmanager
async def following(resources: Resources) -> AsyncIterator[Mirrors]:
    """The process follows, as a worker does."""
    finish = asyncio.Event()
    task = asyncio.create_task(resources.mirrors.follow(resources.broker, finish))
    try:
        yield resources.mirrors
    finally:
        finish.set()
        await task


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to hold; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def true(resources: Resources, dataset: Dataset) -> bool:
    """Whether the mirror in memory is what the database says now."""
    index = resources.mirrors.mirror(dataset).index
    async with resources.database.read() as tx:
        return index is not None and Digest.of(*index.versions()) == await changes.digest(tx, dataset.id)


async def until_true(resources: Resources, dataset: Dataset, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await true(resources, dataset):
            await asyncio.sleep(0.01)


async def test_a_process_that_follows_builds_a_mirror_and_keeps_it_true(
    resources: Resources, dataset: Dataset, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    async with following(resources) as mirrors:
        await until(lambda: mirrors.mirror(dataset).state == "ready")
        await until_true(resources, dataset)
        await embedded(resources, psql, dataset, "a new one")
        await until_true(resources, dataset)
        await psql.execute("DELETE FROM messages WHERE id % 2 = 0")
        await until_true(resources, dataset)
        found = await search(resources, "a new one", k=3)
        assert found.engine == "mirror"
        exact = await search(resources, "a new one", k=3, engine="exact")
        assert [hit.id for hit in found.hits] == [hit.id for hit in exact.hits]
    assert mirrors.folder.describe(dataset.project_id, dataset.id) is not None


@pytest.mark.parametrize("engine", ["auto", "mirror"])
async def test_without_a_mirror_postgres_answers(
    resources: Resources, dataset: Dataset, psql: Any, engine: str
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    found = await search(resources, TEXTS[3], engine=engine)
    assert found.engine in ("pgvector", "exact")
    assert found.hits[0].text == TEXTS[3]
