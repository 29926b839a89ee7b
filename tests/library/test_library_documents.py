"""The documents of a core: got, listed, described anew, deleted; with the caller's session; fresh, and rung for."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from evervec import Document, SemanticCore
from evervec.errors import Refused, UnknownDatasetError, UnknownDocumentError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.depth import depth
from evervec.store.rings.doorbell import PostgresDoorbell
from tests.conftest import Servers

TEXT = "# Birds\n\nThey sing in the morning.\n\n# Soup\n\nIt is cold.\n"


async def test_before_the_first_write_everything_is_empty_and_another_dataset_is_unknown(local: SemanticCore) -> None:
    assert ((await local.search("birds", dataset="documents", project="library")).hits, await local.list()) == ([], [])
    assert (await local.search("birds", dataset="library/documents")).hits == []
    assert await local.get("birds") is None
    for call in (
        local.search("birds", dataset="other"),
        local.list(dataset="other"),
        local.get("birds", dataset="other"),
        local.update_metadata("birds", {}),
    ):
        with pytest.raises(UnknownDatasetError):
            await call


async def test_documents_are_got_listed_by_page_described_and_deleted(local: SemanticCore) -> None:
    named = [Document.from_text(f"b/{n}", f"text {n}") for n in range(3)]
    await local.ingest([Document.from_text("a/birds", TEXT, format="markdown", metadata={"lang": "en"}), *named])
    found = await local.get("a/birds")
    assert found is not None
    assert (found.text, found.metadata, found.chunks, found.pending, found.version) == (TEXT, {"lang": "en"}, 2, 0, 1)
    assert found.dataset == "library/documents"
    first = await local.list(limit=2)
    rest = await local.list(after=first[-1].uri)
    assert [one.uri for one in first + rest] == ["a/birds", "b/0", "b/1", "b/2"]
    assert [one.uri for one in await local.list("b/", after="b/0")] == ["b/1", "b/2"]
    assert [(await local.search("birds", mode=mode)).mode for mode in ("words", "vector")] == ["words", "vector"]
    (best,) = (
        await local.search("birds", 9, dataset="documents", by_document=True, context=1, where='uri = "a/birds"')
    ).hits
    assert best.around is not None
    assert len([*best.around.before, *best.around.after]) == 1
    assert len(await local.search("text 1", 9, mode="vector", least_similarity=0.999)) == 1
    with pytest.raises(Refused, match="The context is 99 chunks"):
        await local.search("birds", context=99)
    assert [one.uri for one in await local.list(metadata={"lang": "en"})] == ["a/birds"]
    for limit in (0, 1001):
        with pytest.raises(Refused, match=f"limit is {limit}"):
            await local.list(limit=limit)

    assert await local.update_metadata("a/birds", {"tags": ["x"], "lang": None}) == {"tags": ["x"]}
    assert await local.update_metadata("a/birds", {"lang": "fr"}) == {"tags": ["x"], "lang": "fr"}
    assert await local.update_metadata("a/birds", {"of": 2, "no": None}, replace=True) == {"of": 2}
    with pytest.raises(UnknownDocumentError, match=r"library/documents has no document 'none'"):
        await local.update_metadata("none", {})
    for large in ({"long": "x" * 60_000}, {"longer": "x" * 60_000}):
        if "longer" in large:
            with pytest.raises(Refused, match="at most"):
                await local.update_metadata("a/birds", large)
        else:
            await local.update_metadata("a/birds", large)
    assert (await local.get("a/birds")).metadata.keys() == {"of", "long"}  # type: ignore[union-attr]  # it is there
    assert await local.delete(["a/birds", "none"]) == 1
    assert await local.get("a/birds") is None


async def test_every_write_takes_part_in_the_transaction_of_a_session(local: SemanticCore, app: AsyncEngine) -> None:
    birds = Document.from_text("birds", "birds sing")
    async with AsyncSession(app) as session:
        await local.ingest(birds, session=session)
        await local.update_metadata("birds", {"lang": "en"}, session=session)
        assert await local.list() == []
        await session.rollback()
        assert await local.list() == []
        await local.ingest(birds, mode="Async", connection=await session.connection())
        assert await local.update_metadata("birds", {"lang": "en"}, session=session) == {"lang": "en"}
        await session.commit()
        assert [one.metadata for one in await local.list()] == [{"lang": "en"}]
        assert await local.delete("birds", session=session) == 1
        await session.rollback()
        assert len(await local.list()) == 1
        with pytest.raises(Refused, match="Nothing is embedded before you have committed"):
            await local.ingest(birds, mode="sync", session=session)
        with pytest.raises(Refused, match="Both `connection` and `session`"):
            await local.delete("birds", session=session, connection=session)


async def test_a_fresh_search_waits_for_what_was_written_before_it(local: SemanticCore) -> None:
    done = await local.ingest(Document.from_text("birds", "birds sing"), mode="async")
    assert (done.pending, len(await local.search("birds"))) == (1, 0)
    waiting = asyncio.create_task(local.search("birds", fresh=True))
    await local.backfill()
    answer = await waiting
    assert (len(answer), answer.pending_in_scope) == (1, 0)


async def test_documents_that_wait_are_rung_for(
    local: SemanticCore, database_url: str, how: dict[str, Any], servers: Servers, psql: Any
) -> None:
    document = Document.from_text("birds", "birds sing")
    heard: asyncio.Queue[Any] = asyncio.Queue()
    doorbell = local._resources.doorbell
    assert isinstance(doorbell, PostgresDoorbell)
    async with doorbell.listening_for_work(heard.put_nowait), asyncio.timeout(60):
        assert await heard.get() is None  # it listens now, and may have missed some
        await local.ingest(document, mode="async", dataset="rung")
        assert await heard.get() == await psql.fetchval("SELECT id FROM evervec.datasets WHERE slug = 'rung'")

    async with SemanticCore.open(database_url, nats_url=servers.nats_url, stream="LIBRARY", **how) as core:
        broker = core._resources.broker
        assert isinstance(broker, JetStreamBroker)
        await core.ingest(document, mode="async", dataset="over-nats")
        assert sum((await depth(broker)).lanes.values()) == 1
        for stream in (broker.layout.stream, broker.layout.dead_stream, broker.layout.advisory_stream):
            await broker.js.delete_stream(stream)
