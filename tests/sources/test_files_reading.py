"""One file into one document: whatever it holds and whatever its encoding, text or a reason, never an exception."""

import codecs
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.sources.files.file_uris import uri_of
from evervec.sources.files.readers.document import read_bytes, read_file

MOST = 20_000_000
NAMES = ["a.md", "a.py", "a.txt", "a.html", "a.ipynb", "a.pdf", "a.rst", "a.go", "a", "README"]

RUSSIAN = (
    "Система хранит сообщения и документы в базе данных, а фоновый процесс строит для них векторы. Если поставщик не "
    "отвечает, строка остаётся в очереди и будет обработана позже. Ни одно сообщение не теряется, даже если компьютер "
    "выключили посреди работы.\n"
)
GERMAN = (
    "Die Straße nach München führt über Österreich; für Fußgänger ist sie während der Bauarbeiten gesperrt. Größere "
    "Verzögerungen müssen überall dort eingeplant werden, wo Züge ausfallen. Bitte prüfen Sie vor der Abfahrt die "
    "Anzeigen an den Bahnhöfen.\n"
)
POLISH = (
    "System zapisuje wiadomości i dokumenty w bazie danych, a proces w tle tworzy dla nich wektory. Jeśli dostawca nie "
    "odpowiada, wiersz pozostaje w kolejce i zostanie przetworzony później. Żadna wiadomość nie zginie.\n"
)
JAPANESE = 2 * (
    "システムはメッセージと文書をデータベースに保存し、バックグラウンドのプロセスがベクトルを作成します。プロバイダーが応答しない場合、"
    "行はキューに残り、後で処理されます。メッセージが失われることはありません。\n"
)
CHINESE = (
    3 * "系统把消息和文档保存在数据库中，后台进程为它们创建向量。如果提供商没有响应，该行将保留在队列中，稍后再处理。\n"
)
TAIWANESE = (
    3 * "系統把訊息和文件保存在資料庫中，背景程序為它們建立向量。如果供應商沒有回應，該列將保留在佇列中，稍後再處理。\n"
)
RIGHT_TO_LEFT = "שלום world, مرحبا 123 بالعالم! \u202bעברית\u202c and English\n"


def document(data: bytes, name: str = "a.txt") -> IncomingDocument:
    read = read_bytes(data, name, "file:///a")
    assert isinstance(read, IncomingDocument), read
    return read


def skipped(data: bytes, name: str = "a.txt") -> SkippedDocument:
    read = read_bytes(data, name, "file:///a")
    assert isinstance(read, SkippedDocument), read
    return read


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (RUSSIAN, "cp866"),
        (RUSSIAN, "iso8859_5"),
        (GERMAN, "latin-1"),
        (GERMAN, "cp850"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859_2"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (CHINESE, "gb18030"),
        (TAIWANESE, "big5"),
        (GERMAN, "utf-16"),
        (RUSSIAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (RUSSIAN, "utf-32"),
        (RUSSIAN, "utf-8"),
        (RUSSIAN, "utf-8-sig"),
    ],
)
def test_a_text_in_any_encoding_of_its_time_reads_right(text: str, charset: str) -> None:
    assert document(text.encode(charset)).text == text


def test_legacy_letters_are_found_behind_megabytes_of_ascii() -> None:
    text = "plain words, line after line\n" * 100_000 + RUSSIAN * 3 + "plain words\n" * 100_000
    assert document(text.encode("cp1251")).text == text


@pytest.mark.parametrize(
    "text",
    [
        "Copyright © 2020 André François. All rights reserved.\n",
        "Author: José Nuñez <jose@example.org>\n",
        "© 2019 Håkan Sjögren\n",
        "# naïve\nprice = 20  # £, at 20 °C\n",
    ],
)
def test_a_name_or_sign_in_latin_1_is_no_other_letter(text: str) -> None:
    assert document(text.encode("latin-1")).text == text


def test_a_python_cookie_is_believed_before_utf_8() -> None:
    source = '# -*- coding: koi8-r -*-\n"""Привет"""\n'
    read = document(source.encode("koi8-r"), "a.py")
    assert (read.text, read.title, read.format) == (source, "Привет", "python")


@pytest.mark.parametrize("cookie", ["punycode", "unicode_escape", "no-such-charset", "rot13", "utf-7"])
def test_a_cookie_that_names_no_charset_is_passed_over(cookie: str) -> None:
    source = f"# coding: {cookie}\nname = 'Straße'\n"
    assert document(source.encode(), "a.py").text == source


def test_utf_8_with_a_broken_byte_keeps_the_rest() -> None:
    data = (GERMAN * 5).encode()
    cut = data.index("ü".encode()) + 1
    read = document(data[:cut] + b"\xff" + data[cut + 1 :]).text
    assert "M\ufffd\ufffdnchen" in read and read.count("München") == 4


def test_utf_8_that_was_cut_within_its_last_letter_is_utf_8() -> None:
    assert document("für Grüße ü".encode()[:-1]).text == "für Grüße \ufffd"


