"""What changes below a watched folder is in the database soon, whatever an editor, a shell or a server does meanwhile."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.sources.files import events, watcher
from evervec.store import runs
from tests.conftest import Servers
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import chunks, sent
from tests.pipeline.ingest.watched import IDS, embed, kept, section, until_kept, watched

CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'evervec'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    place.mkdir()
    (place / "anchor.md").write_text("Always here.")
    return place


@pytest.fixture
def impatient(resources: Resources) -> Resources:
    """Return resources whose leases end soon: one that is cut off can not be given back."""
    return replace(resources, settings=resources.settings.model_copy(update={"lease_seconds": 3}))


@pytest.fixture
async def admin(servers: Servers) -> AsyncIterator[Any]:
    """Open a connection to another database of the same server."""
    connection = await asyncpg.connect(servers.database_url)
    yield connection
    await connection.close()


async def test_a_save_is_in_the_database_soon_and_only_its_chunk_waits_for_a_worker(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    names = [f"S{n}" for n in range(40)]
    (folder / "page.md").write_text("".join(map(section, names)))
    probed = sent(fake)
    async with watched(resources, folder) as writer:
        assert sent(fake) == probed
        await embed(resources, psql)
        asked = sent(fake)
        text = "".join(section(name if name != "S7" else "Other") for name in names)
        (folder / "page.md").write_text(text)
        await until_kept(psql, page=text)  # long before everything is compared again
        assert await psql.fetchval("SELECT count(*) FROM embedding_status WHERE embedding_status = 'PENDING'") == 1
        await embed(resources, psql)
        assert sent(fake) == asked + 1
        (folder / "page.md").unlink()
        await until_kept(psql, page=None)
    assert [row[2] for row in await chunks(psql)] == [""]
    assert [run.trigger for run in writer.runs] == ["watch"] * len(writer.runs)


async def test_editors_that_rename_on_save_never_let_the_document_go(
    resources: Resources, psql: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOVED_SECONDS", 600.0)
    page = folder / "page.md"
    page.write_text("one")
    async with watched(resources, folder):
        ids = await psql.fetch(IDS)
        (folder / ".page.md.tmp").write_text("two")
        (folder / ".page.md.tmp").replace(page)
        await until_kept(psql, page="two")
        page.rename(folder / "page.md~")
        page.write_text("three")
        (folder / "page.md~").unlink()
        await until_kept(psql, page="three")
        page.unlink()
        (folder / "other.md").write_text("a run passes while the page is away")
        await until_kept(psql, other="a run passes while the page is away")
        page.write_text("four")
        await until_kept(psql, page="four")
        assert (await psql.fetch(IDS))[: len(ids)] == ids


async def test_a_folder_that_appears_with_files_inside_is_covered_and_watched(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path
) -> None:
    async with watched(resources, folder):
        (folder / "new" / "deep").mkdir(parents=True)
        (folder / "new" / "deep" / "a.md").write_text("a")
        (folder / "new" / "b.md").write_text("b")
        await until_kept(psql, a="a", b="b")
        (folder / "new" / "deep" / "a.md").write_text("changed")
        await until_kept(psql, a="changed")
        shutil.copytree(folder / "new", tmp_path / "copy")
        (tmp_path / "copy" / "b.md").rename(tmp_path / "copy" / "c.md")
        (tmp_path / "copy").rename(folder / "moved in")
        await until_kept(psql, c="b")
        (folder / "moved in" / "deep" / "d.md").write_text("d")
        await until_kept(psql, d="d")


async def test_a_folder_that_is_moved_away_or_removed_takes_its_documents_with_it(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path
) -> None:
    for place in ("away", "removed"):
        (folder / place / "deep").mkdir(parents=True)
        (folder / place / "deep" / f"{place}.md").write_text(place)
    async with watched(resources, folder):
        (folder / "away").rename(tmp_path / "away")
        shutil.rmtree(folder / "removed")
        await until_kept(psql, away=None, removed=None)
        assert set(await kept(psql)) == {"anchor.md"}


async def test_a_moved_file_or_folder_keeps_its_vectors(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    (folder / "one.md").write_text(section("One"))
    (folder / "many").mkdir()
    for number in range(600):
        (folder / "many" / f"m{number}.md").write_text(f"Page {number}.")
    async with watched(resources, folder) as writer:
        await embed(resources, psql)
        ids, asked = await psql.fetch(IDS), sent(fake)
        (folder / "one.md").rename(folder / "two.md")
        (folder / "many").rename(folder / "others")
        await until_kept(psql, one=None, two=section("One"))

        async def moved() -> bool:
            return await psql.fetchval("SELECT count(*) FROM documents WHERE uri LIKE '%/others/%'") == 600

        await eventually("the folder is found where it is now", moved)
        await embed(resources, psql)
        assert (await psql.fetch(IDS), sent(fake)) == (ids, asked)
        assert sum(run.counts.documents_moved for run in writer.runs) == 601


async def test_a_burst_of_a_thousand_files_is_a_few_runs(resources: Resources, psql: Any, folder: Path) -> None:
    async with watched(resources, folder) as writer:
        first = len(writer.runs)
        for number in range(1_000):
            (folder / f"burst{number}.md").write_text(f"Number {number}.")

        async def there() -> bool:
            return await psql.fetchval("SELECT count(*) FROM documents") == 1_001

        await eventually("all of them", there)
        assert len(writer.runs) - first <= 10


async def test_gitignore_is_obeyed_as_soon_as_it_changes(resources: Resources, psql: Any, folder: Path) -> None:
    (folder / "draft.md").write_text("draft")
    async with watched(resources, folder):
        (folder / ".gitignore").write_text("draft.md\nbuild/\n")
        await until_kept(psql, draft=None)
        (folder / "build").mkdir()
        (folder / "build" / "made.md").write_text("made")
        (folder / "last.md").write_text("last")
        await until_kept(psql, last="last")
        assert set(await kept(psql)) == {"anchor.md", "last.md"}
        (folder / ".gitignore").unlink()
        await until_kept(psql, draft="draft", made="made")


async def test_what_nobody_lists_causes_no_run(resources: Resources, psql: Any, folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / "node_modules").mkdir()
    async with watched(resources, folder) as writer:
        first = len(writer.runs)
        (folder / ".git" / "index.md").write_text("x")
        (folder / "node_modules" / "x.md").write_text("x")
        (folder / ".page.md.swp").write_text("x")
        (folder / "picture.png").write_bytes(b"x")
        (folder / "page.md").write_text("page")
        await until_kept(psql, page="page")
    changed = [run.changed for run in writer.runs[first:]]
    assert [len(one["files"]) for one in changed if one is not None] == [1]


async def test_changes_wait_while_another_run_holds_the_dataset(resources: Resources, psql: Any, folder: Path) -> None:
    async with watched(resources, folder) as writer:
        name = runs.lease_name(await psql.fetchval("SELECT id FROM datasets"))
        async with held(resources.database, name, 60):
            (folder / "page.md").write_text("page")
            await writer.says("wait for their turn")
            (folder / "later.md").write_text("later")
            assert set(await kept(psql)) == {"anchor.md"}
        await until_kept(psql, page="page", later="later")


async def test_changes_are_kept_while_the_database_throws_everybody_out(
    impatient: Resources, psql: Any, admin: Any, folder: Path
) -> None:
    (folder / "goes.md").write_text("goes")
    name = await psql.fetchval("SELECT current_database()")
    async with watched(impatient, folder) as writer:
        (folder / "goes.md").unlink()
        (folder / "page.md").write_text("page")
        while not any("Changes are remembered" in note for note in writer.notes):
            await admin.fetch(CUT, name)
        (folder / "later.md").write_text("later")
        await until_kept(psql, page="page", later="later", goes=None)
        await writer.says("Indexing works again")


async def test_backends_that_are_ended_in_the_middle_of_a_burst_lose_nothing(
    impatient: Resources, psql: Any, admin: Any, folder: Path
) -> None:
    name = await psql.fetchval("SELECT current_database()")
    async with watched(impatient, folder):
        for number in range(300):
            (folder / f"burst{number}.md").write_text(f"Number {number}.")
            if number % 50 == 49:
                await until_kept(psql, **{f"burst{number - 40}": f"Number {number - 40}."})
                assert await admin.fetchval(CUT, name)
        await until_kept(psql, **{f"burst{number}": f"Number {number}." for number in range(300)})


async def test_a_name_that_is_no_utf8_is_indexed_and_the_watch_goes_on(
    resources: Resources, psql: Any, folder: Path
) -> None:
    async with watched(resources, folder) as writer:
        (folder / os.fsdecode(b"bad\xff.md")).write_text("bad")
        await until_kept(psql, **{"bad\udcff": "bad"})
        (folder / "page.md").write_text("page")
        await until_kept(psql, page="page")
        assert writer.notes == []


async def test_what_no_kernel_tells_is_found_by_comparing_everything(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "COMPARE_SECONDS", 0.5)
    (tmp_path / ".git").mkdir()
    (folder / "draft.md").write_text("draft")
    async with watched(resources, folder):
        (tmp_path / ".gitignore").write_text("draft.md\n")
        await until_kept(psql, draft=None)


async def test_after_a_flood_of_events_everything_is_compared(
    resources: Resources, psql: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "FLOOD_EVENTS", 100)
    async with watched(resources, folder) as writer:
        for number in range(100):
            (folder / f"flood{number}.md").write_text(str(number))

        async def compared() -> bool:
            return [run.mode for run in writer.runs].count("full") == 2

        await eventually("a second comparison", compared)


async def test_two_watches_of_one_dataset_do_nothing_twice(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    probed = sent(fake)
    async with watched(resources, folder) as one, watched(resources, folder) as other:
        for number in range(20):
            (folder / f"page{number}.md").write_text(f"Number {number}.")
            if number % 5 == 4:
                await until_kept(psql, **{f"page{number}": f"Number {number}."})
        await until_kept(psql, **{f"page{number}": f"Number {number}." for number in range(20)})
        await embed(resources, psql)
    runs = [*one.runs, *other.runs]
    assert sum(run.counts.documents_new for run in runs) == sum(run.counts.chunks_new for run in runs) == 21
    assert sent(fake) == probed + 21
