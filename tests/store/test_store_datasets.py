"""Projects, datasets and providers: found by every name they have, gone when deleted, paused for everybody."""

import asyncio
from typing import Any

import pytest

from evervec.domain.protocols import ModelProbe
from evervec.errors import InvalidNameError, UnknownDatasetError, UnknownProjectError, UnknownProviderError
from evervec.store import datasets, documents, providers
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from evervec.store.schema.embeddables import MESSAGE
from tests.store.planting import plant, space


async def test_the_same_name_is_the_same_dataset_and_a_deleted_one_comes_back(
    database: Database, dataset: DatasetRef
) -> None:
    async with database.transaction() as tx:
        assert await datasets.ensure(tx, "River", "LOG") == dataset
        await datasets.remove(tx, dataset.id)
        assert await datasets.live(tx) == []
        assert await datasets.deleted(tx) == [dataset.id]
        assert await datasets.by_id(tx, dataset.id) is None
        assert await datasets.ensure(tx, "river", "log") == dataset
        assert await datasets.by_id(tx, dataset.id) == dataset
        assert await datasets.deleted(tx) == []
        with pytest.raises(InvalidNameError):
            await datasets.ensure(tx, "river", "...")


async def test_a_dataset_that_is_there_is_found_without_waiting_for_who_works_in_it(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    async with psql.transaction():
        await psql.execute("SELECT FROM projects FOR NO KEY UPDATE")
        await psql.execute("SELECT FROM datasets FOR NO KEY UPDATE")
        async with asyncio.timeout(60), database.transaction() as tx:
            assert await datasets.ensure(tx, "river", "log") == dataset


async def test_a_root_path_is_kept_until_another_one_is_given(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    for given, kept in (("/notes", "/notes"), (None, "/notes"), ("/notes", "/notes"), ("/other", "/other")):
        async with database.transaction() as tx:
            assert await datasets.ensure(tx, "river", "log", root_path=given) == dataset
        assert await psql.fetchval("SELECT root_path FROM projects") == kept


async def test_who_holds_a_dataset_and_who_revives_it_never_end_in_a_deadlock(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    async def hold() -> bool:
        async with database.transaction() as tx:
            return await documents.lock_live_dataset(tx, dataset.id)

    async with asyncio.timeout(60), database.transaction() as tx:
        await datasets.ensure_project(tx, "river")
        holding = asyncio.create_task(hold())
        while not await psql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await tx.execute("UPDATE datasets SET deleted_at = NULL")  # what it does next
    assert await holding


async def test_a_dataset_is_found_by_slug_by_project_and_slug_and_by_uuid(
    database: Database, dataset: DatasetRef
) -> None:
    async with database.transaction() as tx:
        other = await datasets.ensure(tx, "ocean", "log")
        assert await datasets.find(tx, "river/log") == [dataset]
        assert await datasets.find(tx, str(other.id).upper()) == [other]
        assert await datasets.find(tx, "log", "ocean") == [other]
        assert await datasets.find(tx, "log") == await datasets.find(tx, None) == [other, dataset]
        with pytest.raises(UnknownDatasetError, match="ocean/log, river/log"):
            await datasets.find(tx, "lag")
        with pytest.raises(UnknownProjectError, match="ocean, river"):
            await datasets.find(tx, "log", "lake")


async def test_projects_are_told_with_what_they_still_wait_for_smallest_first(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    async with database.transaction() as tx:
        large = await datasets.ensure(tx, "large", "log", root_path="/srv/large")
        idle = await datasets.ensure(tx, "idle", "log")
        gone = await datasets.ensure(tx, "large", "gone")
    for dataset_id, rows in ((dataset.id, 1), (large.id, 3), (gone.id, 5)):
        for number in range(rows):
            await plant(psql, MESSAGE, dataset_id, f"text {number}")
    async with database.transaction() as tx:
        await datasets.remove(tx, gone.id)
        assert await datasets.pending_by_project(tx, "recipe") == [
            (idle.project_id, None, 0),
            (dataset.project_id, None, 1),
            (large.project_id, "/srv/large", 3),
        ]


async def test_the_provider_used_last_serves_the_active_space(database: Database) -> None:
    await space(database, 4, model="one")
    async with database.transaction() as tx:
        first = await providers.by_name(tx, "one")
        second = await providers.add(tx, ProviderDraft("two", "ollama", model="one"), ModelProbe(4))
        assert second.space == first.space
        await providers.use(tx, first.id)
        assert await providers.active(tx) == await providers.by_name(tx, "one")
        await providers.remove(tx, "one")
        assert (await providers.every(tx), await providers.active(tx)) == ([second], second)
        with pytest.raises(UnknownProviderError, match="Known providers: two"):
            await providers.remove(tx, "one")
