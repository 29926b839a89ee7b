"""Mirrors of datasets that are small, strange, deleted, back again, or of another model since a moment ago."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from evervec.errors import Refused, UnknownDatasetError
from evervec.pipeline.embedding import providers
from evervec.pipeline.mirrors.relation import NothingToMirrorError
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import fill
from evervec.store import datasets
from evervec.store import providers as providers_store
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.pipeline.mirrors.mirroring import TEXTS, WIDTH, eventually, process, stored, true, until, until_true, worker
from tests.pipeline.search.meaning import search
from tests.store.planting import unit

DELETIONS = {
    "soft": "UPDATE datasets SET deleted_at = now()",
    "hard": "DELETE FROM datasets",
    "project": "UPDATE projects SET deleted_at = now()",
    "project hard": "DELETE FROM projects",
}
EMPTY = "DELETE FROM messages"


@pytest.fixture
async def wide() -> AsyncIterator[FakeProvider]:
    """Start a provider with wider vectors."""
    async with FakeProvider(dims=48) as provider:
        yield provider


def files(resources: Resources) -> list[Path]:
    """Return the files of mirrors on disk, with their manifests and locks."""
    walk = os.walk(resources.settings.mirrors)  # unlike rglob, it takes a folder that vanishes while it looks
    return [Path(folder, name) for folder, _, names in walk for name in names]


async def ask_for_deletion(psql: Any, how: str) -> None:
    if "hard" in how:
        await psql.execute(EMPTY)
    await psql.execute(DELETIONS[how])


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_dataset_with_hardly_any_vectors_has_a_mirror_like_any_other(
    resources: Resources, dataset: DatasetRef, count: int
) -> None:
    await stored(resources, dataset, TEXTS[:count])
    async with worker(resources) as one:
        mirror = await until_true(one, dataset)
        assert mirror.state == "ready"
        answer = await search(one, TEXTS[0], k=10)
        assert [hit.text for hit in answer.hits[:1]] == TEXTS[: min(count, 1)]
        assert (len(answer.hits), answer.engine) == (count, "mirror")
        await stored(one, dataset, ["the next one"])
        await until_true(one, dataset)
        assert len((await search(one, TEXTS[0], k=10)).hits) == count + 1
    async with worker(resources) as two:
        mirror = await until_true(two, dataset)
        assert mirror.last_check is not None
        assert (mirror.last_check.in_sync, mirror.last_check.vectors) == (True, count + 1)


@pytest.mark.parametrize("factory", [None, "IVF{K},RaBitQfs,Refine(SQfp16)", "HNSW32,SQfp16"])
async def test_equal_vectors_are_equal_hits(resources: Resources, dataset: DatasetRef, factory: str | None) -> None:
    same = np.repeat(unit(1, WIDTH), 3_000, axis=0)
    await without_hnsw(resources)
    await stored(resources, dataset, [f"same {n}" for n in range(3_000)], same)
    async with worker(resources, mirror_index=factory) as one:
        await until_true(one, dataset)
        answer = await search(one, "anything", k=100)
        assert (answer.engine, len({hit.id for hit in answer.hits})) == ("mirror", 100)
        assert np.ptp([hit.score for hit in answer.hits]) < 1e-6
        rows = [hit.id for hit in answer.hits[:5]]
        chosen = await search(one, "anything", k=10, kind="message", row_ids=rows)
        assert sorted(hit.id for hit in chosen.hits) == sorted(rows)


async def without_hnsw(resources: Resources) -> None:
    """Take PostgreSQL's own index away: it would take longer to fill than the test."""
    from evervec.store.embeddings import hnsw

    provider = await resources.provider()
    await hnsw.drop_indexes(resources.database, provider.space.id)


