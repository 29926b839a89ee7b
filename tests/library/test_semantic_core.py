"""`SemanticCore`: documents in, now or at half price; found again; closed whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evervec import Document, SemanticCore
from evervec.embedders.vectors import PROBE_TEXTS
from evervec.errors import DatabaseDownError, InvalidNameError, NoBatchError, Refused
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import versions

OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'evervec' AND datname = current_database()"
LAG = 60.0


def sections(count: int, word: str) -> str:
    """Return a Markdown text of so many sections, each of which is a chunk."""
    return "\n".join(f"## {word} {n}\n\nWhat is to be said about {word} number {n}.\n" for n in range(1, count + 1))


def written(folder: Path, files: int, each: int) -> list[Path]:
    """Write a folder of Markdown files with so many sections each."""
    paths = [folder / f"page-{n}.md" for n in range(files)]
    for path in paths:
        path.write_text(sections(each, f"{path.stem} topic"))
    return paths


async def texts_of(core: SemanticCore) -> list[str]:
    async with core.database.read() as tx:
        return [row["vector_text"] for row in await tx.fetch("SELECT vector_text FROM chunks ORDER BY id")]


async def collected(core: SemanticCore) -> None:
    """Look after the jobs until none is open."""
    while (await core.batch_manager.check_and_sync()).running:
        assert len(await core.batch_manager.list()) < 20


async def test_five_thousand_chunks_wait_without_a_request_and_are_searchable_at_half_price(
    core: SemanticCore, fake: FakeProvider, tmp_path: Path
) -> None:
    asked = len(fake.requests)
    for path in written(tmp_path, 50, 100):
        await core.ingest(Document.from_path(path), mode="async")
    assert len(fake.requests) == asked

    flushed = await core.batch_manager.flush_queue(min_batch_size=500)
    assert (flushed.rows, flushed.waiting) == (5000, 0)
    await collected(core)

    texts = await texts_of(core)
    hits = await core.search(texts[4321], k=10)
    assert (len(hits), hits[0].text, next(hit.text for hit in hits)) == (10, texts[4321], texts[4321])
    assert hits[0].similarity == pytest.approx(1, abs=1e-3)
    assert hits.pending_in_scope == 0
    (job,) = await core.batch_manager.list()
    assert (job.stats["ready"], job.stats["failed"], job.stats["returned"]) == (5000, 0, 0)
    assert job.cost_usd == pytest.approx((flushed.online_usd or 0) / 2)
    online = set(fake.texts_sent()) - set(PROBE_TEXTS)
    assert online == {texts[4321]}, "but for the question"


async def test_sync_embeds_before_it_returns(core: SemanticCore, fake: FakeProvider) -> None:
    done = await core.ingest(Document.from_text("a", sections(30, "bird"), format="markdown"), mode="sync")
    assert (done.chunks_new, done.embedded, done.pending, done.deferred) == (30, 30, 0, 0)
    assert (await core.search((await texts_of(core))[7], k=1)).hits[0].similarity == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("mode", ["async", "auto"])
async def test_with_a_batch_api_documents_wait_for_a_job(core: SemanticCore, fake: FakeProvider, mode: str) -> None:
    asked = len(fake.requests)
    done = await core.ingest(Document.from_text("a", sections(30, "bird"), format="markdown"), mode=mode)
    assert (done.chunks_new, done.embedded, done.pending, done.deferred) == (30, 0, 30, 30)
    assert len(fake.requests) == asked
    # kept for a job: neither workers nor a backfill take them before its time
    assert (await core.backfill()).embedded == 0
    assert (await core.batch_manager.flush_queue()).rows == 30


@pytest.mark.parametrize(
    ("mode", "count", "embedded"), [("sync", 300, 300), ("async", 3, 0), ("auto", 200, 200), ("auto", 300, 0)]
)
async def test_the_local_model_embeds_little_at_once_and_never_defers(
    local: SemanticCore, mode: str, count: int, embedded: int
) -> None:
    done = await local.ingest(Document.from_text("a", sections(count, "bird"), format="markdown"), mode=mode)
    assert (done.chunks_new, done.embedded, done.pending) == (count, embedded, count - embedded)
    assert done.deferred == 0
    assert (await local.backfill()).embedded == count - embedded
    with pytest.raises(NoBatchError, match="gemini or openai"):
        await local.batch_manager.flush_queue()


@pytest.mark.parametrize("mode", ["", "later", "async "])
async def test_a_mode_that_nobody_knows_writes_nothing(local: SemanticCore, mode: str) -> None:
    with pytest.raises(Refused, match=r"There is no mode .* Modes: sync, async, auto"):
        await local.ingest(Document.from_text("a", "text"), mode=mode)
    assert await texts_of(local) == []
    assert (await local.status()).datasets == []


async def test_a_document_that_did_not_change_is_left_alone(
    core: SemanticCore, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    (path,) = written(tmp_path, 1, 30)
    await core.ingest(Document.from_path(path), mode="async")
    await core.batch_manager.flush_queue()
    await collected(core)
    before, asked = await versions(psql), len(fake.requests)
    for mode in ("async", "auto", "sync"):
        again = await core.ingest(Document.from_path(path), mode=mode)
        assert (again.documents, again.documents_unchanged, again.pending, again.chunks_new) == (1, 1, 0, 0)
    assert await versions(psql) == before
    assert len(fake.requests) == asked


async def test_of_a_document_that_changed_only_the_changed_chunks_are_sent(
    core: SemanticCore, fake: FakeProvider, tmp_path: Path
) -> None:
    (path,) = written(tmp_path, 1, 30)
    await core.ingest(Document.from_path(path), mode="async")
    await core.batch_manager.flush_queue()
    await collected(core)
    text = path.read_text()
    path.write_text("## A new one\n\nAt the top.\n\n" + text.replace("number 17.", "number seventeen."))
    done = await core.ingest(Document.from_path(path), mode="async")
    assert (done.chunks_skipped, done.pending) == (29, 2)
    assert (await core.batch_manager.flush_queue()).rows == 2
    sent = [text for _, text in fake.batches.jobs[-1].lines]
    assert sorted("seventeen" in text for text in sent) == [False, True]
    await collected(core)
    assert (await core.search(next(text for text in sent if "seventeen" in text), k=1)).hits[0].similarity > 0.999


async def test_many_documents_come_from_any_kind_of_series(local: SemanticCore) -> None:
    async def one_by_one() -> AsyncIterator[Document]:
        for n in range(70):
            yield Document.from_text(f"async:{n}", f"text {n} of a stream")

    listed = [Document.from_text(f"list:{n}", f"text {n} of a list") for n in range(70)]
    assert (await local.ingest(one_by_one())).chunks_new == 70
    assert (await local.ingest(listed)).chunks_new == 70
    assert (await local.ingest(iter([]))).documents == 0
    twice = [Document.from_text("twice", "the first"), Document.from_text("twice", "the last")]
    await local.ingest(twice)
    assert (await local.search("the last", k=1)).hits[0].text.endswith("the last")


async def test_documents_go_where_they_are_told(local: SemanticCore) -> None:
    await local.ingest(Document.from_text("a", "birds sing in the morning"))
    await local.ingest(Document.from_text("a", "fish are silent"), project="sea", dataset="fish")
    assert {hit.dataset for hit in (await local.search("animals")).hits} == {"documents", "fish"}
    assert {hit.dataset for hit in (await local.search("animals", dataset="sea/fish")).hits} == {"fish"}
    with pytest.raises(InvalidNameError):
        await local.ingest(Document.from_text("b", "text"), dataset="\n")


async def test_nothing_is_said_on_stdout(
    database_url: str, how: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async with SemanticCore.open(database_url, **how) as core:
        await core.ingest(Document.from_text("a", "birds sing in the morning"))
        assert (await core.search("birds")).hits
        await core.status()
    assert capfd.readouterr().out == ""


async def test_an_error_in_the_block_closes_everything(database_url: str, how: dict[str, Any], psql: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with SemanticCore.open(database_url, **how) as core:
            await core.ingest(Document.from_text("a", "birds sing in the morning"))
            assert await psql.fetchval(OURS) > 0
            raise ZeroDivisionError
    with pytest.raises(Refused, match="This core is closed"):
        await core.search("birds")
    async with asyncio.timeout(LAG):
        while await psql.fetchval(OURS):
            await asyncio.sleep(0.01)


async def test_a_database_that_is_not_there_is_named(how: dict[str, Any]) -> None:
    with pytest.raises(DatabaseDownError, match=r"127\.0\.0\.1:1"):
        async with SemanticCore.open("postgresql://nobody@127.0.0.1:1/none", **how):
            raise AssertionError("it opened")


@pytest.mark.parametrize("given", ["notes.md", Path("notes.md"), ["notes.md"], None, 7])
async def test_what_is_no_document_is_refused_with_what_to_give(core: SemanticCore, given: Any) -> None:
    with pytest.raises(Refused, match=r"is no document\. Give Document\.from_path"):
        await core.ingest(given)


async def test_an_empty_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="address of the database is empty"):
        async with SemanticCore.open("", home=tmp_path):
            pass


async def test_an_empty_address_of_a_provider_is_refused_and_nobody_is_asked(core: SemanticCore) -> None:
    with pytest.raises(Refused, match="address of provider 'mine' is empty"):
        await core.add_provider("mine", "openai", api_key="key", base_url="")
