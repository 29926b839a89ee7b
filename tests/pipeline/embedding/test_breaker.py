"""The circuit breaker in use: nothing is claimed while it is open, one worker tries, success opens the way for all."""

import asyncio
from typing import Any

from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import coverage, save, unpause


async def test_while_a_provider_is_down_nothing_is_claimed_for_it(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(10)])
    fake.always(None, Fault.ERROR_500)
    await embed_dataset(resources, dataset.id)
    before = len(fake.requests)
    await psql.execute("UPDATE provider_breakers SET open_until = now() + interval '1 hour'")
    for _ in range(3):
        await embed_dataset(resources, dataset.id)
    assert len(fake.requests) == before
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_when_its_pause_is_over_one_worker_probes_and_then_all_go_on(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(200)])
    fake.always(None, Fault.ERROR_500)
    await embed_dataset(resources, dataset.id)
    before = len(fake.requests)
    # after so many failures the next pause is long, and no slow worker is there when it is over
    await psql.execute("UPDATE provider_breakers SET open_until = now(), failures = 10")
    await asyncio.gather(*(embed_dataset(resources, dataset.id) for _ in range(3)))
    assert [request.texts for request in fake.requests[before:]] == [HEALTH_TEXTS]
    fake.heal()
    await unpause(psql)
    await asyncio.gather(*(embed_dataset(resources, dataset.id) for _ in range(3)))
    await embed_dataset(resources, dataset.id)
    assert (await coverage(resources, dataset)).embedded == 200
    assert fake.texts_embedded()[HEALTH_TEXTS[0]] == 1
    assert await psql.fetchval("SELECT count(*) FROM provider_breakers") == 0


async def test_a_rate_limit_that_is_over_is_tried_with_rows_and_costs_no_probe(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["patience"])
    fake.always(None, Fault.RATE_LIMITED_429, retry_after="3600")
    await embed_dataset(resources, dataset.id)
    fake.heal()
    await unpause(psql)
    assert (await embed_dataset(resources, dataset.id)).success == 1
    assert fake.texts_sent() == {"patience": 2, **dict.fromkeys(fake.requests[1].texts, 1)}
    assert await psql.fetchval("SELECT count(*) FROM provider_breakers") == 0


async def test_a_trial_that_finds_no_row_is_left_to_the_next(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["patience"])
    fake.always(None, Fault.RATE_LIMITED_429, retry_after="3600")
    await embed_dataset(resources, dataset.id)
    fake.heal()
    await psql.execute("DELETE FROM messages")
    await unpause(psql)
    await embed_dataset(resources, dataset.id)
    await save(resources, dataset, ["another"])
    assert (await embed_dataset(resources, dataset.id)).success == 1


async def test_retry_after_of_a_503_is_kept(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["patience"])
    fake.always(None, Fault.MAINTENANCE_503, retry_after="120")
    await embed_dataset(resources, dataset.id)
    left = await psql.fetchval("SELECT extract(epoch FROM open_until - now())::float8 FROM provider_breakers")
    assert 100 < left <= 120


async def test_a_provider_that_is_added_again_is_asked_at_once(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, ["patience"])
    fake.always(None, Fault.UNAUTHORIZED_401)
    await embed_dataset(resources, dataset.id)
    fake.heal()
    assert await psql.fetchval("SELECT code FROM provider_breakers") == "auth"
    await providers.add(resources, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"))
    assert (await embed_dataset(resources, dataset.id)).success == 1
