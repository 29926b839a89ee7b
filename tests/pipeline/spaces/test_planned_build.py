"""The plan of a build, and what the build then sent, are the same; a plan sends and writes nothing."""

from typing import Any

import pytest

from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import planned_build
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store.datasets import DatasetRef
from tests.fakes.server import FakeProvider
from tests.pipeline.budget.test_plans import assert_held, spent
from tests.pipeline.spaces.test_turning import filled, wide, write

__all__ = ["wide"]  # a fixture


@pytest.mark.parametrize("options", [{}, {"template": "{heading}: {text}"}, {"chunk_tokens": 40}])
async def test_the_ledger_of_a_build_is_its_plan(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any, options: dict[str, Any]
) -> None:
    await filled(resources, dataset)
    await write(resources, dataset, "waits still")
    before, sent = await psql.fetchval("SELECT count(*) FROM embedding_spaces"), len(wide.requests)
    build = BuildOptions("wide", **options)
    planned = await planned_build.plan(resources, build)
    assert planned.rows > 4
    assert (await psql.fetchval("SELECT count(*) FROM embedding_spaces"), len(wide.requests)) == (before, sent)
    await start(resources, build)
    await fill(resources, whole=True)
    assert_held(planned, await spent(resources, "re-embed"))


async def test_a_build_of_the_same_model_sends_only_texts_that_are_new(
    resources: Resources, dataset: DatasetRef
) -> None:
    await filled(resources, dataset)
    planned = await planned_build.plan(resources, BuildOptions("fake", template="{heading}: {text}"))
    assert 0 < planned.texts < planned.rows
    assert planned.reused == planned.rows - planned.texts


async def test_a_dataset_that_is_in_the_space_already_needs_nothing(resources: Resources, dataset: DatasetRef) -> None:
    await filled(resources, dataset)
    assert (await planned_build.plan(resources, BuildOptions("fake"))).rows == 0
