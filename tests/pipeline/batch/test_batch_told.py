"""What the batch lane tells whoever asks: why something waits, what a plan would send, which job is meant."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.domain.batch import JobStatus
from evervec.errors import AuthError, Refused
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import TYPES, batched, numbered, planted, to_the_end

UPLOAD = {"gemini": "POST /upload/v1beta/files", "openai": "POST /v1/files"}
ONLINE = {"gemini": "POST :batchEmbedContents", "openai": "POST /v1/embeddings"}


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, of each type in turn."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


@pytest.fixture
def manager(lane: Resources) -> BatchManager:
    return BatchManager(lane)


async def test_a_job_that_can_not_be_sent_says_why_until_it_is_sent(
    lane: Resources, manager: BatchManager, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(5))
    fake.always(None, Fault.BUSY_503, endpoint=UPLOAD[(await lane.provider()).type])
    (job,) = (await manager.flush_queue()).jobs
    assert "503" in (job.error or "")
    (problem,) = (await manager.check_and_sync()).problems
    assert problem == f"job {job.id}: {job.error}"
    fake.heal()
    assert (await manager.check_and_sync()).problems == []
    assert (await manager.get(job)).error is None
    await to_the_end(lane, psql)


async def test_rows_that_no_job_could_do_and_that_wait_for_the_provider_are_named(
    lane: Resources, manager: BatchManager, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(4))
    fake.batches.outcome = "fail"
    await manager.flush_queue()
    fake.always(None, Fault.UNAUTHORIZED_401, endpoint=ONLINE[(await lane.provider()).type])
    for _ in range(9):
        synced = await manager.check_and_sync()
        if synced.online.skipped:
            break
    (problem,) = synced.problems
    assert problem.startswith("4 rows that no job could do wait to be embedded online: ")
    assert "key" in problem


async def test_what_was_taken_in_is_told_when_the_next_job_is_refused(
    lane: Resources, manager: BatchManager, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(6))
    await manager.flush_queue(max_batch_size=6)
    fake.batches.polls = 0
    await planted(psql, dataset.id, numbered(3, word="later"))
    fake.always(None, Fault.UNAUTHORIZED_401, endpoint=UPLOAD[(await lane.provider()).type])
    flushed, synced = await manager.process_queue()
    assert (synced.ready, flushed.jobs) == (6, [])
    assert synced.problems[-1].startswith("nothing was sent: ")
    with pytest.raises(AuthError):
        await manager.process_queue()


@pytest.mark.parametrize(
    ("least", "most", "rows", "jobs"), [(1, 10, 25, 3), (6, 10, 20, 2), (26, None, 0, 0), (25, None, 25, 1)]
)
async def test_a_plan_leaves_out_what_would_not_be_sent(
    manager: BatchManager, dataset: DatasetRef, psql: Any, least: int, most: int | None, rows: int, jobs: int
) -> None:
    await planted(psql, dataset.id, numbered(25))
    plan = await manager.flush_queue(least, most, dry_run=True)
    assert (plan.rows, plan.planned_jobs, plan.waiting) == (rows, jobs, 25)
    assert (plan.tokens > 0) == (rows > 0)
    assert (plan.reason is None) == (rows == 25)
    flushed = await manager.flush_queue(least, most)
    assert (flushed.rows, len(flushed.jobs), flushed.waiting) == (rows, jobs, 25 - rows)


async def test_a_plan_of_what_was_told_to_wait_counts_nothing_else(
    manager: BatchManager, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(25))
    plan = await manager.flush_queue(dry_run=True, only_deferred=True)
    assert (plan.rows, plan.tokens, plan.planned_jobs) == (0, 0, 0)


async def test_a_job_is_known_by_itself_by_its_id_and_by_its_name(
    manager: BatchManager, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(4))
    job, other = (await manager.flush_queue(max_batch_size=2)).jobs
    for known in (job, job.id, str(job.id), job.external_id):
        assert known is not None
        assert (await manager.get(known)).id == job.id
    assert (await manager.cancel(job)).status == JobStatus.CANCELLED
    assert (await manager.cancel(other.id)).status == JobStatus.CANCELLED
    with pytest.raises(Refused, match="limit is 0"):
        await manager.list(0)
