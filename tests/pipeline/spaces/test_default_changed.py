"""The default provider is changed, or a provider removed, while datasets build other spaces: nothing is left half done."""

import pytest

from evervec.errors import Refused
from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store import providers as stored
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from evervec.store.spaces import spaces
from tests.fakes.server import FakeProvider
from tests.pipeline.spaces.spaced import built, filled, settled


async def default_model(resources: Resources) -> str:
    """Return the model of the space that new datasets get."""
    async with resources.database.read() as tx:
        return (await stored.space(tx, await spaces.default(tx))).model


async def test_the_default_stays_while_a_dataset_of_it_builds_another_space(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, fake: FakeProvider
) -> None:
    await filled(resources, dataset)
    await providers.add(resources, ProviderDraft("second", "ollama", base_url=fake.url, model="second"), activate=False)
    await start(resources, BuildOptions("wide"), dataset=dataset.name)
    with pytest.raises(Refused, match=r"Dataset river/log is building ollama/wider .* already.*--state next"):
        await providers.use(resources, "second", reembed=True)
    assert await default_model(resources) == "embedder"
    await removal.drop(resources, dataset=dataset.name, state=spaces.NEXT)
    await providers.use(resources, "second", reembed=True)
    await settled(resources, dataset)
    assert await default_model(resources) == "second"
    async with resources.database.read() as tx:
        assert [one.state for one in await spaces.others(tx)] == [spaces.PREVIOUS], "it was activated by itself"


async def test_a_default_that_is_still_built_is_not_changed_again(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await providers.use(resources, "wide", reembed=True)
    with pytest.raises(Refused, match=r"Rows are embedded in ollama/wider"):
        await providers.use(resources, "fake")
    with pytest.raises(Refused, match=r"Dataset river/log is building ollama/wider"):
        await providers.use(resources, "fake", reembed=True)
    assert await default_model(resources) == "wider"
    await settled(resources, dataset)
    await providers.use(resources, "fake", reembed=True)
    await settled(resources, dataset)
    assert await default_model(resources) == "embedder"


async def test_a_provider_is_not_removed_while_a_dataset_needs_it_for_another_space(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    with pytest.raises(
        Refused,
        match=r"into the next space of dataset river/log.*`evervec spaces drop --dataset river/log --state next`",
    ):
        await providers.remove(resources.database, "wide")
    await fill(resources)
    await flip.activate(resources)
    with pytest.raises(Refused, match=r"into the previous space of dataset river/log"):
        await providers.remove(resources.database, "fake")
    await removal.drop(resources)
    await providers.remove(resources.database, "fake")


async def test_a_build_is_asked_later_to_be_searched_by_itself(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    assert await start(resources, BuildOptions("wide", automatic=True)) == []
    await built(resources, BuildOptions("wide"))
    async with resources.database.read() as tx:
        assert [one.state for one in await spaces.others(tx)] == [spaces.PREVIOUS]
