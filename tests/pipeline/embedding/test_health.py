"""Health checks: a model behind the same name that has changed is found, and nothing is written with it."""

from typing import Any

import pytest

from evervec.pipeline.embedding import health, providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.embedding.health import KNOWN_TEXT, check_providers, make_checks_due
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.overview import describe
from evervec.store import breakers, space_probes
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import coverage, save, unpause


async def checked_again(resources: Resources) -> None:
    await make_checks_due(resources)
    await check_providers(resources)


async def test_a_model_that_changed_behind_its_name_writes_nothing_more_and_says_so(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    fake.digests["embedder"] = "sha256:aaaa"
    await check_providers(resources)
    fake.weights["embedder"], fake.digests["embedder"] = "another", "sha256:bbbb"
    await save(resources, dataset, ["one", "two"])
    await checked_again(resources)
    before = len(fake.requests)
    assert (await embed_dataset(resources, dataset.id)).success == 0
    await unpause(psql)
    assert (await embed_dataset(resources, dataset.id)).success == 0, "no pause ends it"
    assert len(fake.requests) == before
    status = describe(await resources.provider())
    assert status.drifted and status.reason is not None
    assert "sha256:aaaa" in status.reason and "sha256:bbbb" in status.reason
    assert "evervec providers test fake" in status.reason

    fake.weights.clear()
    await checked_again(resources)
    assert not describe(await resources.provider()).drifted
    assert (await embed_dataset(resources, dataset.id)).success == 2


async def test_a_model_that_embeds_as_it_did_is_checked_once_an_hour(
    resources: Resources, fake: FakeProvider, psql: Any
) -> None:
    for _ in range(3):
        await check_providers(resources)
    assert fake.texts_sent()[KNOWN_TEXT] == 1
    await psql.execute("UPDATE llm_providers SET checked_at = now() - interval '61 minutes'")
    await check_providers(resources)
    assert fake.texts_sent()[KNOWN_TEXT] == 2
    assert await psql.fetchval("SELECT count(*) FROM provider_breakers") == 0


async def test_a_digest_alone_that_changed_is_kept(resources: Resources, fake: FakeProvider, psql: Any) -> None:
    fake.digests["embedder"] = "sha256:aaaa"
    await check_providers(resources)
    fake.digests["embedder"] = "sha256:bbbb"
    await checked_again(resources)
    assert await psql.fetchval("SELECT model_digest FROM space_probes") == "sha256:bbbb"
    assert not describe(await resources.provider()).drifted


async def test_a_second_provider_of_the_space_with_another_model_is_stopped_and_the_first_is_not(
    resources: Resources, fake: FakeProvider
) -> None:
    await check_providers(resources)
    async with FakeProvider(dims=32) as other:
        other.weights["embedder"] = "another"
        draft = ProviderDraft("second", "ollama", base_url=other.url, model="embedder")
        await providers.add(resources, draft, activate=False)
        await check_providers(resources)
    stopped = {one.name: describe(one).drifted for one in await providers.listed(resources)}
    assert stopped == {"fake": False, "second": True}


async def test_a_provider_that_does_not_answer_is_paused_and_checked_when_it_is_back(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await check_providers(resources)
    fake.always(None, Fault.ERROR_500)
    await checked_again(resources)
    assert await psql.fetchval("SELECT code FROM provider_breakers") == "transient"
    fake.heal()
    fake.weights["embedder"] = "another"
    await save(resources, dataset, ["one"])
    await unpause(psql)
    await embed_dataset(resources, dataset.id)
    await check_providers(resources)
    assert describe(await resources.provider()).drifted


async def test_an_accepted_model_is_what_is_compared_with_from_then_on(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await check_providers(resources)
    fake.weights["embedder"] = "another"
    await checked_again(resources)
    provider = await resources.provider()
    async with resources.database.transaction() as tx:
        await breakers.accept(tx, provider.endpoint)
        await space_probes.forget(tx, provider.space.id)
    await checked_again(resources)
    await save(resources, dataset, ["one"])
    assert (await embed_dataset(resources, dataset.id)).success == 1
    assert (await coverage(resources, dataset)).embedded == 1


@pytest.mark.parametrize("changed", [False, True])
async def test_a_test_of_a_provider_tells_and_decides(resources: Resources, fake: FakeProvider, changed: bool) -> None:
    await check_providers(resources)
    fake.weights |= {"embedder": "another"} if changed else {}
    found = await providers.test(resources, "fake")
    assert found.drifted is changed
    assert (found.similarity > health.SAME_COSINE) is not changed
    fake.weights.clear()
    assert not (await providers.test(resources, "fake")).drifted
    assert (await resources.provider()).breaker == breakers.Breaker()
