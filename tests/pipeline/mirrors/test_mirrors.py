"""The mirrors of a process: opened or built, following, checked, repaired, rebuilt; search asks them and falls back."""

from typing import Any

import pytest

from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.pipeline.mirrors.mirroring import TEXTS, embedded, following, until, until_true
from tests.pipeline.search.meaning import search


async def test_a_process_that_follows_builds_a_mirror_and_keeps_it_true(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    async with following(resources) as mirrors:
        await until(lambda: mirrors.mirror(dataset).state == "ready")
        await until_true(resources, dataset)
        await embedded(resources, psql, dataset, "a new one")
        await until_true(resources, dataset)
        await psql.execute("DELETE FROM messages WHERE id % 2 = 0")
        await until_true(resources, dataset)
        found = await search(resources, "a new one", k=3)
        assert found.engine == "mirror"
        exact = await search(resources, "a new one", k=3, engine="exact")
        assert [hit.id for hit in found.hits] == [hit.id for hit in exact.hits]
    assert mirrors.folder.describe(dataset.project_id, dataset.id) is not None


@pytest.mark.parametrize("engine", ["auto", "mirror"])
async def test_without_a_mirror_postgres_answers(
    resources: Resources, dataset: DatasetRef, psql: Any, engine: str
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    found = await search(resources, TEXTS[3], engine=engine)
    assert found.engine in ("pgvector", "exact")
    assert found.hits[0].text == TEXTS[3]
