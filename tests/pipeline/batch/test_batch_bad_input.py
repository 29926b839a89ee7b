"""Bad input and bad luck of the batch lane: keys, models, providers and jobs that are not what they should be."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.domain.batch import JobStatus
from evervec.errors import (
    AuthError,
    ConfigError,
    NoBatchError,
    Refused,
    UnknownBatchJobError,
)
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.janitor import purge_deleted
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.jobs import State
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.accounting import assert_all_accounted, jobs
from tests.pipeline.batch.batched import (
    API_KEY,
    TYPES,
    add,
    assert_every_vector_is_right,
    assert_nothing_is_left,
    batched,
    numbered,
    online,
    planted,
    states,
    to_the_end,
)

FREE = "SELECT count(*) FROM embed_work WHERE lease_owner IS NOT NULL"


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, of each type."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


async def assert_nothing_was_lost(resources: Resources, fake: FakeProvider, psql: Any, count: int) -> None:
    """All rows wait and are free, no job is open, and once the trouble is over they are all embedded by jobs."""
    assert await states(psql) == {"PENDING": count}
    assert await psql.fetchval(FREE) == 0
    await assert_all_accounted(resources.database, psql)
    fake.heal()
    fake.api_key = None
    fake.unbatched.clear()
    assert (await BatchManager(resources).flush_queue()).rows == count
    await to_the_end(resources, psql)
    assert await assert_every_vector_is_right(psql) == count
    await assert_nothing_is_left(psql, fake)


@pytest.mark.parametrize("key", [None, "", " ", "k\nX-Other: 1", "schlüssel"])
@pytest.mark.parametrize("type_", TYPES)
async def test_a_provider_without_a_usable_key_is_not_kept(
    bare: Resources, fake: FakeProvider, type_: str, key: str | None
) -> None:
    async with batched(bare, fake, type_) as resources:
        with pytest.raises(ConfigError, match="key"):
            await add(resources, fake, type_, name="keyless", api_key=key)
        assert [one.name for one in await providers.listed(resources)] == [type_]


async def test_a_key_that_is_not_accepted_any_more_loses_nothing(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    fake.api_key = "another one"
    with pytest.raises(AuthError) as refused:
        await BatchManager(lane).flush_queue()
    assert API_KEY not in str(refused.value)
    (job,) = await jobs(lane.database)
    assert (job.status, job.stats["returned"]) == (JobStatus.CANCELLED, 20)
    assert "nothing was sent" in (job.error or "")
    assert API_KEY not in (job.error or "")
    await assert_nothing_was_lost(lane, fake, psql, 20)


async def test_a_key_that_stops_working_while_a_job_runs_is_told_and_the_job_kept(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    await manager.flush_queue()
    fake.api_key = "another one"
    synced = await manager.check_and_sync()
    assert (synced.running, len(synced.problems)) == (1, 1)
    assert "key" in synced.problems[0]
    assert API_KEY not in synced.problems[0]
    fake.api_key = None
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 20


@pytest.mark.parametrize("type_", ["local", "ollama"])
async def test_a_provider_without_a_batch_api_says_so_and_nothing_is_touched(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, type_: str
) -> None:
    model = {"local": None, "ollama": "embedder"}[type_]
    await providers.add(bare, ProviderDraft("plain", type_, base_url=None if model is None else fake.url, model=model))
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(bare)
    for dry_run in (True, False):
        with pytest.raises(NoBatchError, match=r"'plain' is of type .* gemini or openai"):
            await manager.flush_queue(dry_run=dry_run)
    synced = await manager.check_and_sync()
    assert (synced.jobs, synced.problems) == ([], [])
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
    assert (await embed_dataset(bare, dataset.id)).success == 20


async def test_a_gemini_model_without_batches_loses_nothing(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    async with batched(bare, fake, "gemini") as resources:
        await planted(psql, dataset.id, numbered(20))
        fake.unbatched.add("embedder")
        with pytest.raises(ConfigError, match="'embedder' can not do this"):
            await BatchManager(resources).flush_queue()
        (job,) = await jobs(resources.database)
        assert (job.status, job.stats["returned"]) == (JobStatus.CANCELLED, 20)
        await assert_nothing_was_lost(resources, fake, psql, 20)


async def test_an_openai_model_without_batches_is_told_by_its_job_and_ends_online(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    async with batched(bare, fake, "openai") as resources:
        await planted(psql, dataset.id, numbered(20))
        fake.unbatched.add("embedder")
        await BatchManager(resources).flush_queue()
        await to_the_end(resources, psql)
        told = await jobs(resources.database)
        assert [job.status for job in told] == [JobStatus.FAILED] * 3
        assert all("not available for batches" in (job.error or "") for job in told)
        assert await assert_every_vector_is_right(psql) == 20
        await assert_all_accounted(resources.database, psql)


@pytest.mark.parametrize("name", ["0" * 32, "no such job", "", "%", "batches/none", "\0", "ü" * 300, "'; --"])
async def test_a_job_that_is_not_there_is_named(
    lane: Resources, dataset: DatasetRef, psql: Any, fake: FakeProvider, name: str
) -> None:
    await planted(psql, dataset.id, numbered(2))
    manager = BatchManager(lane)
    await manager.flush_queue()
    for ask in (manager.get, manager.cancel):
        with pytest.raises(UnknownBatchJobError, match="evervec batch list"):
            await ask(name)
    (job,) = await jobs(lane.database)
    assert job.status is JobStatus.SUBMITTED


async def test_too_few_digits_for_one_job_cancel_none(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    first, second = (await manager.flush_queue(max_batch_size=10)).jobs
    for ask in (manager.get, manager.cancel):
        with pytest.raises(Refused, match="Several batch jobs begin with"):
            # what all jobs of one database begin with
            await ask(str(first.id)[:8])
    assert (await manager.get(str(first.id).upper())).id == first.id
    cancelled = await manager.cancel(str(second.id)[:14])
    assert (cancelled.id, cancelled.status) == (second.id, JobStatus.CANCELLED)
    with pytest.raises(Refused, match="is over already: it is CANCELLED"):
        await manager.cancel(str(second.id))
    assert (await manager.flush_queue()).rows == 10
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 20
    await assert_nothing_is_left(psql, fake)


async def test_a_dataset_that_is_deleted_takes_its_job_along(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    fake.batches.polls = 10**6
    manager = BatchManager(lane)
    await manager.flush_queue()
    await manager.check_and_sync()
    await psql.execute("UPDATE datasets SET deleted_at = now()")
    await manager.check_and_sync()
    (job,) = await jobs(lane.database)
    assert job.status is JobStatus.CANCELLED
    (remote,) = fake.batches.jobs
    assert remote.state in (State.CANCELLED, State.CANCELLING)
    fake.batches.polls = 0
    await to_the_end(lane, psql)
    assert await purge_deleted(lane.database) > 0
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    await assert_all_accounted(lane.database, psql)
    await assert_nothing_is_left(psql, fake)


async def test_a_dataset_that_is_only_marked_deleted_gets_no_vector_from_a_job_that_is_done(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    await manager.flush_queue()
    await manager.check_and_sync()
    await psql.execute("UPDATE projects SET deleted_at = now()")
    await to_the_end(lane, psql)
    assert (await manager.flush_queue()).jobs == []
    await purge_deleted(lane.database)
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    await assert_all_accounted(lane.database, psql)
    await assert_nothing_is_left(psql, fake)


async def test_a_removed_provider_gives_its_rows_to_the_next_one(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    (job,) = (await manager.flush_queue()).jobs
    type_ = (await lane.provider()).type
    await add(lane, fake, type_, name="another")
    await providers.remove(lane.database, type_)
    with pytest.raises(Refused, match="was removed"):
        await manager.cancel(str(job.id))
    synced = await manager.check_and_sync()
    assert synced.returned == 20
    job = await manager.get(str(job.id))
    assert (job.status, job.provider_id) == (JobStatus.FAILED, None)
    assert "removed" in (job.error or "")
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 20
    await assert_all_accounted(lane.database, psql)


@pytest.mark.parametrize("type_", ["local", "ollama", *TYPES])
async def test_a_provider_that_becomes_another_type_while_its_job_runs_loses_no_row(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, type_: str
) -> None:
    was = await lane.provider()
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    await manager.flush_queue()
    if type_ == "local":
        await providers.add(lane, ProviderDraft(was.name, "local"))
    else:
        await add(lane, fake, type_, name=was.name)
    await to_the_end(lane, psql)
    if (await states(psql))["PENDING"]:
        if type_ in TYPES:
            await manager.flush_queue()
            await to_the_end(lane, psql)
        else:
            await embed_dataset(lane, dataset.id)
    assert await states(psql) == {"READY": 20}
    await assert_all_accounted(lane.database, psql)
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_a_page_of_a_proxy_is_no_job(lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any) -> None:
    await planted(psql, dataset.id, numbered(20))
    manager = BatchManager(lane)
    await manager.flush_queue()
    fake.always(None, Fault.HTML_200, endpoint="v1")
    synced = await manager.check_and_sync()
    assert (synced.running, len(synced.problems)) == (1, 1)
    assert "<html>" not in synced.problems[0]
    fake.heal()
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 20
    await assert_nothing_is_left(psql, fake)


async def test_a_text_that_is_longer_than_the_model_takes_is_embedded_online(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await psql.execute("UPDATE embedding_spaces SET text_tokens = 200")
    long = " ".join(f"word{place}" for place in range(300))
    await planted(psql, dataset.id, [*numbered(20), long, *numbered(20, "other")])
    assert (await BatchManager(lane).flush_queue()).rows == 40
    assert long not in fake.batches.texts_paid()
    await embed_dataset(lane, dataset.id)
    await to_the_end(lane, psql)
    assert await states(psql) == {"READY": 41}
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE windows > 1") == 1
    assert set(online(fake)) == {text for text in online(fake) if text in long}
