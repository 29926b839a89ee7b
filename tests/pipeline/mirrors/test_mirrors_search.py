"""What a search from a mirror promises: its own writer is answered, nothing that is gone, never fewer than there are."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.errors import Refused
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.mirrors.recall import measure
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.nats_doorbell import NatsDoorbell
from evervec.store import datasets, mirrors
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.schema.embeddables import ATOM, MESSAGE, TOPIC
from tests.pipeline.mirrors.mirroring import TEXTS, WIDTH, process, stored, until_true, worker
from tests.pipeline.search.meaning import search
from tests.store.planting import edit, plant, unit


async def written(psql: Any, dataset: DatasetRef, text: str) -> int:
    """Write a message by plain SQL; return the id of its transaction."""
    async with psql.transaction():
        await plant(psql, MESSAGE, dataset.id, text)
        return int(await psql.fetchval("SELECT pg_current_xact_id()::text"))


async def test_a_writer_finds_its_own_row_at_once(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    """Nothing here hears or looks by itself: the search alone brings the mirror to where the row's vector is."""
    await stored(resources, dataset, TEXTS)
    deaf = JetStreamBroker("nats://127.0.0.1:1", stream="SILENCE")
    async with worker(replace(resources, broker=deaf, doorbell=NatsDoorbell(deaf)), mirror_poll_seconds=60) as one:
        mirror = await until_true(one, dataset)
        for turn in range(5):
            xid = await written(psql, dataset, f"mine {turn}")
            await mirror.catch_up()  # the row's transaction is seen, the one that embeds it comes later
            asking = asyncio.create_task(search(one, f"mine {turn}", k=1, min_watermark=xid, wait_seconds=60))
            await embed_dataset(resources, dataset.id)
            answer = await asking
            assert (answer.engine, answer.hits[0].text) == ("mirror", f"mine {turn}")
            assert int(answer.watermark) > xid


async def test_a_writer_that_edited_or_deleted_sees_that(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, TEXTS)
    row_id = await psql.fetchval("SELECT id FROM messages WHERE content = $1", TEXTS[5])
    async with worker(resources, mirror_poll_seconds=60) as one:
        await until_true(one, dataset)
        async with psql.transaction():
            await edit(psql, MESSAGE, row_id, "quite another text")
            xid = int(await psql.fetchval("SELECT pg_current_xact_id()::text"))
        asking = asyncio.create_task(search(one, "quite another text", k=1, min_watermark=xid, wait_seconds=60))
        await embed_dataset(resources, dataset.id)
        [hit] = (await asking).hits
        assert (hit.id, hit.text, hit.stale) == (row_id, "quite another text", False)
        assert hit.score == pytest.approx(1, abs=1e-5)


