"""Files as a source: what it lists, names, reads and owns, while files come, grow and go."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from evervec.domain.documents.document import (
    ChangedIds,
    IncomingDocument,
    ListedDocument,
    SkippedDocument,
    SourceReader,
)
from evervec.errors import Refused, UnknownTableError, UnreadablePathError
from evervec.sources.files.file_source import FileSource
from evervec.sources.files.file_uris import uri_of
from evervec.sources.files.readers import document
from evervec.sources.files.roots import Root

T = TypeVar("T")

LONG_AGO = 1_700_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with three old files."""
    for name in ("a.md", "sub/b.md", "sub/c.txt"):
        write(tmp_path / name, f"The text of {name}.")
    return tmp_path


def write(path: Path, text: str) -> str:
    """Write an old file and return its uri."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return uri_of(path)


async def everything(batches: AsyncIterator[list[T]]) -> list[T]:
    return [one async for batch in batches for one in batch]


async def read(source: FileSource, *uris: str) -> list[IncomingDocument | SkippedDocument]:
    return await everything(source.read([ListedDocument(uri) for uri in uris]))


def test_it_is_a_source(folder: Path) -> None:
    source: SourceReader = FileSource([folder])
    assert source.owns(uri_of(folder))


# --- listing ----------------------------------------------------------------------------------------------


async def test_a_listing_resumes_behind_any_uri(folder: Path) -> None:
    source = FileSource([folder])
    whole = await everything(source.listing())
    assert [one.uri for one in whole] == [uri_of(folder / name) for name in ("a.md", "sub/b.md", "sub/c.txt")]
    assert await everything(source.uris()) == [one.uri for one in whole]
    for count, one in enumerate(whole, 1):
        assert await everything(source.listing(after=one.uri)) == whole[count:]


async def test_a_listed_stamp_is_that_of_the_document_read(folder: Path) -> None:
    source = FileSource([folder])
    listed = [one for one in await everything(source.listing()) if isinstance(one, ListedDocument)]
    documents = await everything(source.read(listed))
    assert [(one.uri, one.stamp) for one in listed] == [(one.uri, getattr(one, "stamp", "")) for one in documents]
    assert all(one.stamp for one in listed)


async def test_checksum_lists_no_stamp(folder: Path) -> None:
    listed = await everything(FileSource([folder], checksum=True).listing())
    assert [getattr(one, "stamp", "") for one in listed] == [None, None, None]


async def test_batches_are_small_in_number_and_bytes(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number}.md").touch()
    assert [len(batch) async for batch in FileSource([tmp_path]).listing()] == [64, 64, 22]
    for number in range(4):
        os.truncate(tmp_path / f"{number}.md", 7_000_000)
    assert [len(batch) async for batch in FileSource([tmp_path], include=["[0-3].md"]).listing()] == [2, 2]


async def test_a_hundred_thousand_files_are_listed_while_others_go_on(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for number in range(4):
        os.close(os.open(f"{number}.md", os.O_CREAT, dir_fd=at))
    for number in range(4, 100_000):  # links to a few files: to make as many takes a disk ten times as long
        os.link(f"{number % 4}.md", f"{number}.md", src_dir_fd=at, dst_dir_fd=at)
    os.close(at)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticker = asyncio.create_task(tick())
    uris = [one.uri for one in await everything(FileSource([tmp_path]).listing())]
    ticker.cancel()
    shutil.rmtree(tmp_path)
    assert len(uris) == 100_000
    assert uris == sorted(uris)
    assert ticks > 50


async def test_files_removed_in_the_middle_are_not_listed_and_gone_when_read(tmp_path: Path) -> None:
    for number in range(200):
        write(tmp_path / f"{number:03}.md", "text")
    source = FileSource([tmp_path])
    listing = source.listing()
    first = await anext(listing)
    for number in (3, 150):
        (tmp_path / f"{number:03}.md").unlink()
    rest = await everything(listing)
    assert len(first) + len(rest) == 199
    outcomes = await everything(source.read([one for one in first if isinstance(one, ListedDocument)]))
    assert [one for one in outcomes if isinstance(one, SkippedDocument)] == [
        SkippedDocument(uri_of(tmp_path / "003.md"), "gone")
    ]


# --- reading ----------------------------------------------------------------------------------------------


async def test_a_file_is_its_text_and_an_empty_one_a_document_without(folder: Path) -> None:
    empty = write(folder / "empty.md", "")
    found = await read(FileSource([folder]), uri_of(folder / "sub/c.txt"), empty)
    texts = [one.text for one in found if isinstance(one, IncomingDocument)]
    assert texts == ["The text of sub/c.txt.", ""]
    assert [one.uri for one in found] == [uri_of(folder / "sub/c.txt"), empty]


async def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    uri = write(tmp_path / os.fsdecode(b"\xff\n.txt"), "text")
    assert [getattr(one, "text", one) for one in await read(FileSource([tmp_path]), uri)] == ["text"]


async def test_a_renamed_file_goes_and_comes_with_the_same_text(folder: Path) -> None:
    source = FileSource([folder])
    old, new = folder / "a.md", folder / "copy.md"
    before = (await read(source, uri_of(old)))[0]
    old.rename(new)
    gone, after = await read(source, uri_of(old), uri_of(new))
    assert gone == SkippedDocument(uri_of(old), "gone")
    assert isinstance(before, IncomingDocument) and isinstance(after, IncomingDocument)
    assert (after.text, after.stamp) == (before.text, before.stamp)
    assert not source.exists(uri_of(old)) and source.exists(uri_of(new))


async def test_what_a_listing_leaves_out_is_not_read_when_it_is_named(folder: Path) -> None:
    (folder / ".gitignore").write_text("ignored/\n")
    uris = [write(folder / name, "text") for name in ("ignored/a.md", "no.md", ".hidden.md", "sub/x.xyz", "long.md")]
    write(folder / "long.md", "x" * 101)
    os.mkfifo(folder / "pipe.md")
    found = await read(FileSource([folder], exclude=["no.md"], most_bytes=100), *uris, uri_of(folder / "pipe.md"))
    reasons = ["gone", "gone", "gone", "unknown format", "too large", "not a file"]
    assert [getattr(one, "reason", one) for one in found] == reasons


async def test_a_folder_has_no_document(folder: Path) -> None:
    assert await read(FileSource([folder]), uri_of(folder / "sub"), uri_of(folder)) == [
        SkippedDocument(uri_of(folder / "sub"), "not a file", "a folder"),
        SkippedDocument(uri_of(folder), "not a file", "a folder"),
    ]


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Path]:
    """Let another process append to a file."""
    path = tmp_path / "growing.txt"
    path.touch()
    writer = subprocess.Popen(["sh", "-c", f"while :; do echo line; done >> '{path}'"])
    yield path
    writer.kill()
    writer.wait()


async def test_a_file_that_keeps_growing_is_counted_as_torn(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = document.read_file

    def slowly(path: Path, *, most_bytes: int) -> IncomingDocument | SkippedDocument:
        size, deadline = path.stat().st_size, time.monotonic() + 60
        outcome = real(path, most_bytes=most_bytes)
        while path.stat().st_size == size and time.monotonic() < deadline:
            os.sched_yield()
        return outcome

    monkeypatch.setattr(document, "read_file", slowly)
    found = await read(FileSource([growing], most_bytes=1_000_000_000), uri_of(growing))
    assert found == [SkippedDocument(uri_of(growing), "torn", "it keeps changing")]


async def test_a_file_that_changes_once_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, texts = document.read_file, ["second", "third"]

    def edited(path: Path, *, most_bytes: int) -> IncomingDocument | SkippedDocument:
        outcome = real(path, most_bytes=most_bytes)
        if texts:
            write(path, texts.pop(0))
        return outcome

    monkeypatch.setattr(document, "read_file", edited)
    (found,) = await read(FileSource([folder]), uri_of(folder / "a.md"))
    assert isinstance(found, IncomingDocument)
    assert (found.text, found.stamp) == ("third", f"5:{LONG_AGO}000000000")


async def test_reading_breaks_off_when_the_root_is_gone(folder: Path) -> None:
    source = FileSource([folder / "sub"])
    shutil.rmtree(folder / "sub")
    with pytest.raises(UnreadablePathError, match="no such file"):
        await read(source, uri_of(folder / "sub/b.md"))


async def test_nothing_counts_as_gone_once_the_root_went_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, root = document.read_file, folder / "sub"

    def unmounting(path: Path, *, most_bytes: int) -> IncomingDocument | SkippedDocument:
        outcome = real(path, most_bytes=most_bytes)
        root.rename(folder / "elsewhere")
        root.mkdir()
        return outcome

    monkeypatch.setattr(document, "read_file", unmounting)
    with pytest.raises(UnreadablePathError, match="another folder took its place"):
        await read(FileSource([root]), uri_of(root / "b.md"), uri_of(root / "c.txt"))


# --- what belongs to it -----------------------------------------------------------------------------------


def test_it_owns_what_lies_below_its_roots(folder: Path) -> None:
    source = FileSource([folder / "sub", folder / "a.md"])
    owned = [folder / "sub", folder / "sub/b.md", folder / "sub/nothing/x.md", folder / "a.md"]
    assert all(source.owns(uri_of(path)) for path in owned)
    foreign = [folder, folder / "subway/b.md", folder / "a.mdx", folder / "sub.md"]
    assert not any(source.owns(uri_of(path)) for path in foreign)
    assert not source.owns("orders:17")
    assert FileSource([Path("/")]).owns("file:///etc/x")


def refuse(monkeypatch: pytest.MonkeyPatch, where: object, name: str, refused: Path) -> None:
    """Let a call fail for one path as it does for a user without permission; tests may run as root."""
    real: Callable[..., object] = getattr(where, name)

    def call(path: Path | str, **options: object) -> object:
        if Path(path) == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(where, name, call)


async def test_what_lies_in_a_closed_folder_is_neither_listed_nor_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, inside = FileSource([folder]), uri_of(folder / "sub/b.md")
    with monkeypatch.context() as closed:
        refuse(closed, os, "scandir", folder / "sub")
        assert source.owns(inside)
        assert await everything(source.uris()) == [uri_of(folder / "a.md"), uri_of(folder / "sub") + "/"]
        assert not source.owns(inside)
    assert inside in await everything(source.uris())
    assert source.owns(inside)


async def test_a_file_that_can_not_be_looked_at_may_still_be_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, closed = FileSource([folder]), folder / "a.md"
    refuse(monkeypatch, Path, "stat", closed)
    refuse(monkeypatch, Path, "lstat", closed)
    assert source.exists(uri_of(closed))
    assert uri_of(closed) in await everything(source.uris())
    assert await read(source, uri_of(closed)) == [SkippedDocument(uri_of(closed), "unreadable", "permission denied")]


def test_a_file_exists_until_it_is_gone_and_while_its_root_is_away(folder: Path) -> None:
    source = FileSource([folder / "sub", folder / "a.md"])
    (folder / "a.md").unlink()
    assert not source.exists(uri_of(folder / "a.md"))
    assert not source.exists(uri_of(folder / "sub/nothing.md"))
    assert not source.exists("orders:17")
    (folder / "sub").rename(folder / "elsewhere")
    assert source.exists(uri_of(folder / "sub/b.md"))


async def test_a_root_that_went_away_makes_the_listing_fail(folder: Path) -> None:
    source = FileSource([folder, folder / "sub"])
    shutil.rmtree(folder / "sub")
    with pytest.raises(UnreadablePathError):
        await everything(source.uris())
    with pytest.raises(UnreadablePathError):
        FileSource([folder / "sub"])


async def test_of_a_root_that_was_away_nothing_is_told_though_it_came_back(folder: Path) -> None:
    sub, file = Root(folder / "sub", True), Root(folder / "a.md", False)
    source = FileSource([folder, sub.path, file.path], away=[sub, file])
    for path in (sub.path / "b.md", sub.path / "never.md", file.path):
        assert source.exists(uri_of(path))
        assert not source.owns(uri_of(path))
    assert source.owns(uri_of(folder / "a.mdx"))
    shutil.rmtree(sub.path)
    (folder / "a.md").unlink()
    reason = "no such file or directory"
    assert await everything(source.listing()) == [
        SkippedDocument(file.uri, "unreadable", reason),
        SkippedDocument(sub.uri + "/", "unreadable", reason),
    ]
    assert await read(source, uri_of(sub.path / "b.md"), uri_of(folder / "x.md")) == [
        SkippedDocument(uri_of(sub.path / "b.md"), "unreadable", reason),
        SkippedDocument(uri_of(folder / "x.md"), "gone"),
    ]


async def test_a_single_file_that_went_away_is_gone(folder: Path) -> None:
    source = FileSource([folder / "a.md"])
    (folder / "a.md").unlink()
    assert await everything(source.uris()) == []
    assert await read(source, uri_of(folder / "a.md")) == [SkippedDocument(uri_of(folder / "a.md"), "gone")]


async def test_it_may_be_closed_twice(folder: Path) -> None:
    source = FileSource([folder])
    await source.aclose()
    await source.aclose()


# --- what changed -----------------------------------------------------------------------------------------


def test_paths_and_uris_are_named_once_each(folder: Path) -> None:
    source = FileSource([folder / "a.md", folder / "sub"])
    named = source.named({"files": ["b.md", str(folder / "sub/b.md"), uri_of(folder / "a.md"), "../sub/gone.md"]})
    assert named == [uri_of(folder / name) for name in ("sub/b.md", "a.md", "sub/gone.md")]
    assert source.named({}) == []


def test_a_named_folder_stands_for_its_files_and_a_gone_one_for_itself(folder: Path) -> None:
    write(folder / ".gitignore", "c.txt\nout\n")
    write(folder / "out/d.md", "text")
    (folder / "sub/back").symlink_to("..")
    source = FileSource([folder])
    assert source.named({"files": ["sub", "out", "was"]}) == [uri_of(folder / "sub/b.md"), uri_of(folder / "was")]
    assert FileSource([folder, folder / "out"]).named({"files": ["."]}) == [
        uri_of(folder / name) for name in ("a.md", "out/d.md", "sub/b.md")
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"files": [17]}, r"17 is not the path of a file"),
        ({"files": [""]}, r"'' is not the path of a file"),
        ({"files": "a.md"}, r"'a.md' is not a list of paths"),
        ({"files": ["a.md", "/etc/passwd"]}, r"'/etc/passwd' is not in the files of this dataset"),
        ({"files": ["../x.md"]}, r"'../x.md' is not in the files"),
        ({"files": ["file://host/x.md"]}, r"is not the URI of a file"),
        ({"files": ["a\0.md"]}, r"can not be the name of a file"),
        ({"files": ["\ud800.md"]}, r"can not be the name of a file"),
    ],
)
def test_what_is_no_path_of_it_is_refused_by_name(folder: Path, changed: ChangedIds, message: str) -> None:
    with pytest.raises(Refused, match=message):
        FileSource([folder]).named(changed)


def test_another_table_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UnknownTableError, match=r"no table 'orders'.*Known tables: files"):
        FileSource([folder]).named({"files": ["a.md"], "orders": [1]})


def test_a_source_needs_a_path() -> None:
    with pytest.raises(Refused, match="no path"):
        FileSource([])
