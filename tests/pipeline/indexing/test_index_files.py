"""Files are indexed by what changed: what is sent is counted at the provider, what is written by PostgreSQL's own versions."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evervec.domain.documents.chunking import CHUNKING
from evervec.errors import EmptySourceError, MissingExtraError, Refused
from evervec.pipeline.chunking import Chunker
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.spaces.flip import activate
from evervec.pipeline.upkeep import janitor
from evervec.pipeline.upkeep.sweep import embed_waiting
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import chunks, ingest, put, sent, versions


def section(name: str, words: int = 12) -> str:
    return f"## {name}\n\n" + " ".join(f"{name}{n}" for n in range(words)) + "\n\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    place.mkdir()
    return place


async def test_a_folder_is_indexed_embedded_and_found_by_its_place(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    put(folder / "guide.md", "# Guide\n\nIntro.\n\n" + section("Retry") + section("Limits"))
    run = await ingest(resources, folder)
    found = await chunks(psql)
    assert [(row[2], row[3]) for row in found] == [("", 1), ("Retry", 5), ("Limits", 9)]
    assert found[1][6].startswith("Guide › Retry\n\n## Retry")
    assert all(row[8] is not None for row in found)
    assert (run.state, run.mode, run.counts.documents_new, run.counts.chunks_new) == ("done", "full", 1, 3)
    assert run.counts.texts_sent == run.counts.embeddings_generated == run.counts.full_texts == 3
    assert run.counts.tokens == run.counts.full_tokens == await psql.fetchval("SELECT sum(tokens) FROM chunks")


async def test_an_unchanged_folder_sends_nothing_and_writes_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    for number in range(30):
        put(folder / f"page{number}.md", f"# Page {number}\n\n" + section(f"S{number}"))
    first = await ingest(resources, folder)
    before, asked = await versions(psql), sent(fake)
    second = await ingest(resources, folder)
    assert await versions(psql) == before
    assert sent(fake) == asked
    assert (second.counts.documents_unchanged, second.counts.chunks_skipped) == (30, first.counts.chunks_new)
    assert second.counts.requests == second.counts.tokens == 0


async def test_a_paragraph_at_the_top_of_a_hundred_chunks_sends_only_what_it_touches(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    page = folder / "long.txt"
    paragraphs = [" ".join(f"word{n}x{m}" for m in range(60)) + "\n\n" for n in range(150)]
    put(page, "".join(paragraphs))
    await ingest(resources, folder)
    assert await psql.fetchval("SELECT count(*) FROM chunks") >= 100
    ids, asked = set(await psql.fetch("SELECT id FROM chunks")), sent(fake)
    put(page, "A paragraph that nobody has seen.\n\n" + "".join(paragraphs))
    run = await ingest(resources, folder)
    assert 1 <= run.counts.texts_sent == sent(fake) - asked <= 3
    assert len(ids & set(await psql.fetch("SELECT id FROM chunks"))) >= len(ids) - 1


async def test_a_moved_renamed_or_copied_file_costs_no_embedding(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    for name in ("a.md", "b.md", "c.md"):
        put(folder / name, f"# Title {name}\n\n" + section(f"In{name[0]}"))
    await ingest(resources, folder)
    ids, asked = await psql.fetch("SELECT id FROM chunks ORDER BY id"), sent(fake)
    (folder / "sub").mkdir()
    (folder / "a.md").rename(folder / "sub" / "moved.md")
    (folder / "b.md").rename(folder / "renamed.md")
    shutil.copy2(folder / "c.md", folder / "copy.md")
    run = await ingest(resources, folder)
    assert sent(fake) == asked
    assert (run.counts.documents_moved, run.counts.documents_new, run.counts.documents_deleted) == (2, 1, 0)
    assert run.counts.embeddings_reused == run.counts.chunks_new > 0
    assert (await psql.fetch("SELECT id FROM chunks ORDER BY id"))[: len(ids)] == ids
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE embedding IS NULL") == 0


async def test_deleted_files_take_their_chunks_with_them(resources: Resources, psql: Any, folder: Path) -> None:
    put(folder / "stays.md", section("Stays"))
    put(folder / "goes.md", section("Goes"))
    await ingest(resources, folder)
    (folder / "goes.md").unlink()
    run = await ingest(resources, folder)
    assert (run.counts.documents_deleted, run.counts.chunks_deleted) == (1, 1)
    assert [row[2] for row in await chunks(psql)] == ["Stays"]
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 1


async def test_an_emptied_file_loses_its_chunks_and_stays_known(resources: Resources, psql: Any, folder: Path) -> None:
    put(folder / "page.md", section("Full"))
    await ingest(resources, folder)
    put(folder / "page.md", "")
    run = await ingest(resources, folder)
    assert await chunks(psql) == []
    assert (run.counts.documents_changed, run.counts.chunks_deleted) == (1, 1)


async def test_a_folder_that_is_suddenly_empty_is_not_believed(resources: Resources, psql: Any, folder: Path) -> None:
    put(folder / "page.md", section("Kept"))
    await ingest(resources, folder)
    (folder / "page.md").unlink()
    with pytest.raises(EmptySourceError, match="1 documents"):
        await ingest(resources, folder)
    assert len(await chunks(psql)) == 1
    await ingest(resources, folder, allow_empty=True)
    assert await chunks(psql) == []


async def test_a_run_that_misses_a_package_is_not_tried_again(
    resources: Resources, psql: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise MissingExtraError(what="Reading code", package="tree_sitter", extra="code")

    monkeypatch.setattr(Chunker, "_chunk", missing)
    put(folder / "page.md", section("Kept"))
    with pytest.raises(MissingExtraError):
        await ingest(resources, folder)
    (run,) = await psql.fetch("SELECT state, error FROM index_runs")
    assert run["state"] == "failed" and "evervec[code]" in run["error"]


async def test_one_of_two_folders_that_is_suddenly_empty_is_not_believed_either(
    resources: Resources, psql: Any, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    put(one / "a.md", section("A"))
    put(two / "b.md", section("B"))
    run = await ingest(resources, one, two)
    (two / "b.md").unlink()
    with pytest.raises(EmptySourceError, match="two"):
        await requests.index_dataset(resources, run.dataset_id, full_rebuild=True)
    assert len(await chunks(psql)) == 2


async def test_a_folder_that_is_not_there_deletes_nothing(resources: Resources, psql: Any, folder: Path) -> None:
    put(folder / "page.md", section("Kept"))
    await ingest(resources, folder)
    shutil.rmtree(folder)
    with pytest.raises(Refused, match="docs"):
        await ingest(resources, folder)
    assert len(await chunks(psql)) == 1


async def test_paths_given_later_join_and_keep_what_others_brought(
    resources: Resources, psql: Any, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    put(one / "a.md", section("A"))
    put(two / "b.md", section("B"))
    await ingest(resources, one)
    await ingest(resources, two)
    assert [row[2] for row in await chunks(psql)] == ["A", "B"]
    with pytest.raises(Refused, match="filters"):
        await ingest(resources, two, include=["*.txt"])
    assert len(await chunks(psql)) == 2


async def test_a_file_that_was_given_by_name_and_is_gone_takes_its_chunks_with_it(
    resources: Resources, psql: Any, folder: Path
) -> None:
    one, two = put(folder / "a.md", section("A")), put(folder / "b.md", section("B"))
    run = await ingest(resources, one, two)
    one.unlink()
    run = await requests.index_dataset(resources, run.dataset_id, full_rebuild=True)
    assert run.counts.documents_deleted == 1
    assert [row[2] for row in await chunks(psql)] == ["B"]


async def test_a_dry_run_counts_and_writes_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    put(folder / "a.md", section("A"))
    run = await ingest(resources, folder, dry=True)
    assert (run.counts.documents_new, run.counts.texts_sent) == (1, 1)
    assert await psql.fetchval("SELECT count(*) FROM datasets") == 0
    await ingest(resources, folder)
    before, asked = await versions(psql), sent(fake)
    put(folder / "a.md", section("Other"))
    put(folder / "b.md", section("B"))
    run = await ingest(resources, folder, dry=True)
    counts = run.counts
    assert (counts.documents_new, counts.documents_changed, counts.chunks_new, counts.chunks_updated) == (1, 1, 1, 1)
    assert await versions(psql) == before
    assert sent(fake) == asked
    assert await psql.fetchval("SELECT count(*) FROM index_runs") == 1


async def test_another_template_chunks_again_for_a_space_of_its_own(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    put(folder / "a.md", "# Title\n\n" + section("A"))
    await ingest(resources, folder)
    assert all(row[6].startswith("Title") for row in await chunks(psql))
    await start(resources, BuildOptions("fake", template="{text}"))
    await fill(resources, whole=True)
    await activate(resources)
    assert all(not row[6].startswith("Title") for row in await chunks(psql))
    assert await janitor.chunk_waiting(resources) == 0
    before = await versions(psql)
    run = await ingest(resources, folder)
    assert run.counts.documents_unchanged == 1
    assert len(await versions(psql)) == len(before)


async def test_a_text_that_anybody_puts_into_documents_is_chunked(
    resources: Resources, psql: Any, dataset: DatasetRef
) -> None:
    await psql.execute(
        "INSERT INTO documents (dataset_id, uri, title, format, content) VALUES ($1, 'note', 'Note', 'markdown', $2)",
        dataset.id,
        section("One") + section("Two"),
    )
    async with resources.database.read() as tx:
        assert [pending for _, _, pending in await datasets.pending_by_project(tx, CHUNKING)] == [1]
    await janitor.clean_up(resources)
    assert [row[2] for row in await chunks(psql)] == ["One", "Two"]
    assert await psql.fetchval("SELECT content FROM documents") is None


async def test_chunks_that_somebody_else_made_are_left_alone(
    resources: Resources, psql: Any, dataset: DatasetRef
) -> None:
    document = await psql.fetchval(
        "INSERT INTO documents (dataset_id, uri) VALUES ($1, 'theirs') RETURNING id", dataset.id
    )
    await psql.execute(
        "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) VALUES ($1, $2, 0, 'a', 'a')",
        dataset.id,
        document,
    )
    before = await versions(psql)
    await janitor.clean_up(resources)
    assert await versions(psql) == before


async def test_chunks_joined_are_the_text_and_prove_it(resources: Resources, psql: Any, folder: Path) -> None:
    put(folder / "code.py", '"""Doc."""\n\nimport os\n\n\ndef f(x):\n    """F."""\n    return x\n')
    put(folder / "mixed.md", "# Ω\n\nעברית and العربية 😀\n\n" + section("S", 900))
    await ingest(resources, folder)
    rows = await psql.fetch(
        "SELECT d.content_hash = sha256(convert_to(string_agg(c.content, '' ORDER BY c.ordinal), 'UTF8')) AS same, "
        "d.chunk_count = count(*) AS counted FROM documents d JOIN chunks c ON c.document_id = d.id GROUP BY d.id"
    )
    assert len(rows) == 2
    assert all(row["same"] and row["counted"] for row in rows)


async def test_a_dataset_deleted_in_the_middle_leaves_no_row_no_vector_and_no_error(
    resources: Resources, psql: Any, folder: Path
) -> None:
    for number in range(200):
        put(folder / f"page{number:03}.md", section(f"S{number}"))

    await psql.execute(
        "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE datasets SET deleted_at = now(); RETURN NULL; END $$"
    )
    await psql.execute("CREATE TRIGGER gone AFTER INSERT ON chunks FOR EACH STATEMENT EXECUTE FUNCTION gone()")
    run = await ingest(resources, folder)
    assert run.state == "cancelled"
    await janitor.clean_up(resources)
    for table in ("documents", "chunks", "embeddings", "embed_work"):
        assert await psql.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    assert await requests.run_due(resources, run.dataset_id) == []


async def test_a_run_counts_what_it_sent_though_a_sweeper_looks_all_the_time(
    resources: Resources, fake: FakeProvider, folder: Path
) -> None:
    for number in range(300):
        put(folder / f"page{number:03}.md", section(f"S{number}"))
    finish = asyncio.Event()

    async def sweeping() -> None:
        while not finish.is_set():
            await embed_waiting(resources)

    sweeper = asyncio.create_task(sweeping())
    try:
        run = await ingest(resources, folder)
    finally:
        finish.set()
        await sweeper
    assert run.counts.texts_sent == run.counts.embeddings_generated == 300
    assert set(fake.texts_sent().values()) == {1}


WORDS = st.sampled_from(["retry", "lease", "queue", "worker", "vector", "mirror", "chunk"])
PARAGRAPH = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
TEXT = st.lists(st.one_of(PARAGRAPH, WORDS.map(lambda word: f"## {word}"), st.just("```\ncode\n```")), max_size=25).map(
    "\n\n".join
)
EDIT = st.tuples(st.sampled_from(["a.md", "b.md", "c.txt"]), st.one_of(st.none(), TEXT))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(EDIT, min_size=1, max_size=8))
async def test_any_sequence_of_edits_ends_as_if_the_last_text_were_indexed_afresh(
    resources: Resources, psql: Any, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[str, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("edited")
    await psql.execute("TRUNCATE documents, chunks, index_runs CASCADE")
    put(folder / "anchor.md", "# Anchor\n\nalways here")
    for name, text in edits:
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            put(folder / name, text)
        await ingest(resources, folder)
    stepwise = await chunks(psql)
    await psql.execute("TRUNCATE documents, chunks, index_runs CASCADE")
    await ingest(resources, folder)
    assert await chunks(psql) == stepwise
    assert all(row[8] is not None for row in stepwise if row[6])
    await psql.execute("UPDATE sources SET spec = jsonb_set(spec, '{roots}', '[]')")
