"""Another model from a program: the verbs of `evervec spaces`, with and without an event loop."""

from collections.abc import Iterator
from typing import Any

import pytest

from evervec import Document, SemanticCore, SyncSemanticCore
from evervec.errors import NoBatchError, Refused, UnknownDatasetError, UnknownProviderError
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

TEXTS = [Document.from_text("a", "birds sing in the morning"), Document.from_text("b", "cold soup")]


@pytest.fixture
def wide() -> Iterator[FakeProvider]:
    """Serve a model of another width, in a thread of its own."""
    with FakeProviderThread(dims=48) as fake:
        yield fake


async def test_a_space_is_planned_built_searched_rolled_back_and_dropped(
    local: SemanticCore, wide: FakeProvider
) -> None:
    await local.ingest(TEXTS)
    await local.add_provider("wide", "ollama", model="wider", base_url=wide.url)
    (planned,) = await local.spaces.plan("wide")
    assert (planned.dataset, planned.documents, "wider" in planned.space) == ("documents", 2, True)
    assert await local.spaces.status() == []
    (built,) = await local.spaces.build("wide")
    assert (built.state, built.rows, built.embedded, built.missing) == ("next", 2, 2, 0)
    assert (built.coverage, built.seconds_left, built.indexed) == (1.0, 0.0, True)
    assert (await local.status()).builds == [built]
    (flipped,) = await local.spaces.activate("documents")
    assert ("wider" in flipped.space, "wordllama" in flipped.former) == (True, True)
    assert (await local.search("cold soup", k=1))[0].text.endswith("cold soup")
    assert [one.state for one in await local.spaces.status("documents")] == ["previous"]
    (back,) = await local.spaces.rollback()
    assert (back.space, back.former) == (flipped.former, flipped.space)
    dropped = await local.spaces.drop(state="next")
    assert (dropped.dropped, dropped.removed) == (1, 2), "a chunk goes with its vector"
    assert {(one.model, one.searched) for one in await local.spaces.list()} == {
        ("wordllama-l2-supercat-256", 1),
        ("wider", 0),
    }
    assert (await local.search("birds", k=1))[0].text.endswith("in the morning")


async def test_another_size_of_chunks_and_a_build_that_workers_fill(local: SemanticCore, wide: FakeProvider) -> None:
    await local.ingest(TEXTS)
    (begun,) = await local.spaces.build("local", chunk_tokens=200, wait=False, activate=True)
    assert (begun.embedded, begun.coverage, begun.automatic) == (0, 0.0, True)
    (kept,) = await local.spaces.build("local", chunk_tokens=200)
    assert kept.state == "previous", "it was searched by itself as soon as it was whole"


async def test_what_can_not_be_is_refused(local: SemanticCore, wide: FakeProvider) -> None:
    await local.ingest(TEXTS)
    await local.add_provider("wide", "ollama", model="wider", base_url=wide.url)
    with pytest.raises(UnknownProviderError):
        await local.spaces.build("nobody")
    with pytest.raises(UnknownDatasetError):
        await local.spaces.build("wide", "nowhere")
    with pytest.raises(NoBatchError):
        await local.spaces.build("wide", batch=True)
    with pytest.raises(Refused, match="No dataset builds another space"):
        await local.spaces.activate()
    with pytest.raises(Refused, match="no space to drop"):
        await local.spaces.drop()
    with pytest.raises(Refused, match="There is no state 'old'"):
        await local.spaces.drop(state="old")
    await local.spaces.build("wide", wait=False)
    with pytest.raises(Refused, match="is not filled yet"):
        await local.spaces.activate()


async def test_a_provider_that_is_used_is_built_beside_the_present_space(
    local: SemanticCore, wide: FakeProvider
) -> None:
    await local.ingest(TEXTS)
    await local.add_provider("wide", "ollama", model="wider", base_url=wide.url, use=True)
    (building,) = await local.spaces.status()
    assert (building.state, building.automatic) == ("next", True)
    assert (await local.search("cold soup", k=1))[0].text.endswith("cold soup")


def test_without_an_event_loop(database_url: str, how: dict[str, Any], wide: FakeProvider) -> None:
    with SyncSemanticCore.open(database_url, **how) as core:
        core.ingest(TEXTS)
        core.add_provider("wide", "ollama", model="wider", base_url=wide.url)
        assert [one.missing for one in core.spaces.build("wide")] == [0]
        assert len(core.spaces.activate()) == 1
        assert core.search("cold soup", k=1)[0].text.endswith("cold soup")
        assert len(core.spaces.rollback()) == 1
        assert core.spaces.drop().dropped == 1
        assert core.spaces.status() == []