async def test_a_writer_waits_no_longer_than_it_said(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        xid = await written(psql, dataset, "nobody embeds this")
        started = monotonic()
        answer = await search(one, "nobody embeds this", k=3, min_watermark=xid, wait_seconds=0.3)
        assert 0.3 <= monotonic() - started < 60
        assert (len(answer.hits), answer.pending_in_scope) == (3, 1)


async def test_an_open_transaction_is_waited_for_and_a_future_one_refused(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        transaction = psql.transaction()
        await transaction.start()
        await plant(psql, MESSAGE, dataset.id, "not committed yet")
        xid = int(await psql.fetchval("SELECT pg_current_xact_id()::text"))
        asking = asyncio.create_task(search(one, "not committed yet", k=1, min_watermark=xid, wait_seconds=60))
        await asyncio.wait([asking], timeout=0.2)
        assert not asking.done()
        await transaction.commit()
        await embed_dataset(resources, dataset.id)
        assert (await asking).hits[0].text == "not committed yet"
        with pytest.raises(Refused, match=f"min_watermark is {xid + 9_999}, but this database has only begun"):
            await search(one, "anything", min_watermark=xid + 9_999)


async def test_nothing_that_was_deleted_before_the_search_is_a_hit(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    """The mirror still holds all of them; there are always as many hits as there are rows, up to k."""
    texts = [f"row {n}" for n in range(400)]
    await stored(resources, dataset, texts)
    async with worker(resources) as one:
        mirror = await until_true(one, dataset)
        async with mirror._writing:
            nearest = [hit.id for hit in (await search(one, "row 7", k=200)).hits]
            for gone in (1, 9, 50, 200):
                await psql.execute("DELETE FROM messages WHERE id = ANY($1)", nearest[:gone])
                answer = await search(one, "row 7", k=10)
                assert answer.engine == "mirror"
                assert [hit.id for hit in answer.hits] == (nearest[gone : gone + 10] if gone < 190 else ids(answer))
                assert len(answer.hits) == 10
                assert not set(ids(answer)) & set(nearest[:gone])
                assert answer.widened is (gone > 8)
            await psql.execute("UPDATE messages SET content = ' '")
            assert (await search(one, "row 7", k=10)).hits == []
            assert mirror.index is not None
            assert len(mirror.index) == 400


async def test_small_datasets_fill_an_answer_when_the_best_of_all_are_deleted(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "sea", "notes")
    await stored(resources, dataset, [f"row {n}" for n in range(15)])
    await stored(resources, other, [f"row {n}" for n in range(15, 30)])
    async with worker(resources) as one:
        held = [await until_true(one, each) for each in (dataset, other)]
        async with held[0]._writing, held[1]._writing:
            nearest = ids(await search(one, "row 7", k=30))
            await psql.execute("DELETE FROM messages WHERE id = ANY($1)", nearest[:12])
            answer = await search(one, "row 7", k=10)
    assert (answer.engine, ids(answer)) == ("mirror", nearest[12:22])


def ids(answer: Any) -> list[int]:
    return [hit.id for hit in answer.hits]


async def test_a_row_that_moved_is_found_where_it_is(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "sea", "notes")
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        mirrors_ = [await until_true(one, each) for each in (dataset, other)]
        async with mirrors_[0]._writing, mirrors_[1]._writing:
            await psql.execute("UPDATE messages SET dataset_id = $1 WHERE content = $2", other.id, TEXTS[3])
            assert TEXTS[3] not in {hit.text for hit in (await search(one, TEXTS[3], dataset="log", k=40)).hits}
        await until_true(one, dataset)
        await until_true(one, other)
        for name, count in (("log", 0), ("notes", 1), (None, 1)):
            found = await search(one, TEXTS[3], dataset=name, k=50)
            assert [(hit.text, hit.dataset) for hit in found.hits].count((TEXTS[3], "notes")) == count


async def test_row_ids_and_kinds_are_kept_to(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, [f"row {n}" for n in range(300)])
    for kind in (TOPIC, ATOM):
        for number in range(15):
            await plant(psql, kind, dataset.id, f"{kind.name} {number}")
    await embed_dataset(resources, dataset.id)
    rows = [row["id"] for row in await psql.fetch("SELECT id FROM messages ORDER BY id")]
    async with worker(resources) as one:
        await until_true(one, dataset)
        for chosen in ([], rows[:1], rows[::50], rows[10:200], [*rows[:3], 10**9]):
            answer = await search(one, "row 7", k=10, kind="message", row_ids=chosen)
            exact = await search(one, "row 7", k=10, kind="message", row_ids=chosen, engine="exact")
            assert ids(answer) == ids(exact)
            assert len(answer.hits) == min(10, len(set(chosen) & set(rows)))
            assert answer.engine == "mirror"
        for name, count in (("message", 20), ("topic", 15), ("atom", 15), ("chunk", 0)):
            answer = await search(one, "row 7", k=20, kind=name)
            exact = await search(one, "row 7", k=20, kind=name, engine="exact")
            assert {hit.kind for hit in answer.hits} <= {name}
            assert (ids(answer), len(answer.hits)) == (ids(exact), count)


async def test_searches_go_on_while_a_mirror_is_rebuilt_again_and_again(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        done, asked = asyncio.Event(), 0

        async def ask() -> None:
            nonlocal asked
            while not done.is_set() or asked < 10:
                text = TEXTS[asked % 40]
                answer = await search(one, text, k=5)
                assert (answer.engine, answer.hits[0].text, len(answer.hits)) == ("mirror", text, 5)
                asked += 1

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for turn in range(10):
            await stored(one, dataset, [f"turn {turn}"])
            await one.mirrors.rebuild(dataset, "compact was asked for")
        done.set()
        await asyncio.gather(*asking)


async def test_the_recall_watch_measures_both_engines(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, [f"row {n}" for n in range(200)])
    async with worker(resources, mirror_recall_seconds=0.1) as one:
        await until_true(one, dataset)

        async def kept() -> dict[str, mirrors.MeasuredRecall]:
            async with one.database.read() as tx:
                return {found.engine: found for found in await mirrors.recalls(tx, dataset.id)}

        async with asyncio.timeout(60):
            while set(found := await kept()) != {"mirror", "pgvector"}:
                await asyncio.sleep(0.02)
    assert found["mirror"].recall == 1
    assert found["pgvector"].recall > 0.9
    assert found["mirror"].target == pytest.approx(0.98)
    assert found["mirror"].sampled == 30


async def test_there_is_nothing_to_measure_without_a_mirror_or_vectors(
    resources: Resources, dataset: DatasetRef
) -> None:
    async with process(resources) as one:
        mirror = one.mirrors.mirror(dataset)
        assert await measure(one.database, mirror) is None
        await mirror.rebuild("there was no file")
        assert await measure(one.database, mirror) is None


def clustered(count: int) -> NDArray[np.float32]:
    """Vectors `(count, 32)` around 64 centres."""
    centres = unit(64, WIDTH, seed=3)[np.random.default_rng(1).integers(0, 64, count)]
    rows = centres + 0.3 * unit(count, WIDTH, seed=4)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


async def test_a_mirror_whose_recall_fell_is_built_anew(resources: Resources, dataset: DatasetRef) -> None:
    """Spoiled on purpose: it looks into one list only, where its data needs many."""
    provider = await resources.provider()
    await hnsw.drop_indexes(resources.database, provider.space.id)
    await stored(resources, dataset, [f"row {n}" for n in range(3_000)], clustered(3_000))
    async with process(resources, mirror_index="IVF{K},RaBitQfs,Refine(SQfp16)") as one:
        mirror = one.mirrors.mirror(dataset)
        await mirror.rebuild("there was no file")
        assert mirror.index is not None
        index = mirror.index
        assert index.snapshot.main.ivf is not None
        spoiled = index.snapshot.main
        object.__setattr__(spoiled.tuning, "nprobe", 1)
        object.__setattr__(spoiled.tuning, "k_factor", 1.0)
        before = await measure(one.database, mirror)
        assert before is not None
        assert before.of("mirror") < 0.9
        assert mirror.index is not index, "it was built anew"
        after = await measure(one.database, mirror)
        assert after is not None
        assert after.of("mirror") >= 0.95
        rebuilt = mirror.index
        assert rebuilt is not None
        assert len(rebuilt) == 3_000
        async with one.database.read() as tx:
            assert {found.engine: found.recall for found in await mirrors.recalls(tx, dataset.id)}["mirror"] >= 0.95
