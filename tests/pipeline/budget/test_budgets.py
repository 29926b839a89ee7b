"""Budgets: a ceiling holds whoever sends, a pace is shared, and what was used is what the provider counted."""

import asyncio
from time import monotonic
from typing import Any

import pytest

from evervec.domain.limits import LIMITS, Limits, limit_reached
from evervec.errors import Refused
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.budget import questions, setting
from evervec.pipeline.budget.allowance import closed
from evervec.pipeline.budget.setting import BudgetOwner
from evervec.pipeline.embedding.embed import embed_dataset, embed_rows
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.pipeline.upkeep import backfill
from evervec.store import datasets
from evervec.store.budget import budgets
from evervec.store.budget.budgets import Budget, Grant
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import MESSAGE
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import tokens
from tests.pipeline.batch.batched import batched
from tests.pipeline.embedding.test_embed import coverage, save

FAKE = BudgetOwner(provider="fake")
LONG = "a text of several words that is long enough to be worth counting "


def texts(count: int, word: str = LONG) -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def told(fake: FakeProvider) -> int:
    """Return the tokens of everything that the fake was sent."""
    return sum(tokens(text) * times for text, times in fake.texts_sent().items())


async def budget(resources: Resources) -> Budget:
    (found,) = await setting.listed(resources)
    return found


async def take(resources: Resources, wanted: int, *, whatever: bool = False) -> Grant:
    provider = await resources.provider()
    async with resources.database.transaction() as tx:
        return await budgets.take(
            tx, provider.id, {None: wanted}, usd_per_token=0.0, longest_wait=60, whatever=whatever
        )


async def test_a_ceiling_stops_the_embedding_and_says_so(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await save(resources, dataset, texts(100))
    await setting.set_(resources, FAKE, Limits(tokens_per_day=800))
    report = await backfill.run(resources)
    assert 300 < told(fake) <= 800
    assert (report.embedded + report.pending, report.failed, report.closed) == (100, 0, True)
    assert report.reason is not None and "800 tokens a day" in report.reason and "opens again at" in report.reason
    calls = fake.calls()
    assert (await embed_dataset(resources, dataset.id)).success == 0
    assert fake.calls() == calls


async def test_what_fits_under_a_ceiling_is_still_sent(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, ["tiny", *texts(1, LONG * 50)])
    await setting.set_(resources, FAKE, Limits(tokens_per_day=100))
    assert (await embed_dataset(resources, dataset.id)).success == 1


async def test_many_workers_never_take_more_than_there_is(resources: Resources, dataset: DatasetRef) -> None:
    probed = (await setting.set_(resources, FAKE, Limits(tokens_per_day=1_000))).day_tokens
    grants = await asyncio.gather(*(take(resources, 70) for _ in range(40)))
    granted = (1_000 - probed) // 70
    assert sum(grant.granted for grant in grants) == granted
    assert {grant.ceiling for grant in grants if not grant.granted} == {"tokens_per_day"}
    assert (await budget(resources)).day_tokens == probed + granted * 70


async def test_a_ceiling_that_is_raised_lets_the_rest_go(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, texts(30))
    await setting.set_(resources, FAKE, Limits(tokens_per_month=120))
    await embed_dataset(resources, dataset.id)
    used = await setting.set_(resources, FAKE, Limits(tokens_per_month=100_000))
    assert (used.closed_by, 0 < used.month_tokens <= 120) == (None, True)
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).embedded == 30


