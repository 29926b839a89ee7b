"""`Document`: made of a text or of a file, and refused with a reason where there is none to be had."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfWriter

from evervec import Document, SemanticCore
from evervec.errors import Refused, UnreadablePathError


def locked(path: Path) -> None:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret")
    writer.write(path)


def scanned(path: Path) -> None:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(path)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.md", lambda path: None, "gone"),
    "below a file": ("a.md/b.md", lambda path: path.parent.write_text("a"), "gone"),
    "link to nowhere": ("a.md", lambda path: path.symlink_to(path.with_name("none")), "gone"),
    "link to itself": ("a.md", lambda path: path.symlink_to(path), "unreadable"),
    "folder": ("a.md", Path.mkdir, "not a file"),
    "pipe": ("a.md", os.mkfifo, "not a file"),
    "name that is too long": ("a" * 300, lambda path: None, "unreadable"),
    "too large": ("a.md", lambda path: path.write_text("word " * 1_000), "too large"),
    "binary": ("a.md", lambda path: path.write_bytes(bytes(range(256)) * 2), "binary"),
    "torn notebook": ("a.ipynb", lambda path: path.write_text('{"cells": ['), "torn"),
    "torn PDF": ("a.pdf", lambda path: path.write_bytes(b"%PDF-1.7\nand then nothing"), "torn"),
    "locked PDF": ("a.pdf", locked, "encrypted"),
    "PDF of pictures": ("a.pdf", scanned, "no text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_path_without_a_text_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    name, make, reason = REFUSED[case]
    make(tmp_path / name)
    with pytest.raises(UnreadablePathError) as refused:
        Document.from_path(tmp_path / name, most_bytes=4_000)
    assert reason in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(UnreadablePathError, match="unreadable"):
        Document.from_path(path)


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can not be the name of a file"):
        Document.from_path(f"{tmp_path}/a\0b.md")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_a_document_with_its_title_and_format(tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# What we decided\n\nTo go on.\n")
    document = Document.from_path(kind(path))
    assert (document.title, document.format) == ("What we decided", "markdown")
    assert document.uri == path.as_uri()
    assert "To go on." in document.text


def test_a_relative_path_is_the_same_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.md").write_text("To go on.")
    monkeypatch.chdir(tmp_path)
    assert Document.from_path("notes.md") == Document.from_path(tmp_path / "notes.md")


def test_a_text_becomes_what_postgresql_can_store() -> None:
    document = Document.from_text("a", "one\0two \ud800 \ud83d\ude00", title="t\0\udfff")
    assert (document.text, document.title) == ("onetwo \ufffd \U0001f600", "t\ufffd")


async def test_texts_of_any_kind_go_in(local: SemanticCore, tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("")
    odd = ["", " \n\t", "\0\ud800", "🙂" * 50, "word" * 50_000, "שלום world مرحبا", "\u200b\ufeff"]
    documents = [Document.from_text(f"odd:{n}", text, title="\0") for n, text in enumerate(odd)]
    done = await local.ingest([*documents, Document.from_path(tmp_path / "empty.md")], mode="sync")
    assert (done.documents, done.pending, done.failed) == (8, 0, 0)
    again = await local.ingest([*documents, Document.from_path(tmp_path / "empty.md")], mode="sync")
    assert (again.documents_unchanged, again.embedded) == (8, 0)


@pytest.mark.parametrize("uri", ["a\0b", "\ud800"])
async def test_an_identity_that_postgresql_can_not_store_is_refused(local: SemanticCore, uri: str) -> None:
    with pytest.raises(Refused, match="uri"):
        await local.ingest(Document.from_text(uri, "text"), mode="sync")
    assert (await local.ingest(Document.from_text("fine", "text"), mode="sync")).embedded == 1


def test_a_document_survives_pickling_and_says_what_it_is() -> None:
    document = Document.from_text("a", "birds sing in the morning")
    assert pickle.loads(pickle.dumps(document)) == document
    assert repr(document).startswith("LibraryDocument(uri='a', ")
