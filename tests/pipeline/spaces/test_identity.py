"""A space is known by all that changes a vector or a chunk: model, width, template, size of chunks."""

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, start
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider

OPTIONS = (
    BuildOptions("fake", template="{text}"),
    BuildOptions("fake", chunk_tokens=128),
    BuildOptions("fake", template="{text}", chunk_tokens=128),
    BuildOptions("another"),
    BuildOptions("another", chunk_tokens=128),
    BuildOptions("wide"),
)


async def test_another_model_width_template_or_size_is_another_space_and_the_same_is_the_same(
    resources: Resources, fake: FakeProvider, dataset: DatasetRef
) -> None:
    fake.widths["wider"] = 48
    for name, model in (("another", "another"), ("wide", "wider")):
        draft = ProviderDraft(name, "ollama", base_url=fake.url, model=model)
        await providers.add(resources, draft, activate=False)
    found = []
    for number, options in enumerate([*OPTIONS, *OPTIONS]):
        async with resources.database.transaction() as tx:
            one = await datasets.ensure(tx, "river", f"number {number}")
        (begun,) = await start(resources, options, dataset=one.name)
        found.append(begun.space_id)
    assert len({dataset.space_id, *found}) == len(OPTIONS) + 1
    assert found[: len(OPTIONS)] == found[len(OPTIONS) :]
