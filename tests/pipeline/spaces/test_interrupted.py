"""A build that stops anywhere is continued, or dropped without a trace."""

from typing import Any

import pytest

from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store import documents, space_removal, spaces
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw, rows, vectors
from tests.fakes.server import FakeProvider
from tests.pipeline.spaces.spaced import built, filled, require_no_more, require_true, settled, traces

STEPS = [
    (spaces, "take_in"),
    (spaces, "documents_due"),
    (spaces, "taken_in"),
    (documents, "replace_chunks"),
    (rows, "claim_dataset"),
    (vectors, "update_vectors_bulk"),
    (hnsw, "build_indexes"),
    (spaces, "indexed"),
]


class Power(Exception):
    """The process ends here."""


@pytest.fixture(params=STEPS, ids=[name for _, name in STEPS])
async def interrupted(
    request: pytest.FixtureRequest,
    resources: Resources,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Begin a build that stops at a step; return what was there before it."""
    module, name = request.param
    await filled(resources, dataset)
    await settled(resources, dataset)
    before = await traces(psql)
    await start(resources, BuildOptions("wide"))

    async def stop(*_: object, **__: object) -> None:
        raise Power

    with monkeypatch.context() as patched:
        patched.setattr(module, name, stop)
        with pytest.raises(Power):
            await fill(resources)
    # whoever died held leases, which end by themselves
    await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 s'")
    return before


async def test_a_build_that_stopped_at_any_step_is_continued(
    interrupted: dict[str, Any], resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await settled(resources, dataset)
    await require_true(psql)
    await flip.activate(resources)
    assert (await search(resources, "one", k=1)).hits[0].text == "one"
    await removal.drop(resources)
    await removal.purge(resources)
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM embeddings") == [2]
    after = await traces(psql)
    # the other space has indexes of its own now, and the former one has none
    assert len(after["names"]) <= len(interrupted["names"])
    require_no_more(after | {"names": []}, interrupted)


async def test_a_build_that_stopped_at_any_step_is_dropped_without_a_trace(
    interrupted: dict[str, Any], resources: Resources, psql: Any
) -> None:
    await removal.drop(resources)
    await removal.purge(resources)
    require_no_more(await traces(psql), interrupted)


@pytest.mark.parametrize("name", ["older_writers_ended", "drop_unused"])
async def test_a_removal_that_stopped_is_continued_by_the_janitor(
    resources: Resources,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    await filled(resources, dataset)
    await settled(resources, dataset)
    before = await traces(psql)
    await built(resources, BuildOptions("wide"))
    await removal.drop(resources)

    async def stop(*_: object, **__: object) -> None:
        raise Power

    with monkeypatch.context() as patched:
        patched.setattr(space_removal, name, stop)
        with pytest.raises(Power):
            await removal.purge(resources)
    await settled(resources, dataset)
    require_no_more(await traces(psql), before)
