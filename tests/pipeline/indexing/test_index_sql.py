"""SQL records are indexed by what changed: counted at the provider, and by PostgreSQL's own versions of the rows."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from evervec.errors import IndexRunningError, SourceDownError, SourceError, UnknownTableError
from evervec.pipeline import chunking
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.requests import RunRequest, index_dataset
from evervec.pipeline.ingest import sql
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep import janitor
from evervec.store import datasets, runs
from evervec.store.runs import RunRecord
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing import shop
from tests.pipeline.indexing.indexed import sent, versions
from tests.pipeline.indexing.shop import described, keep, notes, open_shop, uris


@pytest.fixture
async def orders(resources: Resources, fake: FakeProvider, psql: Any) -> UUID:
    """Create a dataset of a hundred orders, not indexed yet, and forget what the provider was sent when it was added."""
    await open_shop(psql, 100)
    dataset_id = await keep(resources, described())
    fake.requests.clear()
    return dataset_id


def forget(fake: FakeProvider) -> None:
    fake.requests.clear()


async def require_exact(resources: Resources, fake: FakeProvider, run: RunRecord) -> None:
    """Require that a run counts what the provider counts."""
    texts = list(fake.texts_embedded().elements())
    tokens = (await chunking.default(resources)).count_tokens(texts)
    assert (run.counts.texts_sent, run.counts.requests) == (len(texts), fake.calls())
    assert run.counts.tokens == sum(tokens)


async def test_the_first_run_sends_all_of_it_and_counts_it(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    run = await index_dataset(resources, orders)
    assert (run.state, run.mode, run.counts.documents_new, run.counts.chunks_new) == ("done", "compare", 100, 100)
    assert run.counts.texts_sent == run.counts.embeddings_generated == run.counts.full_texts == 100
    assert run.counts.tokens == run.counts.full_tokens > 0
    await require_exact(resources, fake, run)
    found = await notes(psql, orders)
    assert set(found) == set(uris(range(1, 101)))
    assert found["orders/7"] == "Order\n\nThe note of order number 7"


async def test_a_second_run_of_the_same_sends_nothing_and_writes_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    before = await versions(psql)
    forget(fake)
    run = await index_dataset(resources, orders)
    assert await versions(psql) == before
    assert sent(fake) == 0
    assert (run.counts.documents_unchanged, run.counts.chunks_skipped, run.counts.texts_sent) == (100, 100, 0)


async def test_of_ten_percent_changed_only_those_are_sent(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("UPDATE shop.orders SET note = 'changed ' || id WHERE id % 10 = 0")
    forget(fake)
    run = await index_dataset(resources, orders)
    assert set(fake.texts_sent()) == {f"Order\n\nchanged {n}" for n in range(10, 101, 10)}
    assert (run.counts.chunks_updated, run.counts.chunks_skipped, run.counts.full_texts) == (10, 90, 100)
    await require_exact(resources, fake, run)


async def test_a_delta_looks_at_the_named_ids_alone(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("UPDATE shop.orders SET note = 'changed ' || id WHERE id <= 4")
    forget(fake)
    run = await index_dataset(resources, orders, {"orders": [2, "3", 2, 99]})
    assert set(fake.texts_sent()) == {"Order\n\nchanged 2", "Order\n\nchanged 3"}
    assert (run.mode, run.counts.chunks_updated, run.counts.documents_unchanged) == ("delta", 2, 1)
    await require_exact(resources, fake, run)


async def test_a_named_record_that_is_gone_takes_its_chunks_along(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("DELETE FROM shop.orders WHERE id IN (5, 6)")
    run = await index_dataset(resources, orders, {"orders": [5]})
    assert (run.counts.documents_deleted, run.counts.chunks_deleted) == (1, 1)
    found = await notes(psql, orders)
    assert ("orders/5" in found, "orders/6" in found, len(found)) == (False, True, 99)
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE dataset_id = $1", orders) == 99


async def test_ids_that_never_were_are_no_error_and_delete_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    before = await versions(psql)
    run = await index_dataset(resources, orders, {"orders": [-1, 0, 2**62]})
    assert (run.state, run.counts.documents_deleted, await versions(psql)) == ("done", 0, before)


async def test_only_a_full_rebuild_removes_what_is_gone(resources: Resources, psql: Any, orders: UUID) -> None:
    await index_dataset(resources, orders)
    await psql.execute("DELETE FROM shop.orders WHERE id > 90")
    assert (await index_dataset(resources, orders)).counts.documents_deleted == 0
    assert len(await notes(psql, orders)) == 100
    run = await index_dataset(resources, orders, full_rebuild=True)
    assert (run.mode, run.counts.documents_deleted, run.counts.chunks_deleted) == ("full", 10, 10)
    assert set(await notes(psql, orders)) == set(uris(range(1, 91)))


@pytest.mark.parametrize("last", [1, 1500, 2500])
async def test_a_listing_that_breaks_off_deletes_nothing(resources: Resources, psql: Any, last: int) -> None:
    await open_shop(psql, 2500)
    orders = await keep(resources, described(filter="shop.up(id)"))
    await index_dataset(resources, orders)
    await psql.execute("DELETE FROM shop.orders WHERE id % 2 = 0 AND id <> $1", last)
    await psql.execute("INSERT INTO shop.outage VALUES ($1)", last)
    with pytest.raises(SourceDownError):
        await index_dataset(resources, orders, full_rebuild=True)
    assert len(await notes(psql, orders)) == 2500
    await psql.execute("DELETE FROM shop.outage")
    await psql.execute("UPDATE index_runs SET not_before = now() WHERE state = 'queued'")
    (run,) = await requests.run_due(resources, orders)
    assert (run.state, run.mode, len(await notes(psql, orders))) == (
        "done",
        "full",
        await psql.fetchval("SELECT count(*) FROM shop.orders"),
    )


async def test_a_delta_whose_source_was_away_is_done_when_it_is_back(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    await keep(resources, described(filter="shop.up(id)"))
    await index_dataset(resources, orders)
    await psql.execute("UPDATE shop.orders SET note = 'changed' WHERE id = 50")
    await psql.execute("INSERT INTO shop.outage VALUES (50)")
    with pytest.raises(SourceDownError):
        await index_dataset(resources, orders, {"orders": [50]})
    await psql.execute("DELETE FROM shop.outage")
    await psql.execute("UPDATE index_runs SET not_before = now() WHERE state = 'queued'")
    (run,) = await requests.run_due(resources, orders)
    assert (run.state, run.attempts, run.counts.chunks_updated) == ("done", 2, 1)
    assert (await notes(psql, orders))["orders/50"] == "Order\n\nchanged"


async def test_a_table_whose_filter_fails_in_the_middle_has_failed_and_deletes_nothing(
    resources: Resources, psql: Any
) -> None:
    await open_shop(psql, 1200)
    orders = await keep(resources, described())
    await index_dataset(resources, orders)
    await psql.execute("DELETE FROM shop.orders WHERE id < 500")
    await keep(resources, described(filter="100 / (id - 1200) IS NOT NULL"))
    with pytest.raises(SourceError, match="division by zero"):
        await index_dataset(resources, orders, full_rebuild=True)
    async with resources.database.read() as tx:
        newest = (await runs.recent(tx, orders, limit=1))[0]
    assert (newest.state, len(await notes(psql, orders))) == ("failed", 1200)


@pytest.mark.parametrize("blank", [None, "", " \n\t "])
async def test_a_record_whose_text_becomes_blank_is_no_longer_found(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID, blank: str | None
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("UPDATE shop.orders SET note = $1 WHERE id = 9", blank)
    forget(fake)
    run = await index_dataset(resources, orders, {"orders": [9]})
    assert (run.state, sent(fake), (await notes(psql, orders))["orders/9"]) == ("done", 0, None)
    await psql.execute("UPDATE shop.orders SET note = 'back' WHERE id = 9")
    await index_dataset(resources, orders)
    assert (await notes(psql, orders))["orders/9"] == "Order\n\nback"


async def test_a_column_that_the_template_does_not_name_sends_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    before = [row for row in await versions(psql) if row[0] != "documents"]
    await psql.execute("UPDATE shop.orders SET price = 2")
    forget(fake)
    run = await index_dataset(resources, orders)
    assert (sent(fake), run.counts.documents_unchanged, run.counts.chunks_skipped) == (0, 100, 100)
    assert [row for row in await versions(psql) if row[0] != "documents"] == before


async def test_another_template_renders_every_record_again(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await keep(resources, described(template="{note} for {price}"))
    forget(fake)
    run = await index_dataset(resources, orders)
    assert (run.counts.documents_changed, run.counts.chunks_updated, sent(fake)) == (100, 100, 100)
    assert (await notes(psql, orders))["orders/3"] == "Order\n\nThe note of order number 3 for 1"


async def test_a_title_alone_is_part_of_what_is_embedded(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("UPDATE shop.orders SET title = 'Return' WHERE id = 8")
    forget(fake)
    run = await index_dataset(resources, orders)
    assert (run.counts.documents_changed, run.counts.chunks_updated) == (1, 1)
    assert dict(fake.texts_sent()) == {"Return\n\nThe note of order number 8": 1}


async def test_the_same_text_in_several_records_is_sent_once(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await psql.execute("UPDATE shop.orders SET note = 'all the same' WHERE id > 40")
    run = await index_dataset(resources, orders)
    assert (max(fake.texts_sent().values()), sent(fake)) == (1, 41)
    assert run.counts.embeddings_generated + run.counts.embeddings_reused == run.counts.full_texts == 100
    await require_exact(resources, fake, run)
    assert None not in (await notes(psql, orders)).values()


async def test_a_record_with_the_text_of_an_older_one_takes_its_vector(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await index_dataset(resources, orders)
    await psql.execute("INSERT INTO shop.orders (id, note) VALUES (101, 'The note of order number 7')")
    forget(fake)
    run = await index_dataset(resources, orders)
    assert (sent(fake), run.counts.embeddings_generated, run.counts.embeddings_reused) == (0, 0, 1)


async def test_two_sellers_have_a_dataset_each_and_never_see_the_other(
    resources: Resources, fake: FakeProvider, psql: Any
) -> None:
    await open_shop(psql, 10)
    await shop.add(psql, 11, 15, seller="bob")
    description = described(split=True)
    synced = await sql.sync(resources, description)
    assert synced.changed_ids == {"orders": list(range(1, 16))}
    ann, bob = [(await shop.dataset(resources, name)).id for name in ("ann", "bob")]
    for one in (ann, bob):
        await requests.run_due(resources, one)
    assert set(await notes(psql, ann)) == set(uris(range(1, 11)))
    assert set(await notes(psql, bob)) == set(uris(range(11, 16)))
    await psql.execute("UPDATE shop.orders SET seller = 'ann' WHERE id = 11")
    await index_dataset(resources, bob, {"orders": [1, 11]})
    await index_dataset(resources, ann, {"orders": [11, 12]})
    assert set(await notes(psql, ann)) == set(uris(range(1, 12)))
    assert set(await notes(psql, bob)) == set(uris(range(12, 16)))


async def test_a_sync_names_what_changed_since_the_last_one(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    assert len((await sql.sync(resources, described())).changed_ids["orders"]) == 100
    await requests.run_due(resources, orders)
    assert (await sql.sync(resources, described())).changed_ids == {}
    await psql.execute("UPDATE shop.orders SET note = 'changed' WHERE id = 42")
    forget(fake)
    assert (await sql.sync(resources, described())).changed_ids == {"orders": [42]}
    (run,) = await requests.run_due(resources, orders)
    assert (run.mode, run.trigger, sent(fake)) == ("delta", "sync", 1)


async def test_ids_that_come_while_a_run_waits_are_taken_along(resources: Resources, psql: Any, orders: UUID) -> None:
    await index_dataset(resources, orders)
    first = await requests.enqueue(resources, orders, RunRequest({"orders": [1]}))
    assert await requests.enqueue(resources, orders, RunRequest({"orders": [2, "1"]})) == first
    with pytest.raises(IndexRunningError, match=str(first)):
        await requests.start(resources, orders, RunRequest())
    (run,) = await requests.run_due(resources, orders)
    assert (run.id, run.counts.documents_unchanged) == (first, 2)


async def test_wishes_without_any_id_can_wait_for_each_other(resources: Resources, orders: UUID) -> None:
    first = await requests.enqueue(resources, orders, RunRequest({}))
    assert await requests.enqueue(resources, orders, RunRequest({"orders": []})) == first
    (run,) = await requests.run_due(resources, orders)
    assert (run.state, run.counts.documents_new) == ("done", 0)


async def test_an_unknown_table_or_a_wrong_id_leaves_no_run_behind(
    resources: Resources, psql: Any, orders: UUID
) -> None:
    with pytest.raises(UnknownTableError, match=r"'stocks'.*orders"):
        await requests.start(resources, orders, RunRequest({"stocks": [1]}))
    with pytest.raises(SourceError, match="'seven' is not an id"):
        await requests.enqueue(resources, orders, RunRequest({"orders": ["seven"]}))
    assert await psql.fetchval("SELECT count(*) FROM index_runs") == 0


async def test_a_run_whose_provider_is_out_is_done_and_the_rows_wait(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    fake.always(None, Fault.BUSY_503)
    run = await index_dataset(resources, orders)
    assert (run.state, run.counts.chunks_new, run.counts.texts_sent) == ("done", 100, 0)
    fake.heal()
    forget(fake)
    await psql.execute("UPDATE provider_breakers SET open_until = now()")
    run = await index_dataset(resources, orders)
    assert (run.counts.chunks_skipped, run.counts.texts_sent, sent(fake)) == (100, 100, 100)
    assert run.counts.requests == fake.calls() - 1, "what tests whether a paused provider answers is of no run"


async def test_a_text_that_the_provider_refuses_is_the_only_one_without_a_vector(
    resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    fake.always(lambda text: text.endswith("number 13"), Fault.BAD_REQUEST_400)
    run = await index_dataset(resources, orders)
    missing = [uri for uri, text in (await notes(psql, orders)).items() if text is None]
    assert (run.state, missing, run.counts.embeddings_generated) == ("done", ["orders/13"], 99)


async def test_a_dataset_deleted_in_the_middle_of_its_run_leaves_nothing_and_no_error(
    resources: Resources, psql: Any
) -> None:
    await open_shop(psql, 3000)
    orders = await keep(resources, described(filter="shop.up(id)"))
    first_batch = asyncio.Event()
    async with shop.paused(psql, at=1500):
        request = RunRequest(full=True)
        running = asyncio.create_task(requests.index(resources, orders, request, progress=lambda _: first_batch.set()))
        await asyncio.wait_for(first_batch.wait(), 60)
        assert await psql.fetchval("SELECT count(*) FROM chunks") == 1000
        async with resources.database.transaction() as tx:
            await datasets.remove(tx, orders)
    run = await asyncio.wait_for(running, 60)
    assert (run.state, run.error, run.counts.chunks_new) == ("cancelled", None, 1000)
    await janitor.purge_deleted(resources.database)
    for table in ("documents", "chunks", "embeddings", "index_runs"):
        assert await psql.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_run_whose_process_died_goes_on_where_it_was_and_sends_nothing_twice(
    resources: Resources, fake: FakeProvider, psql: Any
) -> None:
    await open_shop(psql, 3000)
    orders = await keep(resources, described(filter="shop.up(id)"))
    forget(fake)
    async with shop.paused(psql, at=2500):
        running = asyncio.create_task(requests.index(resources, orders, RunRequest()))
        await shop.embedded(psql, 2000)
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (left,) = await psql.fetch("SELECT id, state, cursor FROM index_runs")
    assert (left["state"], left["cursor"]) == ("running", "orders/2000")
    (run,) = await requests.run_due(resources, orders)
    assert (run.id, run.state, run.attempts, run.counts.documents_new) == (left["id"], "done", 2, 3000)
    assert set(fake.texts_embedded().values()) == {1}
    assert len([text for text in (await notes(psql, orders)).values() if text]) == 3000


async def test_one_run_at_a_time_and_the_other_is_told_which(resources: Resources, psql: Any) -> None:
    await open_shop(psql, 2000)
    orders = await keep(resources, described(filter="shop.up(id)"))
    first_batch = asyncio.Event()
    async with shop.paused(psql, at=1500):
        running = asyncio.create_task(
            requests.index(resources, orders, RunRequest(), progress=lambda _: first_batch.set())
        )
        await asyncio.wait_for(first_batch.wait(), 60)
        with pytest.raises(IndexRunningError) as told:
            await index_dataset(resources, orders)
        assert await requests.run_due(resources, orders) == []
    run = await asyncio.wait_for(running, 60)
    assert (told.value.values["run_id"], run.counts.documents_new) == (run.id, 2000)