def test_an_encoding_that_is_none_is_skipped() -> None:
    noise = bytes((37 * i * i + 11 * i) % 128 + 128 if i % 3 else 65 + i % 26 for i in range(4000))
    assert skipped(noise).reason == "not text"


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\x02\x01\x01" + bytes(64),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"PK\x03\x04\x14\x00\x08\x08",
        bytes(range(1, 32)) * 9,
        b"text\n" * 100 + b"\0",
        codecs.BOM_UTF16_LE + bytes([1, 0, 2, 0]) * 50,
    ],
)
def test_bytes_that_are_no_text_are_binary(data: bytes) -> None:
    assert skipped(data).reason in ("binary", "not text")
    assert skipped(data, "a").reason in ("binary", "not text")


def test_utf_16_that_is_torn_is_not_text() -> None:
    read = skipped(codecs.BOM_UTF16_LE + "text".encode("utf-16-le") + b"\x00\xd8")
    assert (read.reason, "UTF-16" in read.detail) == ("not text", True)


def test_colours_in_a_log_are_text() -> None:
    text = "\x1b[32mok\x1b[0m done\n" * 3
    assert document(text.encode(), "a.log").text == text


def test_line_ends_are_one_kind_and_form_feeds_stay() -> None:
    assert document(b"a\r\nb\rc\n\fd\r\n").text == "a\nb\nc\n\fd\n"


def test_a_late_nul_is_left_out_because_postgresql_stores_none() -> None:
    assert document(b"x" * 9000 + b"\0y").text == "x" * 9000 + "y"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_is_an_empty_document(name: str) -> None:
    read = document(b"", name)
    assert (read.text, read.title) == ("", "")
    assert read.format not in ("html", "notebook", "pdf")


def test_white_space_is_a_text() -> None:
    assert document(b" \n\t\n").text == " \n\t\n"


@pytest.mark.parametrize("text", ["x" * 10_000_000, "🦜👩‍👩‍👧🏽" * 1000, RIGHT_TO_LEFT * 50])
def test_unusual_texts_come_whole(text: str) -> None:
    for name in ("a.txt", "a.md", "a.py"):
        assert document(text.encode(), name).text == text


def test_the_title_comes_from_the_content() -> None:
    assert document(b"# Retrying\n\ntext", "a.md").title == "Retrying"
    assert document(b'"""Run coroutines together.\n\nMore."""\n', "a.py").title == "Run coroutines together."
    assert document(b"just text", "Retrying.txt").title == ""
    assert document(b"# One\n", "here.md") == document(b"# One\n", "there.md")


def test_a_file_without_suffix_is_what_its_first_line_says() -> None:
    assert document(b"#!/usr/bin/env python3\nx = 1\n", "tool").format == "python"
    assert document(b"words", "tool").format == "plain"


@given(st.binary(max_size=300) | st.text().map(str.encode), st.sampled_from(NAMES))
def test_no_content_ever_raises(data: bytes, name: str) -> None:
    for more in (b"", b"%PDF-1.7\n", b'{"cells": [', b"<p><li>"):
        read = read_bytes(more + data, name, "file:///a")
        assert isinstance(read, IncomingDocument | SkippedDocument)
        if isinstance(read, IncomingDocument):
            assert not set(read.text) & {"\0", "\r"}
            read.text.encode()


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_uri(tmp_path: Path) -> None:
    path = tmp_path / "new\nline.md"
    path.write_text("# Title\r\n\r\ntext\r\n", newline="")
    assert read_file(path, most_bytes=MOST) == IncomingDocument(uri_of(path), "Title", "# Title\n\ntext\n", "markdown")


def test_a_name_that_is_not_utf_8_is_read_too(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_bytes(b"text")
    read = read_file(path, most_bytes=MOST)
    assert isinstance(read, IncomingDocument) and read.uri.endswith("/caf%E9.txt")


def test_a_file_that_went_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none.md", tmp_path / "file" / "below.md"):
        assert read_file(path, most_bytes=MOST) == SkippedDocument(uri_of(path), "gone")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "folder.md").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.md"))
        for name in ("pipe.md", "folder.md", "socket.md"):
            read = read_file(tmp_path / name, most_bytes=MOST)
            assert isinstance(read, SkippedDocument) and read.reason == "not a file"


def test_a_link_to_itself_is_unreadable_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "loop.md"
    path.symlink_to(path)
    assert read_file(path, most_bytes=MOST) == SkippedDocument(uri_of(path), "unreadable", os.strerror(40))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("x")
    path.chmod(0)
    assert read_file(path, most_bytes=MOST) == SkippedDocument(uri_of(path), "unreadable", "Permission denied")


def test_a_file_of_200_mb_is_left_out_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    read = read_file(path, most_bytes=MOST)
    assert isinstance(read, SkippedDocument) and read.reason == "too large"
    assert "200,000,000" in read.detail and "20,000,000" in read.detail


def test_the_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100)
    assert isinstance(read_file(path, most_bytes=100), IncomingDocument)
    assert isinstance(read_file(path, most_bytes=99), SkippedDocument)


def test_a_file_whose_size_says_nothing_is_read_to_its_end_or_the_limit() -> None:
    """Read a file of /proc.

    It has size 0, like a file that grows after its size was taken.
    """
    path = Path("/proc/self/status")
    whole = read_file(path, most_bytes=MOST)
    assert isinstance(whole, IncomingDocument) and "VmRSS" in whole.text
    cut = read_file(path, most_bytes=100)
    assert isinstance(cut, SkippedDocument) and cut.reason == "too large"
