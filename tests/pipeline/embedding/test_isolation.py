"""Isolation of the text at fault: what one text does to a provider costs that text alone, in few requests."""

from collections.abc import Callable
from math import log2
from typing import Any

import pytest

from evervec.domain import ladder
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import embed_waiting
from evervec.settings import Settings
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import coverage, save

BATCH = 256


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with the rows of a claim that everybody has who sets nothing."""
    return settings.model_copy(update={"embed_batch": BATCH})


async def use(resources: Resources, fake: FakeProvider, vendor: str) -> None:
    key = None if vendor == "ollama" else "a-key"
    draft = ProviderDraft(vendor, vendor, base_url=fake.url, model="embedder", api_key=key)
    await providers.add(resources, draft)


async def drain(resources: Resources, psql: Any, done: Callable[[], Any]) -> None:
    """Sweep until `done`; what a row has to wait for is over at once."""
    for _ in range(12):
        await embed_waiting(resources)
        if await done():
            return
        await psql.execute("UPDATE embed_work SET not_before = now()")
    raise AssertionError("rows still wait")


@pytest.mark.parametrize("place", [0, 255])
@pytest.mark.parametrize(
    ("vendor", "fault"),
    [
        ("ollama", Fault.NAN_500),
        ("ollama", Fault.EOF_500),
        ("openai", Fault.ERROR_500),
        ("openai", Fault.BUSY_503),
        ("openai", Fault.RESET),
        ("gemini", Fault.EMPTY_200),
    ],
)
async def test_one_text_that_fails_like_an_outage_is_given_up_alone_in_few_requests(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any, vendor: str, fault: Fault, place: int
) -> None:
    await use(keyed, fake, vendor)
    async with keyed.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "other")
    await save(keyed, dataset, [f"text {i}" if i != place else "poison" for i in range(BATCH)])
    await save(keyed, other, [f"other {i}" for i in range(60)])
    fake.always(lambda text: text == "poison", fault)
    before = len(fake.requests)

    async def done() -> bool:
        return (await coverage(keyed, dataset)).pending == 0

    await drain(keyed, psql, done)
    covered, elsewhere = await coverage(keyed, dataset), await coverage(keyed, other)
    assert (covered.embedded, covered.failed) == (BATCH - 1, 1)
    assert (elsewhere.embedded, elsewhere.failed) == (60, 0)

    size = keyed.clients.embedder(await keyed.provider()).limits.texts
    needed = -(-BATCH // size) + -(-60 // size)
    assert len(fake.requests) - before - needed <= 2 * log2(BATCH)
    assert fake.texts_sent()["poison"] >= ladder.TEXT_ATTEMPTS


async def test_the_other_texts_are_embedded_in_the_first_claim_already(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(99)] + ["poison"])
    fake.always(lambda text: text == "poison", Fault.ERROR_500)
    counts = await embed_dataset(resources, dataset.id)
    assert (counts.success, counts.failed, counts.skipped) == (99, 1, 0)
    assert (await coverage(resources, dataset)).pending == 1


async def test_a_provider_that_dies_during_the_search_costs_no_text_an_attempt(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(32)])
    fake.fail_next(1, Fault.ERROR_500)
    fake.always(lambda _: fake.texts_sent()[HEALTH_TEXTS[0]] > 0, Fault.ERROR_500)
    await embed_dataset(resources, dataset.id)
    assert await psql.fetchval("SELECT count(*) FROM embed_work WHERE attempts > 0") == 0
    covered = await coverage(resources, dataset)
    assert (covered.pending, covered.failed) == (32, 0)


async def test_a_request_that_fails_once_costs_no_text_an_attempt(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(32)])
    fake.fail_next(1, Fault.RESET)
    counts = await embed_dataset(resources, dataset.id)
    assert (counts.success, counts.failed, counts.skipped) == (32, 0, 0)


async def test_many_texts_at_fault_are_all_found(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"poison {i}" if i % 3 == 0 else f"text {i}" for i in range(60)])
    fake.always(lambda text: text.startswith("poison"), Fault.ERROR_500)

    async def done() -> bool:
        return (await coverage(resources, dataset)).pending == 0

    await drain(resources, psql, done)
    covered = await coverage(resources, dataset)
    assert (covered.embedded, covered.failed) == (40, 20)


async def test_one_vector_for_every_text_is_never_written(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await save(resources, dataset, [f"text {i}" for i in range(20)])
    fake.always(None, Fault.IDENTICAL)
    await embed_dataset(resources, dataset.id)
    covered = await coverage(resources, dataset)
    assert (covered.embedded, covered.pending, covered.failed) == (0, 20, 0)
