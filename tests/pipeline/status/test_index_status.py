"""What is shown of a dataset's indexing: its source, its counts, its runs and whether they live, what they saved."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from evervec.errors import UnknownDatasetError
from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.indexing.requests import RunRequest, index_dataset
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest import sql
from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import indexing, overview
from evervec.pipeline.status.indexing import RunProgress, TotalSavings
from evervec.pipeline.status.run_report import ChunkCounts
from evervec.store import runs
from evervec.store.datasets import DatasetRef
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.shop import described, keep, open_shop


@pytest.fixture
async def orders(resources: Resources, psql: Any) -> UUID:
    await open_shop(psql, 20)
    return await keep(resources, described())


async def test_a_dataset_is_counted_before_and_after_its_first_run(resources: Resources, orders: UUID) -> None:
    before = await indexing.status(resources, "p/orders")
    assert (before.documents, before.chunks, before.embedded, before.last) == (0, 0, 0, None)
    run = await index_dataset(resources, orders)
    after = await indexing.status(resources, str(orders))
    assert (after.documents, after.chunks, after.embedded, after.pending) == (20, 20, 20, 0)
    assert (after.last.run, after.running, after.queued) == (run.id, None, None)
    (listed,) = (await overview.status(resources)).datasets
    assert (listed.documents, listed.chunks) == (20, 20)


async def test_rows_without_a_vector_are_pending_or_failed(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    fake.always(lambda text: text.endswith("number 3"), Fault.BAD_REQUEST_400)
    await index_dataset(resources, orders)
    await psql.execute("INSERT INTO documents (dataset_id, uri, content) VALUES ($1, 'new', 'a text')", orders)
    await psql.execute("UPDATE documents SET recipe = 'another' WHERE uri = 'orders/4'")
    await psql.execute("UPDATE chunks SET vector_text = 'other' WHERE ordinal = 0 AND vector_text LIKE '%number 5'")
    found = await indexing.status(resources, "orders")
    assert (found.documents, found.chunks, found.waiting_documents) == (21, 20, 2)
    assert (found.embedded, found.pending, found.failed) == (18, 1, 1)


async def test_the_source_is_named_with_its_last_sync(
    resources: Resources, database_url: str, orders: UUID, dataset: DatasetRef
) -> None:
    source = (await indexing.status(resources, "orders")).source
    assert (source.type, source.name, source.synced_at) == ("sql", "shop", None)
    assert source.where == resources.database.where
    assert "evervec@" not in source.where
    await sql.sync(resources, described())
    assert (await indexing.status(resources, "orders")).source.synced_at is not None
    found = await indexing.status(resources, "river/log")
    assert (found.source, found.next_full_rebuild) == (None, None)


async def test_a_file_source_shows_its_folders_even_if_they_are_gone(resources: Resources, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a b", "c")]
    for folder in folders:
        folder.mkdir()
    await source_registry.register_files(resources.database, "p", "docs", FileSelection(folders))
    for folder in folders:
        folder.rmdir()
    source = (await indexing.status(resources, "p/docs")).source
    assert (source.type, source.where) == ("files", ", ".join(map(str, folders)))


async def test_the_weekly_rebuild_is_shown_and_none_when_it_is_off(resources: Resources, orders: UUID) -> None:
    due = (await indexing.status(resources, "orders")).next_full_rebuild
    assert (due.isoweekday(), due.hour, due.minute, due.utcoffset()) == (7, 3, 0, timedelta(0))
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(days=7)
    off = resources.settings.model_copy(update={"index_cron": ""})
    assert (await indexing.status(replace(resources, settings=off), "orders")).next_full_rebuild is None


async def test_only_a_run_whose_dataset_is_leased_is_alive(resources: Resources, psql: Any, orders: UUID) -> None:
    async with resources.database.transaction() as tx:
        await runs.add(tx, orders, "compare", "call", state="running")
    assert (await indexing.status(resources, "orders")).running.alive is False
    for of, alive in ((f"index:{orders}", True), ("index:another", False)):
        async with held(resources.database, of, 60):
            assert (await indexing.status(resources, "orders")).running.alive is alive
            async with resources.database.read() as tx:
                assert await runs.is_indexing(tx, orders) is alive


async def test_a_run_that_waits_and_one_at_work_are_both_shown(resources: Resources, psql: Any, orders: UUID) -> None:
    done = await index_dataset(resources, orders)
    async with resources.database.transaction() as tx:
        at_work = await runs.add(tx, orders, "delta", "call", {"orders": [1, 2], "more": [3]}, state="running")
    waits = await requests.enqueue(resources, orders, RunRequest(full=True))
    found = await indexing.status(resources, "orders")
    assert [found.running.run, found.queued.run, found.last.run] == [at_work, waits, done.id]
    assert found.running.progress == RunProgress(documents=0, of=3, at=None)


async def test_the_last_run_is_the_one_that_ended_last(resources: Resources, psql: Any, orders: UUID) -> None:
    first, second = [await index_dataset(resources, orders) for _ in range(2)]
    assert (await indexing.status(resources, "orders")).last.run == second.id
    await psql.execute("UPDATE index_runs SET finished_at = now() WHERE id = $1", first.id)
    assert (await indexing.status(resources, "orders")).last.run == first.id


async def test_an_unknown_dataset_is_named(resources: Resources, orders: UUID) -> None:
    for name in ("nope", str(UUID(int=7))):
        with pytest.raises(UnknownDatasetError, match=name):
            await indexing.status(resources, name)
        with pytest.raises(UnknownDatasetError, match="p/orders"):
            await indexing.metrics(resources.database, name)


async def test_without_a_measured_run_from_nothing_no_seconds_are_saved(resources: Resources, orders: UUID) -> None:
    await index_dataset(resources, orders, {"orders": [1]})
    found = await indexing.metrics(resources.database, "orders")
    assert (found.full_run, found.runs[0].saved.seconds, found.totals.saved.seconds) == (
        None,
        None,
        None,
    )
    assert found.totals.saved.cost_usd is None


async def test_seconds_saved_are_those_of_the_run_from_nothing_and_never_negative(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    full = await index_dataset(resources, orders)
    quick, slow = [await index_dataset(resources, orders) for _ in range(2)]
    for run, seconds in ((full, 100), (quick, 4), (slow, 300)):
        await psql.execute("UPDATE index_runs SET seconds_total = $2 WHERE id = $1", run.id, seconds)
    found = await indexing.metrics(resources.database, "orders")
    assert found.full_run.run == full.id
    assert [run.saved.seconds for run in found.runs] == [0, 96, 0]
    assert (found.totals.saved.seconds, found.totals.seconds.total) == (96, 404)


async def test_runs_that_embedded_nothing_themselves_or_did_not_end_have_saved_nothing(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    await requests.index(resources, orders, RunRequest(embeds=False))
    await psql.execute(
        "INSERT INTO index_runs (dataset_id, mode, trigger, state, finished_at, error, texts_sent) "
        "VALUES ($1, 'compare', 'call', 'failed', now(), 'why', 5)",
        orders,
    )
    found = await indexing.metrics(resources.database, "orders")
    assert [run.saved for run in found.runs] == [None, None]
    assert (found.full_run, found.totals.runs, found.totals.texts_sent) == (None, 2, 5)
    assert found.totals.saved == TotalSavings(texts=None, tokens=None, cost_usd=None, seconds=None)


async def test_totals_are_of_all_kept_runs_and_the_list_of_the_newest(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    for _ in range(3):
        await index_dataset(resources, orders)
    waits = await requests.enqueue(resources, orders, RunRequest())
    found = await indexing.metrics(resources.database, "orders", newest=2)
    assert found.runs[0].run == waits
    assert (len(found.runs), found.totals.runs) == (2, 3)
    assert found.totals.chunks == ChunkCounts(new=20, updated=0, skipped=40, deleted=0)
