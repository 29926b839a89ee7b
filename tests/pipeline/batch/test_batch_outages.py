"""A provider that is out for one request, at whichever endpoint: nothing is lost or paid twice, the next call goes on."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.domain.batch import JobStatus
from evervec.errors import EvervecError, ProviderError
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.accounting import assert_all_accounted, jobs
from tests.pipeline.batch.batched import (
    assert_every_vector_is_right,
    assert_nothing_is_left,
    assert_paid_once,
    batched,
    numbered,
    planted,
    states,
)

ENDPOINTS = {
    "gemini": (
        "POST /upload/v1beta/files",
        "POST /upload/v1beta/files/bytes",
        "POST :asyncBatchEmbedContent",
        "GET /v1beta/batches/*",
        "GET :download",
        "DELETE /v1beta/files/*",
        "DELETE /v1beta/batches/*",
        "GET /v1beta/files",
        "GET /v1beta/batches",
    ),
    "openai": (
        "POST /v1/files",
        "POST /v1/batches",
        "GET /v1/batches/*",
        "GET /v1/files/*/content",
        "DELETE /v1/files/*",
        "GET /v1/files",
        "GET /v1/batches",
    ),
}
DOWNLOADS = ("GET :download", "GET /v1/files/*/content")
FAULTS = (
    Fault.BUSY_503,
    Fault.RATE_LIMITED_429,
    Fault.RESET,
    Fault.HTML_200,
    Fault.LOST_ANSWER,
    Fault.DONE_BUT_500,
    Fault.RESET_MID_BODY,
    Fault.TRUNCATED_JSON,
)
ENOUGH = 8
"""Calls after which everything is done, if the next one always goes on where the last one stopped."""


@pytest.fixture
async def gemini(bare: Resources, fake: FakeProvider) -> AsyncIterator[Resources]:
    """Gemini, and no patience with what was asked for and is not listed."""
    async with batched(bare, fake, "gemini", batch_grace_seconds=0) as resources:
        yield resources


@pytest.fixture
async def openai(bare: Resources, fake: FakeProvider) -> AsyncIterator[Resources]:
    """OpenAI, as impatient."""
    async with batched(bare, fake, "openai", batch_grace_seconds=0) as resources:
        yield resources


async def worked_off(resources: Resources, psql: Any) -> None:
    """Call flush and sync as a schedule would, whatever they raise, until nothing waits and nothing is open."""
    manager = BatchManager(resources)
    for _ in range(ENOUGH):
        try:
            await manager.process_queue()
        except EvervecError as error:
            # a message for a person, of the one kind that a provider's trouble has
            assert isinstance(error, ProviderError), error
        await assert_all_accounted(resources.database, psql)
        if not (await states(psql))["PENDING"] and all(job.cleaned_at for job in await jobs(resources.database)):
            return
    raise AssertionError(f"not done after {ENOUGH} calls: {await jobs(resources.database)}")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("endpoint", ENDPOINTS["gemini"])
async def test_gemini_is_out_once(
    gemini: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, endpoint: str, fault: Fault
) -> None:
    await is_out_once(gemini, fake, dataset, psql, endpoint, fault)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("endpoint", ENDPOINTS["openai"])
async def test_openai_is_out_once(
    openai: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, endpoint: str, fault: Fault
) -> None:
    await is_out_once(openai, fake, dataset, psql, endpoint, fault)


async def is_out_once(
    resources: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, endpoint: str, fault: Fault
) -> None:
    """One request to an endpoint fails; all else goes well."""
    texts = numbered(20)
    await planted(psql, dataset.id, texts)
    fake.fail_next(1, fault, endpoint=endpoint)
    await worked_off(resources, psql)
    assert [request.fault for request in fake.requests if request.fault] == [fault]
    assert await assert_every_vector_is_right(psql) == 20
    await assert_nothing_is_left(psql, fake)
    # a file of results that ends early, and by all signs well, is one with missing lines: those are bought again
    if fault is not Fault.TRUNCATED_JSON or endpoint not in DOWNLOADS:
        assert_paid_once(fake, texts)


@pytest.mark.parametrize("fault", [Fault.BUSY_503, Fault.RESET, Fault.HTML_200])
@pytest.mark.parametrize("type_", ["gemini", "openai"])
async def test_a_provider_that_is_out_altogether_is_named_and_everything_is_kept(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, type_: str, fault: Fault
) -> None:
    async with batched(bare, fake, type_, batch_grace_seconds=0) as resources:
        texts = numbered(20)
        await planted(psql, dataset.id, texts)
        manager = BatchManager(resources)
        (job,) = (await manager.flush_queue(max_batch_size=10)).jobs[:1]
        fake.always(None, fault, endpoint="v1")
        for _ in range(3):
            synced = await manager.check_and_sync()
            assert (synced.running, len(synced.problems)) == (2, 2)
            assert str(job.id) in synced.problems[0]
            assert (synced.ready, synced.returned, synced.again) == (0, 0, [])
        fake.heal()
        await worked_off(resources, psql)
        assert await assert_every_vector_is_right(psql) == 20
        await assert_nothing_is_left(psql, fake)
        assert_paid_once(fake, texts)


@pytest.mark.parametrize(("type_", "upload"), [("gemini", "POST /upload/v1beta/files"), ("openai", "POST /v1/files")])
async def test_rows_that_can_not_be_sent_until_their_deadline_are_embedded_at_once(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, type_: str, upload: str
) -> None:
    async with batched(bare, fake, type_) as resources:
        await planted(psql, dataset.id, numbered(20))
        fake.always(None, Fault.BUSY_503, endpoint=upload)
        manager = BatchManager(resources)
        flushed = await manager.flush_queue()
        assert (flushed.jobs[0].status, flushed.waiting) == (JobStatus.CREATED, 0)
        assert "the last job is not sent yet" in (flushed.reason or "")
        assert (await manager.check_and_sync()).running == 1
        # as it is after fifty hours in which no file could be uploaded
        await psql.execute("UPDATE batch_jobs SET created_at = now() - interval '51 hours', deadline = now()")
        await psql.execute("UPDATE embed_work SET not_before = now()")
        await manager.check_and_sync()
        assert await assert_every_vector_is_right(psql) == 20
        await assert_all_accounted(resources.database, psql)
        assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
