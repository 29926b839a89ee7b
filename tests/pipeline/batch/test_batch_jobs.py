"""The batch lane when all goes well: how what waits is cut into jobs, what is never sent, and what a plan promises."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from evervec.domain.batch import JobStatus, JobType
from evervec.errors import NoBatchError, Refused, UnknownDatasetError
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import fill
from evervec.pipeline.upkeep.sweep import embed_waiting
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import tokens
from tests.pipeline.batch.accounting import assert_all_accounted, jobs
from tests.pipeline.batch.batched import (
    NOBODYS,
    PRICE,
    TYPES,
    add,
    assert_every_vector_is_right,
    assert_nothing_is_left,
    assert_paid_once,
    batched,
    limited,
    numbered,
    planted,
    states,
    to_the_end,
)


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API, of each type."""
    async with batched(bare, fake, request.param) as resources:
        yield resources


async def assert_all_done(resources: Resources, psql: Any, fake: FakeProvider, texts: list[str]) -> None:
    """Every row has its vector, every text was paid once and in a job, nothing is left anywhere."""
    await to_the_end(resources, psql)
    assert await assert_every_vector_is_right(psql) == len(texts)
    assert_paid_once(fake, sorted(set(texts)))
    assert not set(fake.texts_sent()) - NOBODYS
    await assert_all_accounted(resources.database, psql)
    await assert_nothing_is_left(psql, fake)


async def test_the_life_of_a_job(lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any) -> None:
    texts = numbered(50)
    await planted(psql, dataset.id, texts)
    manager = BatchManager(lane)
    flushed = await manager.flush_queue()
    (sent,) = flushed.jobs
    provider = await lane.provider()
    assert (sent.job_type, sent.status, sent.model) == (JobType.EMBEDDING, JobStatus.SUBMITTED, "embedder")
    assert (sent.provider_id, sent.space_id) == (provider.id, provider.space.id)
    assert sent.external_id
    assert sent.stats["rows"] == sent.stats["texts"] == 50
    assert sent.stats["bytes"] > 50 * 20
    (remote,) = fake.batches.jobs
    assert remote.lines == [(f"message:{n}", text) for n, text in enumerate(texts, 1)]
    assert (flushed.rows, flushed.waiting, flushed.reason) == (50, 0, None)

    first = await manager.check_and_sync()
    assert ([job.status for job in first.jobs], first.running) == ([JobStatus.PROCESSING], 1)
    last = await manager.check_and_sync()
    assert (last.ready, last.failed, last.running, last.problems, last.again) == (50, 0, 0, [], [])
    (done,) = last.jobs
    assert (done.status, done.error) == (JobStatus.COMPLETED, None)
    assert done.cleaned_at is not None
    assert await manager.get(str(done.id)) == await manager.get(done.id.hex[:8]) == done
    assert await manager.get(str(done.external_id)) == done
    assert (await manager.list()) == [done]
    quiet = len(fake.requests)
    assert (await manager.check_and_sync()).jobs == []
    assert not [one for one in fake.requests[quiet:] if one.method != "GET"]
    await assert_all_done(lane, psql, fake, texts)


