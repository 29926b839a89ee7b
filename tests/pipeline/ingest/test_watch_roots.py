"""Roots that go, come back, are files, are linked to, or can only be looked at: nothing is deleted by mistake."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from evervec.errors import UnknownDatasetError, UnreadablePathError
from evervec.pipeline.resources import Resources
from evervec.sources.files import events
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import sent, versions
from tests.pipeline.ingest.watched import IDS, embed, kept, section, until_kept, watched


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    place.mkdir()
    (place / "anchor.md").write_text("Always here.")
    return place


def unmount(folder: Path, device: Path) -> None:
    """Move a folder to `device` and leave an empty one, as after an unmount."""
    folder.rename(device)
    folder.mkdir()


def made_anew(folder: Path) -> None:
    """Another folder of the same name; some file systems give it the same inode."""
    shutil.rmtree(folder)
    folder.mkdir()


def mount(device: Path, folder: Path) -> None:
    folder.rmdir()
    device.rename(folder)


async def test_a_root_that_is_removed_and_comes_back_loses_nothing(
    resources: Resources, fake: FakeProvider, psql: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "page.md").write_text(section("Page"))
    async with watched(resources, folder) as writer:
        await embed(resources, psql)
        ids, asked = await psql.fetch(IDS), sent(fake)
        shutil.copytree(folder, tmp_path / "backup")
        shutil.rmtree(folder)
        await writer.says("is away")
        assert await psql.fetch(IDS) == ids
        (tmp_path / "backup").rename(folder)
        await writer.says("is back")
        (folder / "page.md").write_text(section("Other", 20))
        await until_kept(psql, page=section("Other", 20))
        await embed(resources, psql)
        assert (await psql.fetch(IDS), sent(fake)) == (ids, asked + 1)


@pytest.mark.parametrize("poll", [None, 0.1])
async def test_an_empty_folder_in_place_of_a_root_is_not_believed(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path, poll: float | None
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "other.md").write_text("other")
    async with watched(resources, full, folder, poll=poll) as writer:
        before = await versions(psql)
        unmount(folder, tmp_path / "device")
        await writer.says("Nothing is found at")
        assert await versions(psql) == before
        (full / "other.md").write_text("goes on")
        await until_kept(psql, other="goes on", anchor="Always here.")
        mount(tmp_path / "device", folder)
        (folder / "anchor.md").write_text("Here again.")
        await until_kept(psql, anchor="Here again.")


async def test_what_was_put_off_is_not_taken_for_gone_when_its_root_is_unmounted_meanwhile(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "NEW_FOLDER_SECONDS", 3.0)
    async with watched(resources, folder) as writer:
        (folder / "new").mkdir()
        (folder / "new" / "page.md").write_text("page")
        await until_kept(psql, page="page")
        before = await versions(psql)
        unmount(folder, tmp_path / "device")
        await writer.says("Nothing is found at")

        async def looked_again() -> bool:
            return await psql.fetchval("SELECT count(*) FROM index_runs WHERE state = 'failed'") == 2

        await eventually("the new folder is looked at again", looked_again)
        assert await versions(psql) == before
        (folder / "other.md").write_text("There is something after all.")
        await until_kept(psql, other="There is something after all.", page=None, anchor=None)


async def test_a_root_that_is_gone_for_a_moment_only_is_watched_again(
    resources: Resources, psql: Any, folder: Path
) -> None:
    async with watched(resources, folder):
        made_anew(folder)
        (folder / "first.md").write_text("first")
        await until_kept(psql, first="first")
        (folder / "second.md").write_text("second")
        await until_kept(psql, second="second")


async def test_of_a_root_that_is_a_file_its_name_is_watched(resources: Resources, psql: Any, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("one")
    async with watched(resources, page) as writer:
        (folder / "new").write_text("two")
        (folder / "new").replace(page)
        await until_kept(psql, page="two")
        page.unlink()
        await writer.says("is away")
        (folder / "beside.md").write_text("not asked for")
        page.write_text("three")
        await until_kept(psql, page="three")
        assert set(await kept(psql)) == {"page.md"}


async def test_what_a_link_leads_to_is_watched(
    resources: Resources, psql: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "NEW_FOLDER_SECONDS", 600.0)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target.md").write_text("one")
    (outside / "later").mkdir()
    (folder / "link.md").symlink_to(outside / "target.md")
    async with watched(resources, folder):
        (outside / "target.md").write_text("two")
        await until_kept(psql, link="two")
        (folder / "linked").symlink_to(outside / "later")
        (outside / "later" / "a.md").write_text("a")
        await until_kept(psql, a="a")
        (outside / "later" / "a.md").write_text("aa")
        await until_kept(psql, a="aa")
        (tmp_path / "elsewhere.md").write_text("one")
        (folder / "second.md").symlink_to(tmp_path / "elsewhere.md")
        (folder / "third.md").symlink_to(outside / "target.md")
        await until_kept(psql, second="one", third="two")
        (tmp_path / "elsewhere.md").write_text("two")
        (outside / "new").write_text("three")
        (outside / "new").replace(outside / "target.md")
        await until_kept(psql, link="three", second="two", third="three")


async def test_a_watch_that_looks_by_itself_sees_the_same(resources: Resources, psql: Any, folder: Path) -> None:
    async with watched(resources, folder, poll=0.2):
        (folder / "new").mkdir()
        (folder / "new" / "page.md").write_text("page")
        (folder / "anchor.md").write_text("It has changed.")
        await until_kept(psql, page="page", anchor="It has changed.")
        shutil.rmtree(folder / "new")
        await until_kept(psql, page=None)


async def test_a_path_that_is_not_there_is_refused_before_anything_is_made(
    resources: Resources, psql: Any, tmp_path: Path
) -> None:
    with pytest.raises(UnreadablePathError, match="nowhere"):
        async with watched(resources, tmp_path / "nowhere"):
            pass
    assert await psql.fetchval("SELECT count(*) FROM datasets") == 0


async def test_a_dataset_that_is_deleted_ends_the_watch(resources: Resources, psql: Any, folder: Path) -> None:
    with pytest.raises(UnknownDatasetError):
        async with watched(resources, folder) as writer:
            await psql.execute("UPDATE datasets SET deleted_at = now()")
            (folder / "page.md").write_text("page")
            assert writer.ending is not None
            await asyncio.wait_for(writer.ending, 60)
