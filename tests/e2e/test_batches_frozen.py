"""SIGSTOP at points of a batch job's life: another process goes on after the lease, and the first one spoils nothing."""

from typing import Any

import pytest

from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.e2e.batches import ROWS, assert_as_if_nothing_had_happened, whoever
from tests.e2e.batching import LEASES_RUN_OUT, Program
from tests.e2e.rows import WIDTH
from tests.e2e.waiting import eventually
from tests.fakes.jobs import State
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import (
    assert_every_vector_is_right,
    assert_nothing_is_left,
    numbered,
    planted,
    to_the_end,
)


@whoever
@pytest.mark.parametrize("point", ["uploaded", "created", "downloading", "finished"])
async def test_a_process_freezes_and_another_one_finishes_its_job(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program, point: str
) -> None:
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    fake.batches.polls = 0
    async with program.started(point, "SIGSTOP") as told:
        if point in ("downloading", "finished"):
            await told.ask("flush")
        await told.obeys_until_frozen("flush" if point in ("uploaded", "created") else "sync")
        await psql.execute(LEASES_RUN_OUT)
        await to_the_end(lane, psql)
        before = await psql.fetch("SELECT * FROM batch_jobs ORDER BY id")
        await told.wakes()
    assert await psql.fetch("SELECT * FROM batch_jobs ORDER BY id") == before, "it wrote although it had lost the lease"
    await to_the_end(lane, psql)
    await assert_as_if_nothing_had_happened(psql, fake, texts)
    assert len(fake.batches.jobs) == 1


@whoever
async def test_a_request_that_comes_too_late_makes_a_job_that_is_withdrawn(
    lane: Resources, fake: FakeProvider, psql: Any, dataset: DatasetRef, program: Program
) -> None:
    """It froze between its last look at the lease and the request, where nothing can hold it back."""
    texts = numbered(ROWS)
    await planted(psql, dataset.id, texts)
    async with program.started("submitting", "SIGSTOP") as told:
        await told.obeys_until_frozen("flush")
        await psql.execute(LEASES_RUN_OUT)
        fake.batches.polls = 10_000

        async def sent_again() -> bool:
            return len((await BatchManager(lane).check_and_sync()).jobs) == 1 and len(fake.batches.jobs) == 1

        await eventually("another process has sent the job", sent_again)
        await told.wakes()
    first, late = fake.batches.jobs
    assert (first.state, late.state) != (State.CANCELLED, State.CANCELLED)
    assert late.state is State.CANCELLED
    fake.batches.polls = 0
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql, WIDTH) == len(texts)
    await assert_nothing_is_left(psql, fake, twins=[late])