async def test_process_queue_takes_in_what_is_done_and_sends_what_waits(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    fake.batches.polls = 0
    texts = numbered(30)
    await planted(psql, dataset.id, texts[:10])
    flushed, synced = await BatchManager(lane).process_queue()
    assert (flushed.rows, synced.ready) == (10, 0)
    await planted(psql, dataset.id, texts[10:])
    flushed, synced = await BatchManager(lane).process_queue(min_batch_size=5, max_batch_size=15)
    assert ([job.stats["rows"] for job in flushed.jobs], synced.ready) == ([15, 5], 10)
    await assert_all_done(lane, psql, fake, texts)


@pytest.mark.parametrize(("limit", "sizes"), [(30, [30, 30, 30, 10]), (100, [100]), (99, [99, 1])])
async def test_a_job_has_as_many_rows_as_the_provider_takes(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, monkeypatch: Any, limit: int, sizes: list[int]
) -> None:
    await limited(lane, monkeypatch, rows=limit)
    texts = numbered(100)
    await planted(psql, dataset.id, texts)
    flushed = await BatchManager(lane).flush_queue()
    assert [job.stats["rows"] for job in flushed.jobs] == sizes
    await assert_all_done(lane, psql, fake, texts)


async def takes_any_length(psql: Any) -> None:
    """Let the model take texts of any length: what is too long for it goes online, and not into a job."""
    await psql.execute("UPDATE embedding_spaces SET text_tokens = NULL")


async def test_a_job_is_as_large_in_bytes_as_the_provider_takes(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, monkeypatch: Any
) -> None:
    await limited(lane, monkeypatch, bytes=6_000)
    await takes_any_length(psql)
    # umlauts take two bytes each in the file, and one text is too large for any job
    texts = [f"{text} {'ü' * 300}" for text in numbered(20)] + ["ä" * 9_000]
    await planted(psql, dataset.id, texts)
    flushed = await BatchManager(lane).flush_queue()
    sizes = [job.stats["bytes"] for job in flushed.jobs]
    assert sizes == [job.path.stat().st_size for job in fake.batches.jobs]
    large = [job for job in flushed.jobs if job.stats["bytes"] > 6_000]
    assert [(job.stats["rows"], job.stats["bytes"] > 18_000) for job in large] == [(1, True)]
    assert min(sizes[:-2]) > 5_000
    await assert_all_done(lane, psql, fake, texts)


async def test_a_job_has_as_many_tokens_as_the_provider_takes(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, monkeypatch: Any
) -> None:
    await limited(lane, monkeypatch, tokens=1_000, queued_tokens=None)
    await takes_any_length(psql)
    texts = [f"{text} {'word ' * 100}" for text in numbered(20)] + ["much " * 2_000]
    await planted(psql, dataset.id, texts)
    flushed = await BatchManager(lane).flush_queue()
    assert [job.stats["rows"] for job in flushed.jobs if job.stats["tokens"] > 1_000] == [1]
    assert len(flushed.jobs) > 3
    assert flushed.tokens == sum(job.stats["tokens"] for job in flushed.jobs) >= sum(map(tokens, texts))
    await assert_all_done(lane, psql, fake, texts)


@pytest.mark.parametrize("limits", [{"jobs": 2, "rows": 40}, {"queued_tokens": 300}])
async def test_a_full_provider_gets_no_more_until_something_is_done(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, monkeypatch: Any, limits: dict[str, int]
) -> None:
    await limited(lane, monkeypatch, **limits)
    texts = numbered(100)
    await planted(psql, dataset.id, texts)
    manager = BatchManager(lane)
    flushed = await manager.flush_queue()
    assert 0 < flushed.rows < 100
    assert flushed.waiting == 100 - flushed.rows
    assert "no room for another job until some are done" in (flushed.reason or "")
    again = await manager.flush_queue()
    assert (again.jobs, again.reason) == ([], flushed.reason)
    plan = await manager.flush_queue(dry_run=True)
    assert (plan.planned_jobs, plan.reason) == (0, flushed.reason)
    while (await states(psql))["PENDING"]:
        await to_the_end(lane, psql)
        await manager.flush_queue()
    await assert_all_done(lane, psql, fake, texts)


@pytest.mark.parametrize("quota", [{"most_jobs": 2}, {"most_tokens": 200}])
async def test_a_provider_that_says_enough_keeps_its_jobs_and_the_rest_waits(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, quota: dict[str, int]
) -> None:
    fake.batches.wish(**quota)
    texts = numbered(100)
    await planted(psql, dataset.id, texts)
    manager = BatchManager(lane)
    flushed = await manager.flush_queue(max_batch_size=30)
    assert 0 < flushed.rows < 100
    assert flushed.waiting == 100 - flushed.rows
    assert "takes no more for now" in (flushed.reason or "")
    assert all(job.status is JobStatus.SUBMITTED for job in flushed.jobs)
    refused = [job for job in await jobs(lane.database) if job.status is JobStatus.CANCELLED]
    assert [job.stats["returned"] for job in refused] == [30]
    while (await states(psql))["PENDING"]:
        await to_the_end(lane, psql)
        await manager.flush_queue(max_batch_size=30)
    await assert_all_done(lane, psql, fake, texts)


async def test_a_small_rest_of_a_quota_makes_no_small_job(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, monkeypatch: Any
) -> None:
    texts = numbered(100)
    await planted(psql, dataset.id, texts)
    manager = BatchManager(lane)
    whole = await manager.flush_queue()
    # one token more than these have: the next text would not even fit
    await limited(lane, monkeypatch, queued_tokens=whole.jobs[0].stats["reserved_tokens"] + 1)
    await planted(psql, dataset.id, numbered(50, "more"))
    assert (await manager.flush_queue(min_batch_size=10)).jobs == []
    await to_the_end(lane, psql)
    flushed = await manager.flush_queue(min_batch_size=10)
    assert [job.stats["rows"] for job in flushed.jobs] == [50]
    await assert_all_done(lane, psql, fake, [*texts, *numbered(50, "more")])


async def test_equal_texts_are_sent_once_and_every_row_gets_the_vector(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = [*numbered(20), *["the same words"] * 30]
    await planted(psql, dataset.id, texts)
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, flushed.texts, len(fake.batches.jobs[0].lines)) == (50, 21, 21)
    await assert_all_done(lane, psql, fake, texts)


async def test_a_text_that_is_embedded_already_is_copied_and_not_sent(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = numbered(10)
    await planted(psql, dataset.id, texts)
    await embed_dataset(lane, dataset.id)
    async with lane.database.transaction() as tx:
        elsewhere = await datasets.ensure(tx, "other", "copy")
    await planted(psql, elsewhere.id, [*texts, "one more"])
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.reused, flushed.rows, flushed.waiting) == (10, 1, 0)
    assert [text for job in fake.batches.jobs for _, text in job.lines] == ["one more"]
    await to_the_end(lane, psql)
    assert await assert_every_vector_is_right(psql) == 21
    assert_paid_once(fake, [*texts, "one more"])


async def test_a_text_that_a_job_is_about_to_bring_waits_for_it_and_says_so(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, ["the same words"])
    manager = BatchManager(lane)
    await manager.flush_queue()
    await planted(psql, dataset.id, ["the same words"])
    flushed = await manager.flush_queue()
    assert (flushed.jobs, flushed.waiting) == ([], 1)
    assert flushed.reason
    await to_the_end(lane, psql)
    assert (await manager.flush_queue()).reused == 1
    await assert_all_done(lane, psql, fake, ["the same words"] * 2)


async def test_fewer_rows_than_a_job_should_have_stay_and_say_so(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = numbered(25)
    await planted(psql, dataset.id, texts)
    manager = BatchManager(lane)
    flushed = await manager.flush_queue(min_batch_size=26)
    assert (flushed.jobs, flushed.waiting) == ([], 25)
    assert "25 rows wait, and a job has to have 26" in (flushed.reason or "")
    flushed = await manager.flush_queue(min_batch_size=6, max_batch_size=10)
    assert ([job.stats["rows"] for job in flushed.jobs], flushed.waiting) == ([10, 10], 5)
    assert "5 rows wait, and a job has to have 6" in (flushed.reason or "")
    assert (await manager.flush_queue(min_batch_size=5)).rows == 5
    await assert_all_done(lane, psql, fake, texts)


async def test_only_the_dataset_that_was_named_is_sent(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    async with lane.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "banks")
    await planted(psql, dataset.id, numbered(10))
    await planted(psql, other.id, numbered(5, "bank"))
    manager = BatchManager(lane)
    flushed = await manager.flush_queue(dataset="river/banks")
    assert (flushed.rows, flushed.waiting) == (5, 0)
    assert {text for _, text in fake.batches.jobs[0].lines} == set(numbered(5, "bank"))
    with pytest.raises(UnknownDatasetError, match="nowhere"):
        await manager.flush_queue(dataset="nowhere")
    assert (await manager.flush_queue()).rows == 10
    await assert_all_done(lane, psql, fake, [*numbered(10), *numbered(5, "bank")])


async def test_a_dry_run_tells_what_would_be_sent_and_sends_and_writes_nothing(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = [f"{text} carries considerably lengthier words throughout" for text in numbered(100)]
    await planted(psql, dataset.id, texts)
    asked = len(fake.requests)
    manager = BatchManager(lane)
    plan = await manager.flush_queue(max_batch_size=30, dry_run=True)
    assert await psql.fetchval("SELECT count(*) FROM batch_jobs") == 0
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
    assert len(fake.requests) == asked
    assert (plan.jobs, plan.rows, plan.waiting, plan.planned_jobs) == ([], 100, 100, 4)
    assert plan.tokens == pytest.approx(sum(map(len, texts)) / 4, abs=1)
    assert plan.online_usd == pytest.approx(plan.tokens * PRICE / 1e6)
    assert plan.deferred_usd == pytest.approx(plan.tokens * PRICE / 2e6)
    flushed = await manager.flush_queue(max_batch_size=30)
    assert len(flushed.jobs) == plan.planned_jobs
    # a plan guesses from the length, what is sent is counted on the high side
    assert plan.tokens <= flushed.tokens <= 3 * plan.tokens
    assert flushed.deferred_usd == pytest.approx(sum(job.cost_usd or 0 for job in flushed.jobs))
    assert flushed.online_usd == pytest.approx(2 * (flushed.deferred_usd or 0))
    await assert_all_done(lane, psql, fake, texts)


async def test_a_plan_speaks_of_the_dataset_that_was_named_and_of_what_is_not_in_a_job(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    async with lane.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "banks")
    await planted(psql, dataset.id, numbered(10))
    manager = BatchManager(lane)
    await manager.flush_queue()
    await planted(psql, other.id, ["twelve chars"])
    plan = await manager.flush_queue(dry_run=True)
    assert (plan.rows, plan.tokens) == (1, 3)
    assert (await manager.flush_queue(dataset="river/log", dry_run=True)).planned_jobs == 0


async def test_without_a_price_nothing_is_said_about_money(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await add(lane, fake, (await lane.provider()).type, usd_per_million_tokens=None)
    await planted(psql, dataset.id, numbered(3))
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.online_usd, flushed.deferred_usd, flushed.jobs[0].cost_usd) == (None, None, None)


@pytest.mark.parametrize("sizes", [(0, None), (-1, None), (5, 4), (1, 0)])
async def test_sizes_that_can_not_be_are_refused(lane: Resources, sizes: tuple[int, int | None]) -> None:
    with pytest.raises(Refused, match="can not have"):
        await BatchManager(lane).flush_queue(*sizes)


async def test_an_empty_queue_sends_nothing(lane: Resources, fake: FakeProvider, psql: Any) -> None:
    asked = len(fake.requests)
    flushed, synced = await BatchManager(lane).process_queue()
    assert (flushed.jobs, flushed.rows, flushed.waiting) == ([], 0, 0)
    assert (synced.jobs, synced.running, synced.problems) == ([], 0, [])
    assert not [one for one in fake.requests[asked:] if one.method != "GET"]
    assert await psql.fetchval("SELECT count(*) FROM batch_jobs") == 0


async def test_three_thousand_rows_are_told_step_by_step(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = numbered(3_000)
    await planted(psql, dataset.id, texts)
    told: list[int] = []
    flushed = await BatchManager(lane).flush_queue(max_batch_size=1_200, progress=told.append)
    assert [job.stats["rows"] for job in flushed.jobs] == [1_200, 1_200, 600]
    assert (sum(told), len(told) >= 3) == (3_000, True)
    await assert_all_done(lane, psql, fake, texts)


async def test_another_model_may_embed_everything_again_at_half_the_price(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    texts = numbered(40)
    await planted(psql, dataset.id, texts)
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    type_ = (await lane.provider()).type
    await providers.add(
        lane, ProviderDraft("next", type_, base_url=fake.url, model="wider", api_key="k", dimensions=48), activate=False
    )
    online = len(fake.requests)
    await providers.use(lane, "next", reembed=True, by_batch=True)
    await fill(lane, whole=True)
    assert (await embed_waiting(lane)).sent == 0, "no worker takes what is kept for a job"
    assert not [text for request in fake.requests[online:] for text in request.texts if text in texts]
    assert await assert_every_vector_is_right(psql) == len(texts), (
        "the former space is searched until the jobs are done"
    )
    await planted(psql, dataset.id, ["written meanwhile"])
    await embed_dataset(lane, dataset.id)
    await fill(lane, whole=True)
    assert (await BatchManager(lane).flush_queue(only_deferred=True)).rows == len(texts)
    await to_the_end(lane, psql)
    await fill(lane, whole=True)
    assert await assert_every_vector_is_right(psql, width=48, model="wider") == len(texts) + 1
    assert (await states(psql))["READY"] == len(texts) + 1
    await providers.add(lane, ProviderDraft("plain", "local"), activate=False)
    with pytest.raises(NoBatchError):
        await providers.use(lane, "plain", reembed=True, by_batch=True)
    assert (await lane.provider()).name == "next"
