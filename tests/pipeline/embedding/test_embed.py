"""The engine: what is sent, what is written, and what becomes of rows that can not be embedded."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from evervec.domain.extraction.message import IncomingMessage
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.embedding.embed import embed_dataset, embed_rows
from evervec.pipeline.resources import Resources
from evervec.store import messages, monitor
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vectors
from evervec.store.monitor import DatasetCoverage
from evervec.store.schema.embeddables import MESSAGE
from tests.e2e.waiting import eventually
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_vector


def incoming(text: str, number: int) -> IncomingMessage:
    return IncomingMessage("telegram:1", str(number), "dev", datetime(2026, 1, 1, tzinfo=UTC), text)


async def save(resources: Resources, dataset: DatasetRef, texts: Sequence[str], first: int = 1) -> list[int]:
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset.id, [incoming(t, first + i) for i, t in enumerate(texts)])
    return saved.created


async def coverage(resources: Resources, dataset: DatasetRef) -> DatasetCoverage:
    async with resources.database.read() as tx:
        return (await monitor.coverage(tx, [dataset.id]))[dataset.id]


async def until_sent(fake: FakeProvider, text: str) -> None:
    """Wait until the provider was sent a text."""

    async def sent() -> bool:
        return fake.texts_sent()[text] > 0

    await eventually(f"{text!r} is sent", sent)


async def unpause(psql: Any) -> None:
    await psql.execute("UPDATE provider_breakers SET open_until = now()")


async def test_every_vector_is_the_one_of_its_text(resources: Resources, dataset: DatasetRef) -> None:
    texts = [f"message number {i} about queues" for i in range(150)]
    ids = await save(resources, dataset, texts)
    assert (await embed_dataset(resources, dataset.id)).success == 150
    async with resources.database.read() as tx:
        for row_id, text in zip(ids, texts, strict=True):
            found = await vectors.vector_of(tx, MESSAGE, row_id)
            assert found is not None
            np.testing.assert_allclose(found[1], expected_vector("embedder", text, 32), rtol=1e-6)


async def test_a_batch_task_tells_success_failed_and_skipped(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    ids = await save(resources, dataset, ["one", "two", "cursed", "   "])
    fake.always(lambda text: text == "cursed", Fault.BAD_REQUEST_400)
    counts = await embed_rows(resources, MESSAGE, [*ids, 10**9])
    assert counts.as_result() == {"success": 2, "failed": 1, "skipped": 2}
    again = await embed_rows(resources, MESSAGE, ids)
    assert again.as_result() == {"success": 0, "failed": 0, "skipped": 4}


async def test_equal_texts_are_sent_once_and_then_never_again(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await save(resources, dataset, ["same words"] * 20 + ["other words"])
    await embed_dataset(resources, dataset.id)
    await save(resources, dataset, ["same words"] * 5, first=100)
    counts = await embed_dataset(resources, dataset.id)
    assert (counts.success, counts.sent, counts.reused) == (5, 0, 5)
    assert fake.texts_sent()["same words"] == 1


async def test_rows_of_one_text_that_are_claimed_at_the_same_moment_are_all_embedded(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    many = 4 * resources.settings.embed_batch
    ids = await save(resources, dataset, [f"text {i % 40}" for i in range(many)])
    counts = await embed_rows(resources, MESSAGE, ids)
    assert (counts.success, counts.skipped, counts.sent) == (many, 0, 40)
    assert (await embed_rows(resources, MESSAGE, ids)).as_result() == {"success": 0, "failed": 0, "skipped": many}


async def test_while_one_part_of_many_rows_is_with_the_provider_the_next_is_claimed(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    size = resources.settings.embed_batch
    ids = await save(resources, dataset, [f"text {i}" for i in range(3 * size)])
    fake.always(lambda text: text.startswith("text "), Fault.STALL)
    embedding = asyncio.create_task(embed_rows(resources, MESSAGE, ids))

    async def two_parts() -> bool:
        return await psql.fetchval("SELECT count(*) FROM embed_work") >= 2 * size

    await eventually("two parts are claimed", two_parts)
    fake.resume()
    assert (await embedding).success == 3 * size


async def test_every_request_and_each_of_its_texts_is_told_once(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    ids = await save(resources, dataset, [f"text {i % 70}" for i in range(100)] + ["cursed"])
    asked_before = len(fake.requests)
    fake.always(lambda text: text == "cursed", Fault.BAD_REQUEST_400)
    requests: list[list[str]] = []
    counts = await embed_rows(resources, MESSAGE, ids, sent=lambda rows: requests.append([row.text for row in rows]))
    assert sorted(text for texts in requests for text in texts) == sorted(f"text {i}" for i in range(70))
    assert (counts.sent, counts.failed) == (70, 1)
    answered = [list(request.texts) for request in fake.requests[asked_before:] if request.status == 200]
    assert sorted([*requests, [*HEALTH_TEXTS]]) == sorted(answered)

    requests.clear()
    await save(resources, dataset, ["text 0", "new", "new"], first=500)
    await embed_dataset(resources, dataset.id, sent=lambda rows: requests.append([row.text for row in rows]))
    assert requests == [["new"]]


async def test_an_edit_while_the_provider_thinks_is_never_overwritten(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    (row_id,) = await save(resources, dataset, ["before"])
    fake.always(lambda text: text == "before", Fault.STALL)
    embedding = asyncio.create_task(embed_rows(resources, MESSAGE, [row_id]))
    await until_sent(fake, "before")
    await psql.execute("UPDATE messages SET content = 'after' WHERE id = $1", row_id)
    fake.resume()
    assert (await embedding).success == 0
    assert (await coverage(resources, dataset)).pending == 1
    assert (await embed_rows(resources, MESSAGE, [row_id])).success == 1
    async with resources.database.read() as tx:
        found = await vectors.vector_of(tx, MESSAGE, row_id)
    assert found is not None
    np.testing.assert_allclose(found[1], expected_vector("embedder", "after", 32), rtol=1e-6)


async def test_a_row_deleted_while_the_provider_thinks_stays_deleted(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    (row_id,) = await save(resources, dataset, ["gone soon"])
    fake.always(lambda text: text == "gone soon", Fault.STALL)
    embedding = asyncio.create_task(embed_rows(resources, MESSAGE, [row_id]))
    await until_sent(fake, "gone soon")
    await psql.execute("DELETE FROM messages WHERE id = $1", row_id)
    fake.resume()
    assert (await embedding).success == 0
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_one_bad_text_in_a_hundred_is_found_and_the_others_are_embedded(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"good text {i}" for i in range(99)] + ["cursed"])
    fake.always(lambda text: text == "cursed", Fault.BAD_REQUEST_400)
    await embed_dataset(resources, dataset.id)
    covered = await coverage(resources, dataset)
    assert (covered.embedded, covered.failed, covered.pending) == (99, 1, 0)
    # bisecting sends a good text at most once for each halving of its batch of 32
    assert sum(fake.texts_sent().values()) <= 100 + 2 * 32 + 5
    reason = await psql.fetchval("SELECT error_message FROM embedding_status WHERE embedding_status = 'FAILED'")
    assert "fake refuses the text" in reason


async def test_editing_a_failed_text_reopens_the_row_by_itself(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["cursed"])
    fake.always(lambda text: text == "cursed", Fault.BAD_REQUEST_400)
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).failed == 1
    await psql.execute("UPDATE messages SET content = 'blessed'")
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).embedded == 1
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_a_provider_that_answers_garbage_to_everything_costs_no_row(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(40)])
    for fault in (Fault.HTML_200, Fault.SHORT_LIST, Fault.BUSY_503, Fault.BAD_REQUEST_400, Fault.WRONG_DIMS):
        fake.always(None, fault)
        for _ in range(4):
            await embed_dataset(resources, dataset.id)
            await unpause(psql)
        fake.heal()
        covered = await coverage(resources, dataset)
        assert (covered.pending, covered.failed) == (40, 0), fault
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).embedded == 40
    assert await psql.fetchval("SELECT count(*) FROM provider_breakers") == 0


async def test_a_text_whose_vector_is_never_finite_is_given_up_alone(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["poison", "a longer text that is fine", "another longer text that is fine"])
    fake.always(lambda text: text == "poison", Fault.NAN)
    for _ in range(3):
        await embed_dataset(resources, dataset.id)
        await psql.execute("UPDATE embed_work SET not_before = now()")
    covered = await coverage(resources, dataset)
    assert (covered.embedded, covered.failed) == (2, 1)


async def test_a_429_pauses_every_worker_for_as_long_as_it_says_and_burns_no_attempt(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["patience"])
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after="170")
    await embed_dataset(resources, dataset.id)
    paused = await psql.fetchval("SELECT extract(epoch FROM open_until - now())::float8 FROM provider_breakers")
    assert 100 < paused <= 170
    before = len(fake.requests)
    await embed_dataset(resources, dataset.id)
    assert len(fake.requests) == before
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_two_engines_on_the_same_rows_send_no_text_twice(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    ids = await save(resources, dataset, [f"contested text {i}" for i in range(300)])
    all_counts = await asyncio.gather(
        embed_rows(resources, MESSAGE, ids),
        embed_rows(resources, MESSAGE, ids[::-1]),
        embed_dataset(resources, dataset.id),
    )
    assert sum(counts.success for counts in all_counts) == 300
    sent = fake.texts_sent()
    for sentence in HEALTH_TEXTS:
        sent.pop(sentence, None)
    assert set(sent.values()) == {1}


async def test_engines_that_meet_the_same_text_at_the_same_moment_send_it_once(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    ids = await save(resources, dataset, [f"text {i % 10}" for i in range(200)])
    parts = [ids[start::4] for start in range(4)]
    await asyncio.gather(
        *(embed_rows(resources, MESSAGE, part) for part in parts), embed_dataset(resources, dataset.id)
    )
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).embedded == 200
    assert {text: count for text, count in fake.texts_sent().items() if text.startswith("text ")} == {
        f"text {i}": 1 for i in range(10)
    }


async def test_a_lease_that_ran_out_is_taken_over(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await save(resources, dataset, ["left behind"])
    await psql.execute(
        "INSERT INTO embed_work (vector_id, content_hash, lease_owner, lease_until) "
        "SELECT vector_id, content_hash, gen_random_uuid(), now() + interval '1 hour' FROM embeddings"
    )
    assert (await embed_dataset(resources, dataset.id)).success == 0
    await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 second'")
    assert (await embed_dataset(resources, dataset.id)).success == 1


async def test_leases_are_renewed_while_the_provider_is_slow(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    lease, until = 6.0, "SELECT lease_until FROM embed_work"
    resources = replace(resources, settings=resources.settings.model_copy(update={"lease_seconds": lease}))
    await save(resources, dataset, ["slow"])
    fake.always(lambda text: text == "slow", Fault.STALL)
    embedding = asyncio.create_task(embed_dataset(resources, dataset.id))
    await until_sent(fake, "slow")
    first = await psql.fetchval(until)

    async def renewed() -> bool:
        return await psql.fetchval(until) > first

    await eventually("the lease is renewed", renewed)
    assert await psql.fetchval(until) - timedelta(seconds=lease) < first, "it had run out before"
    assert not embedding.done()
    fake.resume()
    assert (await embedding).success == 1


async def test_a_cancelled_run_hands_its_rows_back(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["interrupted"])
    fake.always(lambda text: text == "interrupted", Fault.STALL)
    embedding = asyncio.create_task(embed_dataset(resources, dataset.id))
    await until_sent(fake, "interrupted")
    embedding.cancel()
    await asyncio.gather(embedding, return_exceptions=True)
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
    fake.resume()
    assert (await embed_dataset(resources, dataset.id)).success == 1


async def test_a_deleted_dataset_is_skipped_without_an_error(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    ids = await save(resources, dataset, ["nobody wants this"])
    await psql.execute("UPDATE datasets SET deleted_at = now()")
    assert (await embed_dataset(resources, dataset.id)).success == 0
    assert (await embed_rows(resources, MESSAGE, ids)).as_result() == {"success": 0, "failed": 0, "skipped": 1}
    assert not fake.texts_sent()["nobody wants this"]


async def test_no_transaction_is_open_while_the_provider_thinks(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["thinking"])
    fake.always(lambda text: text == "thinking", Fault.STALL)
    embedding = asyncio.create_task(embed_dataset(resources, dataset.id))
    await until_sent(fake, "thinking")

    async def none_is_open() -> bool:
        open_ones = await psql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND application_name = 'evervec' AND state LIKE 'idle in transaction%'"
        )
        return bool(open_ones == 0)

    # another claim, or a renewal, may have one open for a moment
    await eventually("no transaction is open", none_is_open)
    assert not embedding.done()
    fake.resume()
    assert (await embedding).success == 1


async def test_a_batch_that_gives_way_in_a_deadlock_is_written_again(
    resources: Resources, dataset: DatasetRef, psql: Any, fake: FakeProvider
) -> None:
    ids = await save(resources, dataset, ["one", "two"])
    fake.always(lambda text: text == "one", Fault.STALL)
    await psql.execute("SET deadlock_timeout = '1min'")  # so that it is the batch that looks, and gives way
    embedding = asyncio.create_task(embed_rows(resources, MESSAGE, ids))
    await until_sent(fake, "one")
    async with asyncio.timeout(60), psql.transaction():
        await psql.execute("UPDATE embeddings SET failed_hash = NULL WHERE row_id = $1", ids[1])
        fake.resume()
        # once the batch waits for the second row and holds the first one; it looks a second later, and only once
        await psql.execute(
            f"""DO $$ BEGIN
                WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP;
                UPDATE embeddings SET failed_hash = NULL WHERE row_id = {ids[0]};
            END $$"""
        )
    assert (await embedding).success == 2
    assert (await coverage(resources, dataset)).embedded == 2
