"""What changes while a batch job is on its way: answers that get lost, rows, datasets and spaces that become others."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.domain.batch import JobStatus
from evervec.errors import Refused
from evervec.pipeline.batch import collect
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.batch.submit import lease_name
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import fill
from evervec.pipeline.upkeep.janitor import purge_deleted
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from tests.embedders.batch_settings import WIRES, Wire
from tests.fakes.faults import Fault
from tests.fakes.jobs import State
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import (
    LEFT,
    TYPES,
    add,
    assert_every_vector_is_right,
    assert_nothing_is_left,
    assert_one_job_per_intent,
    assert_paid_once,
    batched,
    before,
    client_of,
    edit,
    flush_and_sync,
    given,
    numbered,
    online,
    paid,
    planted,
    states,
    to_the_end,
)

ROWS = 60
TEXTS = numbered(ROWS)
NEVER = 10_000
"""Polls of a job that is to run until the test says otherwise."""

HELD = "SELECT count(*) FROM embed_work WHERE lease_until > now() AND lease_owner = (SELECT id FROM batch_jobs)"
DAYS_LATER = "UPDATE embed_work SET lease_until = now() - interval '1 second', not_before = now()"
LATER = "UPDATE batch_jobs SET submitting_at = submitting_at - interval '11 minutes'"


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, and keep the default grace period."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


@pytest.fixture
async def wire(lane: Resources) -> Wire:
    """How the fake calls the endpoints of this lane."""
    return WIRES[(await lane.provider()).type]


@pytest.fixture
async def ids(psql: Any, dataset: DatasetRef) -> list[int]:
    """Write the rows of `TEXTS`."""
    return await planted(psql, dataset.id, TEXTS)


async def assert_all_is_well(psql: Any, fake: FakeProvider, *bought: str) -> None:
    """Every vector is that of its text, each text that was to be bought was so once, and nothing is left."""
    await assert_every_vector_is_right(psql)
    assert_paid_once(fake, bought)
    await assert_one_job_per_intent(psql, fake)
    await assert_nothing_is_left(psql, fake)


# --- answers that get lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.DONE_BUT_500])
async def test_a_job_whose_answer_got_lost_is_found_in_the_list(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int], fault: Fault
) -> None:
    fake.fail_next(1, fault, endpoint=wire.create)
    (job,) = (await BatchManager(lane).flush_queue()).jobs
    assert job.status is JobStatus.SUBMITTED
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 1
    await assert_all_is_well(psql, fake, *TEXTS)


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.DONE_BUT_500])
async def test_a_job_whose_answer_and_list_got_lost_is_found_by_the_next_sync(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int], fault: Fault
) -> None:
    fake.fail_next(1, fault, endpoint=wire.create)
    fake.fail_next(1, Fault.BUSY_503, endpoint=wire.listed)
    flushed = await BatchManager(lane).flush_queue()
    assert [job.status for job in flushed.jobs] == [JobStatus.CREATED]
    assert "the last job is not sent yet" in (flushed.reason or "")
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 1
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_a_job_that_is_listed_late_is_waited_for_and_found(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int]
) -> None:
    fake.fail_next(1, Fault.LOST_ANSWER, endpoint=wire.create)
    fake.batches.next_outcomes.append("vanish")
    manager = BatchManager(lane)
    await manager.flush_queue()
    for _ in range(4):
        assert [job.status for job in (await manager.check_and_sync()).jobs] == [JobStatus.CREATED]
    fake.batches.jobs[0].outcome = "succeed"
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 1
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_a_create_that_never_arrived_is_sent_again_once(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int]
) -> None:
    lane = given(lane, batch_grace_seconds=0)
    fake.fail_next(1, Fault.RESET, endpoint=wire.create)
    (job,) = (await BatchManager(lane).flush_queue()).jobs
    assert (job.status, fake.batches.jobs) == (JobStatus.CREATED, [])
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 2
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_before_the_grace_is_over_nothing_is_sent_again_however_often_it_is_looked(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int]
) -> None:
    fake.fail_next(1, Fault.RESET, endpoint=wire.create)
    manager = BatchManager(lane)
    await manager.flush_queue()
    for _ in range(8):
        assert [job.status for job in (await manager.check_and_sync()).jobs] == [JobStatus.CREATED]
    assert fake.calls(wire.create) == 1
    assert await psql.fetchval(HELD) == ROWS, "a job may still turn up with their vectors"
    assert (await manager.flush_queue()).rows == 0
    await psql.execute(LATER)
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 2
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_a_second_create_that_gets_lost_too_waits_a_grace_of_its_own(
    lane: Resources, fake: FakeProvider, psql: Any, wire: Wire, ids: list[int]
) -> None:
    fake.fail_next(2, Fault.RESET, endpoint=wire.create)
    manager = BatchManager(lane)
    await manager.flush_queue()
    await manager.check_and_sync()
    await psql.execute(LATER)
    for _ in range(4):
        await manager.check_and_sync()
    assert fake.calls(wire.create) == 2
    await psql.execute(LATER)
    await to_the_end(lane, psql)
    assert fake.calls(wire.create) == 3
    await assert_all_is_well(psql, fake, *TEXTS)


# --- rows that become others -----------------------------------------------------------------------------------------


async def test_a_row_is_edited_and_another_deleted_while_their_job_runs(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    manager = BatchManager(lane)
    await manager.flush_queue()
    await manager.check_and_sync()
    await edit(psql, ids[0], "edited")
    await psql.execute("DELETE FROM messages WHERE id = $1", ids[1])
    (synced,) = await to_the_end(lane, psql)
    assert (synced.ready, synced.dropped, synced.returned) == (ROWS - 2, 2, 0)
    assert await states(psql) == {"READY": ROWS - 2, "PENDING": 1}
    assert await flush_and_sync(lane, psql) == 1
    await assert_all_is_well(psql, fake, *TEXTS, "edited")


async def test_a_row_that_is_edited_and_edited_back_takes_the_vector_of_its_job(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    await BatchManager(lane).flush_queue()
    await edit(psql, ids[0], "edited")
    await edit(psql, ids[0], TEXTS[0])
    await to_the_end(lane, psql)
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_a_row_that_is_edited_between_fill_and_send_keeps_nothing_of_its_old_text(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change() -> None:
        await edit(psql, ids[0], "edited")
        await psql.execute("DELETE FROM messages WHERE id = $1", ids[1])

    before(monkeypatch, await client_of(lane), "upload", change)
    first, second = (await BatchManager(lane).flush_queue()).jobs
    assert (first.stats["rows"], second.stats["rows"]) == (ROWS, 1), "its new text goes with the next job"
    *_, last = await to_the_end(lane, psql)
    assert (last.ready, last.dropped) == (ROWS - 2 + 1, 2)
    await assert_all_is_well(psql, fake, *TEXTS, "edited")


async def test_a_row_that_is_edited_while_results_come_in_is_not_written_over(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "LINES", 20)
    await BatchManager(lane).flush_queue()

    async def change() -> None:
        await edit(psql, ids[0], "edited when it had its vector")
        await edit(psql, ids[-1], "edited before it had one")

    before(monkeypatch, lane.doorbell, "changed", change, nth=2)
    await to_the_end(lane, psql)
    assert await states(psql) == {"READY": ROWS - 2, "PENDING": 2}
    assert await flush_and_sync(lane, psql) == 2
    await assert_all_is_well(psql, fake, *TEXTS, "edited when it had its vector", "edited before it had one")


async def test_a_job_all_of_whose_rows_are_gone_is_cancelled_at_the_provider(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    await BatchManager(lane).flush_queue()
    await psql.execute("DELETE FROM messages")
    fake.batches.polls = NEVER
    await to_the_end(lane, psql)
    assert [job.state in (State.CANCELLED, State.CANCELLING) for job in fake.batches.jobs] == [True]
    await assert_nothing_is_left(psql, fake)


@pytest.mark.parametrize("polls", [0, NEVER], ids=["done", "running"])
async def test_a_dataset_is_deleted_while_its_job_is_out(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, ids: list[int], polls: int
) -> None:
    fake.batches.polls = polls
    await BatchManager(lane).flush_queue()
    async with lane.database.transaction() as tx:
        await datasets.remove(tx, dataset.id)
    await to_the_end(lane, psql)
    if polls:
        assert [job.state in (State.CANCELLED, State.CANCELLING) for job in fake.batches.jobs] == [True]
    assert (await BatchManager(lane).flush_queue()).rows == 0
    await purge_deleted(lane.database)
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    await assert_nothing_is_left(psql, fake)


# --- another space, a cancelled job, a lease that ends ---------------------------------------------------------------


async def test_the_space_is_switched_while_a_job_runs(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    fake.batches.polls = NEVER
    await BatchManager(lane).flush_queue()
    await add(lane, fake, (await lane.provider()).type, name="other", model="other", activate=False)
    await providers.use(lane, "other", reembed=True)
    await to_the_end(lane, psql)
    (first,) = fake.batches.jobs
    assert first.state in (State.CANCELLED, State.CANCELLING)
    assert await states(psql) == {"PENDING": ROWS}
    fake.batches.polls = 1
    assert await flush_and_sync(lane, psql) == ROWS
    assert await assert_every_vector_is_right(psql, model="other") == ROWS
    await assert_nothing_is_left(psql, fake)


async def test_another_space_is_built_while_results_come_in_for_the_present_one(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "LINES", 20)
    fake.batches.polls = 0
    await add(lane, fake, (await lane.provider()).type, name="other", model="other", activate=False)
    await BatchManager(lane).flush_queue()
    before(monkeypatch, lane.doorbell, "changed", lambda: providers.use(lane, "other", reembed=True), nth=2)
    await to_the_end(lane, psql)
    assert await states(psql) == {"READY": ROWS}
    assert await assert_every_vector_is_right(psql) == ROWS, "no vector of the next space is among them"
    await fill(lane, whole=True)
    assert await assert_every_vector_is_right(psql, model="other") == ROWS
    await assert_nothing_is_left(psql, fake)


async def test_a_job_is_cancelled_while_it_runs_and_its_rows_can_be_sent_again(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    manager = BatchManager(lane)
    (job,) = (await manager.flush_queue()).jobs
    ended = await manager.cancel(str(job.id)[:8])
    assert (ended.status, ended.stats["returned"]) == (JobStatus.CANCELLED, ROWS)
    await to_the_end(lane, psql)
    assert await states(psql) == {"PENDING": ROWS}
    with pytest.raises(Refused, match="is over already"):
        await manager.cancel(str(job.id))
    assert await flush_and_sync(lane, psql) == ROWS
    await assert_all_is_well(psql, fake, *TEXTS)


async def test_a_job_that_another_process_works_on_is_not_cancelled_under_its_hands(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    manager = BatchManager(lane)
    (job,) = (await manager.flush_queue()).jobs
    async with held(lane.database, lease_name(job.id), 60):
        with pytest.raises(Refused, match="another process"):
            await manager.cancel(str(job.id))
        synced = await manager.check_and_sync()
        assert (synced.busy, synced.jobs) == (1, [])
    await to_the_end(lane, psql)
    await assert_all_is_well(psql, fake, *TEXTS)


@pytest.mark.parametrize("polls", [0, NEVER], ids=["done", "running"])
async def test_after_the_lease_online_workers_take_the_rows_and_a_late_result_does_no_harm(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, ids: list[int], polls: int
) -> None:
    fake.batches.polls = polls
    await BatchManager(lane).flush_queue()
    assert (await embed_dataset(lane, dataset.id)).success == 0
    await psql.execute(DAYS_LATER)
    assert (await embed_dataset(lane, dataset.id)).success == ROWS
    await edit(psql, ids[0], "edited")
    assert (await embed_dataset(lane, dataset.id)).success == 1
    await to_the_end(lane, psql)
    assert online(fake) == Counter([*TEXTS, "edited"])
    assert await assert_every_vector_is_right(psql) == ROWS
    await assert_nothing_is_left(psql, fake)


async def test_a_job_that_never_ends_gives_its_rows_back_at_its_deadline_and_they_are_embedded_online(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int]
) -> None:
    fake.batches.polls = NEVER
    lane = given(lane, batch_hours=1e-7)
    await BatchManager(lane).flush_queue()
    assert await psql.fetchval(HELD) == ROWS, "until somebody has heard its last word"
    (synced,) = await to_the_end(lane, psql)
    assert [job.status for job in synced.jobs] == [JobStatus.EXPIRED]
    assert (synced.returned, synced.online.success) == (ROWS, ROWS)
    assert online(fake) == Counter(TEXTS)
    assert await assert_every_vector_is_right(psql) == ROWS
    await assert_nothing_is_left(psql, fake)


# --- what else could buy a text twice, or leave one lying ------------------------------------------------------------


async def test_an_upload_that_outlasts_its_lease_does_not_buy_again_what_another_job_has_taken(
    lane: Resources, fake: FakeProvider, psql: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = BatchManager(lane)

    async def time_passes() -> None:
        await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 second'")
        assert (await manager.flush_queue()).rows == ROWS

    before(monkeypatch, await client_of(lane), "upload", time_passes)
    await manager.flush_queue()
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert {text: times for text, times in paid(fake).items() if times > 1} == {}
    assert await psql.fetchval(LEFT) == 0


async def test_many_rows_of_a_text_that_is_on_its_way_keep_nobody_behind_them_from_being_sent(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef
) -> None:
    await planted(psql, dataset.id, ["same"] * 50)
    await planted(psql, dataset.id, TEXTS)
    flushed = await BatchManager(lane).flush_queue(max_batch_size=20)
    assert flushed.texts == ROWS + 1
    await to_the_end(lane, psql)
    await flush_and_sync(lane, psql)
    await assert_all_is_well(psql, fake, "same", *TEXTS)
