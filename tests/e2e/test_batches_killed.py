"""kill -9 at every point of a batch job's life, and several processes at once: every text is bought once, none is lost."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_queue
from evervec.store.datasets import DatasetRef
from tests.e2e.batches import ROWS, assert_as_if_nothing_had_happened, whoever
from tests.e2e.batching import COLLECTING, SENDING, STEP, Program
from tests.e2e.processes import Product
from tests.e2e.rows import EMBEDDED, WIDTH, count
from tests.e2e.waiting import eventually
from tests.embedders.batch_settings import WIRES
from tests.fakes.faults import Fault
from tests.fakes.jobs import State
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import (
    assert_every_vector_is_right,
    assert_nothing_is_left,
    assert_one_job_per_intent,
    assert_paid_once,
    client_of,
    edit,
    numbered,
    online,
    planted,
    to_the_end,
    written_once,
)

ORDERS = ("flush", *["sync"] * 6)
NEVER = 10_000
"""Polls of a job that is to run until the test says otherwise."""

TIME_PASSES = "UPDATE embed_work SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"


# every point with one provider, and with the other those at which its own way of doing things is half done
KILLS = [
    *(("gemini", point) for point in (*SENDING, *COLLECTING)),
    *(("openai", point) for point in ("uploaded", "created", "downloading", "finished")),
]
TURNS = ("uploaded", "created", "applying", "cleaning")


@pytest.mark.parametrize(("lane", "point"), KILLS, indirect=["lane"])
async def test_a_process_is_killed_and_the_next_one_finishes_its_job(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program, point: str
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    async with written_once(psql):
        await program.dies(point, psql, *ORDERS)
        await to_the_end(lane, psql)
    await assert_as_if_nothing_had_happened(psql, fake, texts)
    assert len(fake.batches.jobs) == 1


@pytest.mark.slow
@whoever
async def test_one_job_is_killed_at_one_point_after_the_other(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    async with written_once(psql):
        for point in TURNS:
            await program.dies(point, psql, *(ORDERS if point == TURNS[0] else ORDERS[1:]))
        await to_the_end(lane, psql)
    await assert_as_if_nothing_had_happened(psql, fake, texts)
    assert len(fake.batches.jobs) == 1


@whoever
async def test_killed_while_it_fills_a_job_sends_what_it_wrote_down_and_the_rest_goes_with_the_next(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    await program.dies("filling", psql, "flush")
    await to_the_end(lane, psql)
    assert await count(psql, EMBEDDED) == STEP
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, flushed.waiting) == (ROWS - STEP, 0)
    await to_the_end(lane, psql)
    await assert_as_if_nothing_had_happened(psql, fake, texts)


@whoever
async def test_killed_between_a_claim_and_its_intent_frees_the_rows_when_their_lease_is_over(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(STEP)
    await planted(psql, dataset.id, texts)
    await program.dies("claimed", psql, "flush")
    manager = BatchManager(lane)
    assert (await manager.flush_queue()).rows == 0, "somebody may still be at work with them"
    await psql.execute(TIME_PASSES)
    assert (await manager.flush_queue()).rows == STEP
    await to_the_end(lane, psql)
    await assert_as_if_nothing_had_happened(psql, fake, texts)


@whoever
async def test_an_intent_whose_rows_went_with_another_job_is_cancelled_and_buys_nothing(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    await program.dies("intended", psql, "flush")
    await psql.execute(TIME_PASSES)
    assert (await BatchManager(lane).flush_queue()).rows == ROWS
    await to_the_end(lane, psql)
    ended = await psql.fetch("SELECT status, dropped, ready FROM batch_jobs ORDER BY created_at")
    assert [tuple(row) for row in ended] == [("CANCELLED", ROWS, 0), ("COMPLETED", 0, ROWS)]
    assert await assert_every_vector_is_right(psql, WIDTH) == ROWS
    assert_paid_once(fake, texts)
    await assert_nothing_is_left(psql, fake)


@whoever
@pytest.mark.parametrize("point", ["intended", "uploaded", "submitting", "created"])
async def test_a_row_is_edited_and_another_deleted_while_nobody_lives(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program, point: str
) -> None:
    texts = numbered(ROWS)
    first, second, *_ = await planted(psql, dataset.id, texts)
    await program.dies(point, psql, "flush")
    await edit(psql, first, "edited")
    await psql.execute("DELETE FROM messages WHERE id = $1", second)
    await to_the_end(lane, psql)
    assert await count(psql, EMBEDDED) == ROWS - 2
    assert (await BatchManager(lane).flush_queue()).rows == 1
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql, WIDTH) == ROWS - 1
    # what was on its way before the edit was bought; what was not sent yet never is
    assert_paid_once(fake, [*(texts if point == "created" else texts[2:]), "edited"])
    await assert_one_job_per_intent(psql, fake)
    await assert_nothing_is_left(psql, fake)


async def test_of_two_jobs_with_one_intent_the_oldest_is_kept_and_the_other_cancelled(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    await program.dies("created", psql, "flush")
    row = await psql.fetchrow("SELECT id, input_file, external_id FROM batch_jobs")
    assert row["external_id"] is None
    twin = await (await client_of(lane)).create_embedding_job(row["id"], row["input_file"])
    await BatchManager(lane).check_and_sync()
    oldest, other = fake.batches.jobs
    kept = await psql.fetchval("SELECT external_id FROM batch_jobs")
    assert kept.removeprefix("batches/") == oldest.id
    assert twin.external_id.removeprefix("batches/") == other.id
    assert other.state in (State.CANCELLED, State.CANCELLING)
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql, WIDTH) == ROWS
    assert_paid_once(fake, texts)
    await assert_nothing_is_left(psql, fake, twins=[other])


@pytest.mark.slow
@whoever
async def test_two_processes_sync_at_once_ten_times_and_nothing_is_applied_twice(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    fake.batches.polls, rounds, texts = 0, 10, list[str]()
    wire, manager, busy = WIRES[(await lane.provider()).type], BatchManager(lane), 0
    # the first results come when the other process has been there
    fake.fail_next(1, Fault.SLOW_LOAD, endpoint=wire.download)
    async with program.started() as one, program.started() as two, written_once(psql):
        for n in range(rounds):
            texts += (round_ := numbered(ROWS, f"round {n}"))
            await planted(psql, dataset.id, round_)
            assert (await manager.flush_queue()).rows == ROWS
            asked = [asyncio.create_task(each.ask("sync")) for each in (one, two)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            fake.resume()
            answers = await asyncio.gather(*asked)
            assert sorted(answer["ready"] for answer in answers) == [0, ROWS]
            assert [answer["problems"] for answer in answers] == [[], []]
            busy += sum(answer["busy"] for answer in answers)
    assert busy > 0, "they were never there at once"
    assert fake.calls(wire.download) == rounds
    await assert_as_if_nothing_had_happened(psql, fake, texts)


@whoever
async def test_two_processes_flush_at_once_and_every_text_is_in_one_job(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    texts = numbered(2_900)
    again = texts[1_000:1_100]
    await planted(psql, dataset.id, [*texts, *again])
    wire = WIRES[(await lane.provider()).type]
    # each holds rows of its own while its first file is on its way
    fake.fail_next(2, Fault.SLOW_LOAD, endpoint=wire.upload)

    async def both_upload() -> bool:
        return fake.calls(wire.upload) >= 2

    async with program.started() as one, program.started() as two:
        asked = [asyncio.create_task(each.ask("flush 500")) for each in (one, two)]
        await eventually("both send a file", both_upload)
        fake.resume()
        answers = await asyncio.gather(*asked)
    assert all(answer["jobs"] for answer in answers), answers
    sent = Counter(text for job in fake.batches.jobs for _, text in job.lines)
    assert set(sent.values()) == {1}
    await to_the_end(lane, psql)
    # the second row of a text that another process had in work waits for its vector, and is not sent
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql, WIDTH) == len(texts) + len(again)
    assert_paid_once(fake, texts)
    await assert_one_job_per_intent(psql, fake)
    await assert_nothing_is_left(psql, fake)


@whoever
async def test_a_worker_beside_leaves_the_lane_alone_and_embeds_what_is_edited_at_once(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, product: Product, variables: dict[str, str]
) -> None:
    fake.batches.polls = NEVER
    in_job, in_lane = numbered(30, "sent"), numbered(20, "later")
    sent, *_ = await planted(psql, dataset.id, in_job)
    manager = BatchManager(lane)
    assert (await manager.flush_queue()).rows == len(in_job)
    later, *_ = await planted(psql, dataset.id, in_lane)
    async with lane.database.transaction() as tx:
        assert await batch_queue.mark_datasets(tx, [dataset.id], hours=50) == len(in_lane)

    async with product.given(**variables).worker():

        async def embedded(*texts: str) -> None:
            """Wait for exactly these: the worker takes what it may, oldest first, so the others were not its own."""

            async def there() -> bool:
                return await count(psql, EMBEDDED) >= len(texts)

            await eventually(f"{texts} embedded", there)
            assert online(fake) == Counter(texts)

        await planted(psql, dataset.id, ["new"])
        await embedded("new")
        await edit(psql, sent, "edited in a job")
        await embedded("new", "edited in a job")
        await edit(psql, later, "edited in the lane")
        await embedded("new", "edited in a job", "edited in the lane")
        fake.batches.polls = 0
        synced = await manager.check_and_sync()
        assert (synced.ready, synced.dropped) == (len(in_job) - 1, 1)
        assert (await manager.flush_queue()).rows == len(in_lane) - 1
        await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql, WIDTH) == len(in_job) + len(in_lane) + 1
    assert_paid_once(fake, [*in_job, *in_lane[1:], "new", "edited in a job", "edited in the lane"])
    await assert_nothing_is_left(psql, fake)