async def test_a_new_day_opens_the_ceiling(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await save(resources, dataset, texts(30))
    await setting.set_(resources, FAKE, Limits(tokens_per_day=100))
    await embed_dataset(resources, dataset.id)
    await psql.execute("UPDATE budgets SET day = day - 1, closed_until = now()")
    assert (await embed_dataset(resources, dataset.id)).success > 0


async def test_dollars_are_a_ceiling_too(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await psql.execute("UPDATE llm_providers SET usd_per_million_tokens = 1000")
    await psql.execute("DELETE FROM spend")
    await save(resources, dataset, texts(60))
    await setting.set_(resources, FAKE, Limits(usd_per_day=0.5))
    await embed_dataset(resources, dataset.id)
    found = await budget(resources)
    assert (found.closed_by, 0.2 < found.day_usd <= 0.5) == ("usd_per_day", True)
    assert found.day_usd == pytest.approx(found.day_tokens / 1000)


async def test_the_ceiling_of_one_dataset_stops_no_other(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    async with resources.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "other")
    first = await save(resources, dataset, texts(40))
    second = await save(resources, other, texts(40, "something else"))
    await setting.set_(resources, BudgetOwner(dataset="river/log"), Limits(tokens_per_day=50))
    await embed_rows(resources, MESSAGE, [*first, *second])
    await embed_dataset(resources, dataset.id)
    await embed_dataset(resources, other.id)
    assert (await coverage(resources, dataset)).pending > 30
    assert (await coverage(resources, other)).embedded == 40
    assert await closed(resources.database, await resources.provider(), other.id) is None


async def test_a_search_is_answered_and_counted_whatever_was_used(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, ["one"])
    await embed_dataset(resources, dataset.id)
    await setting.set_(resources, FAKE, Limits(tokens_per_day=0, requests_per_minute=1))
    for _ in range(3):
        assert (await search(resources, "one")).hits
    assert (await budget(resources)).day_tokens > 0
    await questions.write(resources)


async def test_what_was_sent_before_the_budget_counts(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, texts(10))
    await embed_dataset(resources, dataset.id)
    assert (await setting.set_(resources, FAKE, Limits(tokens_per_day=10_000))).day_tokens > 100


async def test_what_is_used_is_what_the_provider_counted(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await setting.set_(resources, FAKE, Limits(tokens_per_day=100_000))
    await save(resources, dataset, texts(20))
    await embed_dataset(resources, dataset.id)
    assert (await budget(resources)).day_tokens == told(fake)


async def test_a_request_that_was_refused_is_given_back(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    before = await setting.set_(resources, FAKE, Limits(tokens_per_day=100_000))
    await save(resources, dataset, texts(20))
    fake.always(None, Fault.RATE_LIMITED_429, retry_after="1")
    await embed_dataset(resources, dataset.id)
    assert (await budget(resources)).day_tokens == before.day_tokens


async def test_the_pace_is_shared_and_each_request_knows_its_turn(resources: Resources) -> None:
    began = monotonic()
    await setting.set_(resources, FAKE, Limits(requests_per_minute=60))
    waits = sorted(grant.wait for grant in await asyncio.gather(*(take(resources, 1) for _ in range(10))))
    # whoever asks later waits less, by as much as it was later
    assert waits == pytest.approx(range(10), abs=monotonic() - began + 0.5)
    assert not (await take(resources, 1_000_000, whatever=False)).ceiling


async def test_tokens_have_a_pace_of_their_own(resources: Resources) -> None:
    began = monotonic()
    await setting.set_(resources, FAKE, Limits(tokens_per_minute=600))
    assert (await take(resources, 300)).wait == 0  # more than a second brings: taken in advance
    assert (await take(resources, 10)).wait == pytest.approx(30, abs=monotonic() - began + 0.5)
    late = await take(resources, 600)
    assert (late.granted, late.wait > 25 - (monotonic() - began)) == (True, True)
    far = await take(resources, 10)
    assert (far.granted, far.ceiling) == (False, None)
    assert (await budget(resources)).closed_by == "tokens_per_minute"


async def test_a_provider_that_refuses_is_asked_half_as_often(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await setting.set_(resources, FAKE, Limits(requests_per_minute=6000))
    await save(resources, dataset, texts(5))
    fake.always(None, Fault.RATE_LIMITED_429, retry_after="60")
    await embed_dataset(resources, dataset.id)
    slowed = (await budget(resources)).share  # the other claim may have been on its way, and refused after this one
    assert 0.24 < slowed < 0.52
    await psql.execute("UPDATE budgets SET filled_at = now() - interval '5 minutes'")
    assert (await budget(resources)).share == pytest.approx(slowed + 0.25, abs=0.02)


async def test_limits_that_can_not_be_held_are_refused(resources: Resources, dataset: DatasetRef) -> None:
    of_dataset = BudgetOwner(dataset="river/log")
    for owner, limits, word in (
        (BudgetOwner(), Limits(tokens_per_day=1), "either --provider NAME or --dataset NAME"),
        (BudgetOwner("fake", "river/log"), Limits(tokens_per_day=1), "either --provider NAME or --dataset NAME"),
        (FAKE, Limits(), "No limit is given"),
        (FAKE, Limits(requests_per_minute=0), "--requests-per-minute 0"),
        (FAKE, Limits(usd_per_day=-1.0), "--usd-per-day -1.0"),
        (FAKE, Limits(usd_per_day=float("nan")), "--usd-per-day nan"),
        (of_dataset, Limits(requests_per_minute=5), "belongs to a provider"),
    ):
        with pytest.raises(Refused, match=word):
            await setting.set_(resources, owner, limits)
    with pytest.raises(Refused, match="no limit 'hours'"):
        await setting.set_(resources, FAKE, Limits(tokens_per_day=1), without=("hours",))
    with pytest.raises(Refused, match="has no budget"):
        await setting.remove(resources, FAKE)


async def test_one_limit_is_changed_or_lifted_and_the_others_stay(resources: Resources) -> None:
    await setting.set_(resources, FAKE, Limits(tokens_per_day=5, usd_per_month=2.0))
    changed = await setting.set_(resources, FAKE, Limits(tokens_per_day=7), without=("usd_per_month",))
    assert changed.limits == Limits(tokens_per_day=7)
    await setting.remove(resources, FAKE)
    assert await setting.listed(resources) == []


def test_every_limit_can_be_said() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 12, 1, tzinfo=UTC)
    for name in LIMITS:
        assert "2026-12-01 00:00" in limit_reached(name, 10, 4, at)


async def test_a_batch_job_is_as_large_as_a_ceiling_allows(bare: Resources, fake: FakeProvider, psql: Any) -> None:
    async with batched(bare, fake, "gemini") as lane:
        provider = await lane.provider()
        async with lane.database.transaction() as tx:
            dataset = await datasets.ensure(tx, "river", "log")
        await save(lane, dataset, texts(50))
        await setting.set_(lane, BudgetOwner(provider=provider.name), Limits(tokens_per_day=400))
        sent = await BatchManager(lane).flush_queue(min_batch_size=1)
        assert 5 < sent.texts < 50
        assert sent.reason is not None
        assert provider.name in sent.reason
        assert 0 < (await budget(lane)).day_tokens <= 400
        assert await psql.fetchval("SELECT count(*) FROM batch_jobs WHERE budget_tokens IS NOT NULL") == 0
        jobs = len(fake.batches.jobs)
        assert (await BatchManager(lane).flush_queue(min_batch_size=1)).jobs == []
        assert len(fake.batches.jobs) == jobs


async def test_a_batch_job_that_is_not_sent_gives_back_what_it_took(
    bare: Resources, fake: FakeProvider, psql: Any
) -> None:
    async with batched(bare, fake, "gemini") as lane:
        provider = await lane.provider()
        async with lane.database.transaction() as tx:
            dataset = await datasets.ensure(tx, "river", "log")
        await save(lane, dataset, texts(20))
        await setting.set_(lane, BudgetOwner(provider=provider.name), Limits(tokens_per_day=10_000))
        before = (await budget(lane)).day_tokens
        fake.fail_next(1, Fault.QUOTA_429, endpoint=":asyncBatchEmbedContent")
        assert (await BatchManager(lane).flush_queue(min_batch_size=1)).rows == 0
        assert (await budget(lane)).day_tokens == before
        assert await psql.fetchval("SELECT count(*) FROM embed_work WHERE lease_owner IS NOT NULL") == 0
