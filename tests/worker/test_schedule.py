"""What the scheduler sends and when; and the task of the batch lane, heard by a worker."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.errors import Refused
from evervec.pipeline.batch import router
from evervec.pipeline.resources import Resources
from evervec.queue import names
from evervec.queue.receiver import serve
from evervec.settings import Settings
from evervec.store.batch import batch_queue
from evervec.store.datasets import DatasetRef
from evervec.worker import tasks
from evervec.worker.schedule import schedules
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import batched, numbered, planted

PATIENCE = 60.0


def due(**settings: Any) -> dict[str, str | None]:
    """Return when each task is sent, by its name."""
    return {one.task_name: one.cron for one in schedules(Settings(**settings))}


def test_batches_are_left_alone_unless_somebody_says_when() -> None:
    assert names.PROCESS_BATCHES not in due()
    assert names.PROCESS_BATCHES not in due(batch_cron="off")
    assert due(batch_cron="*/30 * * * *")[names.PROCESS_BATCHES] == "*/30 * * * *"


def test_a_time_that_is_none_names_its_variable() -> None:
    with pytest.raises(Refused, match="EVERVEC_BATCH_CRON='nonsense' is not a time"):
        due(batch_cron="nonsense")
    with pytest.raises(Refused, match="EVERVEC_INDEX_CRON='nonsense' is not a time"):
        due(index_cron="nonsense")


def test_every_schedule_has_an_id_of_its_own() -> None:
    found = schedules(Settings(batch_cron="* * * * *"))
    assert len({one.schedule_id for one in found}) == len(found) == 3


@pytest.fixture
async def working(bare: Resources, fake: FakeProvider) -> AsyncIterator[Resources]:
    """Run a worker whose provider has a batch API, and that only hears the doorbell, without a sweep."""
    finish = asyncio.Event()
    async with batched(bare, fake, "gemini") as resources:
        tasks.attach(resources.broker, resources)
        resources.broker.is_worker_process = True
        await resources.broker.shutdown()
        await resources.broker.startup()
        running = asyncio.create_task(serve(resources.broker, max_async_tasks=4, wait_tasks_timeout=5, finish=finish))
        yield resources
        finish.set()
        await running


async def until(psql: Any, question: str, *values: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await psql.fetchval(question, *values):
            await asyncio.sleep(0.02)


async def test_the_task_sends_what_is_worth_a_job_and_takes_it_in_the_next_time(
    working: Resources, psql: Any, dataset: DatasetRef, fake: FakeProvider
) -> None:
    fake.batches.polls = 0
    await planted(psql, dataset.id, numbered(router.WORTH_A_JOB))
    async with working.database.transaction() as tx:
        await batch_queue.mark_datasets(tx, [dataset.id], hours=1)
    await planted(psql, dataset.id, ["nobody told this one to wait"])
    await tasks.process_batches_task.kiq()
    await until(
        psql, "SELECT count(*) = 1 FROM batch_jobs WHERE status = 'SUBMITTED' AND rows = $1", router.WORTH_A_JOB
    )
    await tasks.process_batches_task.kiq()
    await until(psql, "SELECT count(*) = $1 FROM embedding_status WHERE embedding_status = 'READY'", router.WORTH_A_JOB)


async def test_the_task_leaves_less_than_a_job_alone(
    working: Resources, psql: Any, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await planted(psql, dataset.id, numbered(router.WORTH_A_JOB - 1))
    answer = await tasks.process_batches_task(resources=working)
    assert (answer["sent"], answer["jobs"], answer["problems"]) == (0, [], [])
    assert fake.batches.jobs == []
