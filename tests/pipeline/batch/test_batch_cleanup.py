"""What a crash left at a provider: taken away when it is old, ours and of no open job, and nothing else is touched."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from evervec.domain.batch import BatchClient, Line, new_intent, remote_name
from evervec.pipeline.batch import cleanup
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.datasets import DatasetRef
from tests.fakes.faults import Fault
from tests.fakes.jobs import State
from tests.fakes.remote_files import RemoteFile
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import TYPES, assert_every_vector_is_right, batched, numbered, planted, to_the_end

OLD, YOUNG = timedelta(days=1, hours=1), timedelta(hours=23)


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, of each type."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


@pytest.fixture
async def client(lane: Resources) -> BatchClient:
    """Return the batch API that the pipeline uses."""
    return lane.clients.batch_client(await lane.provider())


@pytest.fixture
async def ours(lane: Resources) -> UUID:
    """Make an intent of this database that is not saved."""
    async with lane.database.read() as tx:
        return new_intent(await batch_jobs.database_tag(tx))


@pytest.fixture
def stranger(ours: UUID) -> UUID:
    """Make an intent of another database."""
    return new_intent(bytes(255 - byte for byte in ours.bytes[:4]))


async def left_behind(
    client: BatchClient, fake: FakeProvider, folder: Path, intent: UUID, age: timedelta = timedelta(0)
) -> str:
    """Upload a file of that age to the provider."""
    path = folder / "input.jsonl"
    path.write_bytes(client.line(Line("message:1", "left behind")))
    name = await client.upload(intent, path)
    remote_file(fake, name).created = datetime.now(UTC) - age
    return name


def remote_file(fake: FakeProvider, name: str) -> RemoteFile:
    return fake.batches.files[name.removeprefix("files/")]


def names(fake: FakeProvider, kept: Sequence[str]) -> bool:
    return sorted(fake.batches.files) == sorted(name.removeprefix("files/") for name in kept)


async def removed(lane: Resources) -> int:
    return await cleanup.remove_orphans(lane, await lane.provider())


async def test_an_old_file_of_ours_is_removed_and_a_young_one_kept(
    lane: Resources, client: BatchClient, fake: FakeProvider, tmp_path: Path, ours: UUID
) -> None:
    await left_behind(client, fake, tmp_path, ours, OLD)
    async with lane.database.read() as tx:
        young = await left_behind(client, fake, tmp_path, new_intent(await batch_jobs.database_tag(tx)), YOUNG)
    assert await removed(lane) == 1
    assert names(fake, [young])
    assert await removed(lane) == 0


async def test_what_another_database_left_is_none_of_our_business(
    lane: Resources, client: BatchClient, fake: FakeProvider, tmp_path: Path, stranger: UUID
) -> None:
    file = await left_behind(client, fake, tmp_path, stranger, OLD)
    await client.create_embedding_job(stranger, file)
    assert await removed(lane) == 0
    assert names(fake, [file])
    (job,) = fake.batches.jobs
    assert job.state is State.PENDING


async def test_files_with_names_that_are_not_ours_are_kept(
    lane: Resources, client: BatchClient, fake: FakeProvider, tmp_path: Path, monkeypatch: Any
) -> None:
    module = "gemini.batch" if (await lane.provider()).type == "gemini" else "openai.batch"
    monkeypatch.setattr(f"evervec.embedders.{module}.remote_name", lambda intent: f"theirs-{intent.hex[:20]}")
    file = await left_behind(client, fake, tmp_path, uuid4(), OLD)
    assert await removed(lane) == 0
    assert names(fake, [file])


async def test_a_running_job_of_ours_that_this_database_does_not_know_is_cancelled(
    lane: Resources, client: BatchClient, fake: FakeProvider, tmp_path: Path, ours: UUID
) -> None:
    file = await left_behind(client, fake, tmp_path, ours, OLD)
    await client.create_embedding_job(ours, file)
    assert await removed(lane) == 2
    (job,) = fake.batches.jobs
    assert job.state in (State.CANCELLED, State.CANCELLING)
    assert fake.batches.files == {}
    await client.get_job_status(next(iter([one async for one in client.jobs(datetime.now(UTC) - OLD)])).external_id)
    assert await removed(lane) == 0


async def test_the_file_and_the_job_of_an_open_job_are_never_touched(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(10))
    manager = BatchManager(lane)
    (job,) = (await manager.flush_queue()).jobs
    (name,) = fake.batches.files
    assert remote_name(job.id) in (name, fake.batches.files[name].filename.partition(".")[0])
    fake.batches.files[name].created = datetime.now(UTC) - OLD
    assert await removed(lane) == 0
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 10


async def test_remains_go_with_the_sync_in_which_a_job_ends(
    lane: Resources, client: BatchClient, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, ours: UUID
) -> None:
    await left_behind(client, fake, tmp_path, ours, OLD)
    await planted(psql, dataset.id, numbered(10))
    await BatchManager(lane).flush_queue()
    seen = await to_the_end(lane, psql)
    assert [synced.removed for synced in seen] == [0, 1]
    assert fake.batches.files == {}


async def test_a_provider_that_does_not_list_is_a_problem_and_no_failure(
    lane: Resources, client: BatchClient, fake: FakeProvider, tmp_path: Path, ours: UUID
) -> None:
    await left_behind(client, fake, tmp_path, ours, OLD)
    fake.fail_next(1, Fault.BUSY_503, endpoint="GET /v1*/files")
    synced = await BatchManager(lane).check_and_sync()
    assert (synced.removed, len(synced.problems)) == (0, 1)
    assert "cleaning up" in synced.problems[0]
    assert (await BatchManager(lane).check_and_sync()).removed == 1
