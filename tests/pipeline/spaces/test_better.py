"""Instant first, good soon: WordLlama answers at once, and a better model of this machine takes over by itself."""

from dataclasses import replace

import pytest

from evervec.domain.vendors import LOCAL
from evervec.errors import Refused
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import better, flip, removal
from evervec.pipeline.spaces.build import fill
from evervec.pipeline.spaces.progress import builds
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from evervec.store.spaces import spaces
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import write


@pytest.fixture
async def auto(local: Resources, monkeypatch: pytest.MonkeyPatch) -> Resources:
    """Open resources that may build a better model, on a machine that counts as idle."""
    monkeypatch.setattr(better, "IDLE_LOAD", 1_000_000.0)
    return replace(local, settings=local.settings.model_copy(update={"local_model": "auto"}))


async def embedded(resources: Resources, dataset: DatasetRef) -> None:
    """Embed two messages by WordLlama."""
    await write(resources, dataset, "The clock of the phone is wrong.", "Soup is cold.")
    await embed_dataset(resources, dataset.id)


async def searched_in(resources: Resources, dataset: DatasetRef) -> str:
    """Return the model that answers for a dataset."""
    async with resources.database.read() as tx:
        found = await datasets.by_id(tx, dataset.id)
    assert found is not None
    return (await resources.provider_of(found)).model


async def test_a_better_local_model_is_built_beside_wordllama_and_searched_by_itself(
    auto: Resources, dataset: DatasetRef
) -> None:
    await better.improve(auto)
    assert await builds(auto) == [], "nothing was embedded yet"
    await embedded(auto, dataset)
    assert f"{LOCAL.model}, on this machine; minilm, which answers better" in await better.told(auto)
    await better.improve(auto)
    (building,) = await builds(auto)
    assert (building.state, building.automatic, "minilm" in building.space) == ("next", True, True)
    assert "another one is built beside it: see `evervec spaces status`" in await better.told(auto)
    assert (await search(auto, "time is off on my mobile", k=1))[0].text.startswith("The clock")
    await fill(auto, whole=True)
    assert await searched_in(auto, dataset) == "minilm"
    assert (await search(auto, "time is off on my mobile", k=1))[0].text.startswith("The clock")
    await better.improve(auto)
    assert [one.state for one in await builds(auto)] == ["previous"]


async def test_what_somebody_did_not_want_is_not_built_again(auto: Resources, dataset: DatasetRef) -> None:
    async with auto.database.transaction() as tx:
        other = await datasets.ensure(tx, "river", "other")
    for one in (dataset, other):
        await embedded(auto, one)
    await better.improve(auto)
    await fill(auto, whole=True)
    await flip.roll_back(auto, dataset="log")
    await removal.drop(auto)
    await removal.purge(auto)
    await better.improve(auto)
    assert await builds(auto) == []
    assert [await searched_in(auto, one) for one in (dataset, other)] == [LOCAL.model, "minilm"]


async def test_a_build_that_was_given_up_is_not_begun_again(auto: Resources, dataset: DatasetRef) -> None:
    await embedded(auto, dataset)
    await better.improve(auto)
    await removal.drop(auto)
    await removal.purge(auto)
    await better.improve(auto)
    assert await builds(auto) == []


async def test_a_busy_machine_and_a_chosen_provider_are_left_alone(
    auto: Resources, dataset: DatasetRef, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embedded(auto, dataset)
    monkeypatch.setattr(better, "IDLE_LOAD", -1.0)
    await better.improve(auto)
    assert await builds(auto) == []
    monkeypatch.setattr(better, "IDLE_LOAD", 1_000_000.0)
    async with auto.database.transaction() as tx:
        await spaces.use_provider(tx, [dataset.id], (await auto.provider()).id)
    await better.improve(auto)
    assert await builds(auto) == []
    await providers.add(auto, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"), activate=False)
    with pytest.raises(Refused):
        await providers.use(auto, "fake")