@pytest.mark.parametrize("how", DELETIONS)
async def test_a_deleted_dataset_loses_its_mirror_and_its_files(
    resources: Resources, dataset: DatasetRef, psql: Any, how: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        assert files(one)
        await ask_for_deletion(psql, how)
        assert (await search(one, TEXTS[0])).hits == []
        with pytest.raises((Refused, UnknownDatasetError)):
            await search(one, TEXTS[0], dataset="log")
        await until(lambda: not files(one))
        await until(lambda: dataset.id not in one.mirrors._mirrors)
        with pytest.raises(NothingToMirrorError):
            await one.mirrors.rebuild(dataset, "rebuild was asked for")
    assert not files(resources)


@pytest.mark.parametrize("how", ["soft", "project"])
async def test_a_dataset_that_comes_back_has_its_mirror_back(
    resources: Resources, dataset: DatasetRef, psql: Any, how: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        await ask_for_deletion(psql, how)
        await until(lambda: dataset.id not in one.mirrors._mirrors)
        await psql.execute("DELETE FROM messages WHERE content = $1", TEXTS[1])
        async with one.database.transaction() as tx:
            assert (await datasets.ensure(tx, "river", "log")).id == dataset.id
        await until_true(one, dataset)
        answer = await search(one, TEXTS[0], k=40)
        assert (answer.engine, len(answer.hits), answer.hits[0].text) == ("mirror", len(TEXTS) - 1, TEXTS[0])


@pytest.mark.parametrize("how", DELETIONS)
async def test_a_dataset_deleted_while_it_is_built_leaves_nothing(
    resources: Resources, dataset: DatasetRef, psql: Any, how: str
) -> None:
    await stored(resources, dataset, TEXTS)
    async with process(resources) as one:
        mirror = one.mirrors.mirror(dataset)
        busy = Event()
        assert one.mirrors._executors is not None
        blocking = asyncio.create_task(one.mirrors._executors.slow(busy.wait, 60))
        building = asyncio.create_task(one.mirrors.rebuild(dataset, "rebuild was asked for"))
        await until(lambda: mirror.state == "building")
        await until(lambda: one.mirrors._executors is not None and one.mirrors._executors._slow._work_queue.qsize() > 0)
        await ask_for_deletion(psql, how)
        busy.set()
        await blocking
        with pytest.raises(NothingToMirrorError, match="deleted"):
            await building
        assert mirror.index is None
    async with worker(resources) as two:
        await eventually(lambda: told_nothing(two))
        await until(lambda: not files(two))


async def told_nothing(resources: Resources) -> bool:
    return not resources.mirrors._mirrors


async def test_files_of_a_dataset_deleted_while_nobody_followed_are_collected(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "other")
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        await until_true(one, other)
    await psql.execute("UPDATE datasets SET deleted_at = now() WHERE id = $1", dataset.id)
    async with worker(resources) as two:
        await until_true(two, other)
        await until(lambda: {path.stem for path in files(two)} == {str(other.id)})


async def test_another_model_is_another_mirror(resources: Resources, dataset: DatasetRef, wide: FakeProvider) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        await providers.add(resources, ProviderDraft("wide", "ollama", base_url=wide.url, model="wider"))
        for name, width in (("wide", 48), ("fake", 32)):
            await providers.use(resources, name, reembed=True)
            answer = await search(one, TEXTS[3])
            assert (answer.hits[0].text, answer.pending_in_scope) == (TEXTS[3], 0)
            await fill(resources)
            now = await present(resources, dataset)
            mirror = await until_true(one, now)
            assert mirror.index is not None and mirror.index.snapshot.dimensions == width
            answer = await search(one, TEXTS[3])
            assert (answer.engine, answer.hits[0].text, len(answer.hits)) == ("mirror", TEXTS[3], 10)
            await eventually(lambda now=now: same_file(one, now))  # type: ignore[misc]
    async with process(resources) as two:
        assert (await search(two, TEXTS[3])).engine == "mirror"


async def present(resources: Resources, dataset: DatasetRef) -> DatasetRef:
    """Return the dataset as it is searched now."""
    async with resources.database.read() as tx:
        found = await datasets.by_id(tx, dataset.id)
    assert found is not None
    return found


async def same_file(where: Resources, dataset: DatasetRef) -> bool:
    """Return whether the file of a dataset is of the width that is searched."""
    async with where.database.read() as tx:
        space = await providers_store.space(tx, dataset.space_id)
    described = where.mirrors.folder.describe(dataset.project_id, dataset.id)
    return described is not None and described["dimensions"] == space.dimensions


async def test_searches_during_a_change_of_the_model_never_fail_and_never_lie(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await stored(resources, dataset, TEXTS)
    await providers.add(resources, ProviderDraft("wide", "ollama", base_url=wide.url, model="wider"))
    done = asyncio.Event()

    async def ask(where: Resources) -> None:
        asked = 0
        while not done.is_set() or asked < 3:
            answer = await search(where, TEXTS[3], k=3)
            assert all(-1.001 <= hit.score <= 1.001 for hit in answer.hits)
            if answer.hits and answer.hits[0].text == TEXTS[3]:
                assert answer.hits[0].score == pytest.approx(1, abs=1e-5)
            asked += 1

    async with worker(resources) as one:
        await until_true(one, dataset)
        asking = asyncio.create_task(ask(one))
        for name in ("wide", "fake"):
            await providers.use(resources, name, reembed=True)
            await fill(resources)
            now = await present(resources, dataset)
            await eventually(lambda now=now: true(one, now))  # type: ignore[misc]
        done.set()
        await asking
