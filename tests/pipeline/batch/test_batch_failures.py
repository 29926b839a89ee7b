"""The failure ladder of the batch lane: whatever an answer or a job comes to, no row is lost and none is stuck."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from operator import eq
from typing import Any

import pytest

from evervec.domain.batch import JobStatus
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import failures
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.fakes.batches import Batches
from tests.fakes.faults import Fault
from tests.fakes.jobs import Outcome
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.accounting import assert_all_accounted, jobs
from tests.pipeline.batch.batched import (
    NOBODYS,
    TYPES,
    assert_every_vector_is_right,
    assert_nothing_is_left,
    batched,
    numbered,
    paid,
    planted,
    states,
    to_the_end,
)

MANY = 100
CREATE = {"gemini": "POST :asyncBatchEmbedContent", "openai": "POST /v1/batches"}


def tenth(text: str) -> bool:
    """Whether a numbered text is one of every ten."""
    return text.endswith("0")


DISTURBED: dict[str, tuple[Callable[[Batches], object], int, int]] = {
    # what is done to the answer, rows of a hundred that come back, lines that nobody had asked for
    "missing": (lambda batches: batches.drop_lines(tenth), 10, 0),
    "duplicated": (lambda batches: batches.duplicate_lines(tenth), 0, 10),
    "unknown": (lambda batches: batches.unknown_lines(7), 0, 7),
    "garbage": (lambda batches: batches.wish(garbage_line=True), 0, 1),
    "cut": (lambda batches: batches.wish(cut_last_line=True), 1, 1),
    "reversed": (lambda batches: batches.wish(reverse=True), 0, 0),
    "nan": (lambda batches: batches.spoil_lines(tenth, "nan"), 10, 0),
    "zero": (lambda batches: batches.spoil_lines(tenth, "zero"), 10, 0),
    "short": (lambda batches: batches.spoil_lines(tenth, "short"), 10, 0),
    "null": (lambda batches: batches.spoil_lines(tenth, "null"), 10, 0),
    "strings": (lambda batches: batches.spoil_lines(tenth, "strings"), 10, 0),
    "constant": (lambda batches: batches.spoil_lines(lambda _: True, "constant"), MANY, 0),
}
ENDS: dict[Outcome, JobStatus] = {
    "fail": JobStatus.FAILED,
    "expire": JobStatus.EXPIRED,
    "cancel": JobStatus.CANCELLED,
    "vanish": JobStatus.FAILED,
    "results_vanish": JobStatus.FAILED,
}


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, of each type."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


def online(fake: FakeProvider) -> int:
    """How many texts were embedded at the full price."""
    return sum(count for text, count in fake.texts_sent().items() if text not in NOBODYS)


async def test_of_a_thousand_rows_thirty_seven_are_refused_and_the_rest_is_ready(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = numbered(1000)
    cursed = texts[::27][:37]
    for text in cursed:
        fake.batches.fail_lines(partial(eq, text), f"nobody embeds {text!r}")
    await planted(psql, dataset.id, texts)
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, flushed.texts, flushed.waiting, len(flushed.jobs)) == (1000, 1000, 0, 1)
    await to_the_end(lane, psql)
    assert await states(psql) == {"READY": 963, "FAILED": 37}
    (job,) = await jobs(lane.database)
    assert job.status is JobStatus.COMPLETED
    assert {name: job.stats[name] for name in ("rows", "ready", "failed", "returned")} == {
        "rows": 1000, "ready": 963, "failed": 37, "returned": 0,
    }  # fmt: skip
    told = await psql.fetch(
        "SELECT m.content, s.error_message FROM embedding_status s JOIN messages m ON m.id = s.row_id "
        "WHERE s.embedding_status = 'FAILED' ORDER BY m.id"
    )
    assert [row["content"] for row in told] == cursed
    assert all(f"nobody embeds {row['content']!r}" in row["error_message"] for row in told)

    fake.heal()
    assert await failures.retry(lane.database) == 37
    assert (await BatchManager(lane).flush_queue()).rows == 37
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 1000
    await assert_nothing_is_left(psql, fake)
    assert online(fake) == 0
    assert {text for text, times in paid(fake).items() if times > 1} == set(cursed)


@pytest.mark.parametrize("name", DISTURBED)
async def test_a_disturbed_answer_costs_no_row(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, name: str
) -> None:
    disturb, returned, strays = DISTURBED[name]
    await planted(psql, dataset.id, numbered(MANY))
    disturb(fake.batches)
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == MANY
    first, *again = await jobs(lane.database)
    assert (first.stats["ready"], first.stats["returned"]) == (MANY - returned, returned)
    assert first.stats["strays"] == strays
    # once more in jobs of half the size, and what fails there too at once
    assert sorted(job.stats["rows"] for job in again) == {0: [], 1: [1], 10: [5, 5], MANY: [MANY // 2] * 2}[returned]
    assert online(fake) == returned
    await assert_all_accounted(lane.database, psql)
    await assert_nothing_is_left(psql, fake)


async def test_what_is_missing_once_comes_with_the_next_jobs_and_nothing_is_paid_in_full(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    fake.batches.drop_lines(tenth)
    manager = BatchManager(lane)
    await manager.flush_queue()
    assert (await manager.check_and_sync()).running == 1
    collected = await manager.check_and_sync()
    assert (collected.ready, collected.returned, [job.stats["rows"] for job in collected.again]) == (90, 10, [5, 5])
    reasons = await psql.fetch("SELECT DISTINCT last_code, last_error FROM embed_work")
    assert [tuple(row) for row in reasons] == [("bad_response", "the provider's answer has no line for this row")]
    fake.heal()
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == MANY
    assert online(fake) == 0
    await assert_all_accounted(lane.database, psql)


@pytest.mark.parametrize("outcome", ENDS)
async def test_a_job_that_ends_badly_is_followed_by_two_of_half_its_size(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, outcome: Outcome
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    fake.batches.next_outcomes.append(outcome)
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    first, *again = await jobs(lane.database)
    assert (first.status, again[0].status, again[1].status) == (ENDS[outcome], *[JobStatus.COMPLETED] * 2)
    # an expired job of OpenAI hands out what it has done until then
    kept = 50 if first.status is JobStatus.EXPIRED and first.external_id in openai_jobs(fake) else 0
    assert (first.stats["ready"], first.stats["returned"]) == (kept, MANY - kept)
    assert [job.stats["rows"] for job in again] == [(MANY - kept) // 2] * 2
    if first.status is JobStatus.FAILED:
        assert first.error
    assert await assert_every_vector_is_right(psql) == MANY
    assert online(fake) == 0
    await assert_all_accounted(lane.database, psql)
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


def openai_jobs(fake: FakeProvider) -> set[str]:
    return {job.id for job in fake.batches.jobs if job.protocol == "openai"}


@pytest.mark.parametrize("outcome", ENDS)
async def test_rows_that_two_jobs_could_not_do_are_embedded_at_once(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, outcome: Outcome
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    fake.batches.outcome = outcome
    await BatchManager(lane).flush_queue()
    seen = await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == MANY
    ready = sum(job.stats["ready"] for job in await jobs(lane.database))
    assert sum(synced.online.success for synced in seen) == online(fake) == MANY - ready > 0
    assert len(await jobs(lane.database)) == 3
    await assert_all_accounted(lane.database, psql)
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_a_state_that_nobody_knows_is_waited_out_until_the_deadline(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    fake.batches.outcome = "unknown_state"
    manager = BatchManager(lane)
    await manager.flush_queue()
    for _ in range(5):
        synced = await manager.check_and_sync()
        assert (synced.running, synced.online.success, synced.problems) == (1, 0, [])
    (job,) = await jobs(lane.database)
    assert job.status is JobStatus.PROCESSING
    assert "PARTIALLY" in (job.said or "").upper()
    await psql.execute("UPDATE batch_jobs SET deadline = now()")
    synced = await manager.check_and_sync()
    assert (synced.returned, synced.online.success) == (MANY, MANY)
    (job,) = await jobs(lane.database)
    assert job.status is JobStatus.EXPIRED
    assert str(job.said) in str(job.error)
    assert await assert_every_vector_is_right(psql) == MANY
    assert online(fake) == MANY
    await assert_all_accounted(lane.database, psql)


async def test_a_job_that_is_refused_goes_out_in_halves(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    provider = await lane.provider()
    fake.fail_next(1, Fault.BAD_REQUEST_400, endpoint=CREATE[provider.type])
    flushed = await BatchManager(lane).flush_queue()
    assert [job.status for job in flushed.jobs] == [JobStatus.FAILED]
    assert "refused the job" in (flushed.reason or "")
    assert str(flushed.jobs[0].error) in str(flushed.reason)
    await to_the_end(lane, psql)
    _, *again = await jobs(lane.database)
    assert [(job.status, job.stats["ready"]) for job in again] == [(JobStatus.COMPLETED, 50)] * 2
    assert await assert_every_vector_is_right(psql) == MANY
    assert online(fake) == 0
    await assert_nothing_is_left(psql, fake)


async def test_a_provider_that_refuses_every_job_embeds_everything_at_once_in_the_end(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(MANY))
    provider = await lane.provider()
    fake.fail_next(10_000, Fault.BAD_REQUEST_400, endpoint=CREATE[provider.type])
    manager = BatchManager(lane)
    await manager.flush_queue()
    looks = 0
    while (await states(psql))["PENDING"]:
        looks += 1
        assert looks < 12, await states(psql)
        await manager.check_and_sync()
    assert await assert_every_vector_is_right(psql) == MANY
    assert online(fake) == MANY
    await assert_all_accounted(lane.database, psql)
    assert looks == 1
