"""Which files are pictures and sounds: by name and first bytes, and nothing that a file may hold raises."""

import os
from hashlib import sha256
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec import Document as Given
from evervec.domain.documents.document import IncomingDocument, Media, SkippedDocument
from evervec.errors import UnreadablePathError
from evervec.sources.files.media import (
    MOST_MEDIA_BYTES,
    MediaContent,
    is_media,
    media_document,
    media_type_of,
    read_media,
    title_of,
)

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
GENERAL = b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic"
AVIF = b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif"
M4A = b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00M4A mp42"

KNOWN = [
    ("a.png", PNG, "image/png"),
    ("A.PNG", PNG, "image/png"),
    ("a.jpg", JPEG, "image/jpeg"),
    ("a.jpeg", b"\xff\xd8\xff\xe1", "image/jpeg"),
    ("a.gif", b"GIF87a", "image/gif"),
    ("a.gif", b"GIF89a", "image/gif"),
    ("a.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
    ("a.heic", HEIC, "image/heic"),
    ("a.heic", GENERAL, "image/heic"),
    ("a.wav", b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
    ("a.wav", b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav"),
    ("a.mp3", b"ID3\x04\x00", "audio/mpeg"),
    ("a.mp3", b"\xff\xfb\x90\x64", "audio/mpeg"),
    ("a.mp3", b"\xff\xf3\x90\x64", "audio/mpeg"),
    ("a.flac", b"fLaC\x00", "audio/flac"),
    ("a.flac", b"ID3\x04\x00", "audio/flac"),
    ("a.ogg", b"OggS\x00", "audio/ogg"),
    ("a.m4a", M4A, "audio/mp4"),
    ("a.aac", b"\xff\xf1\x50\x80", "audio/aac"),
    ("a.aac", b"\xff\xf9\x50\x80", "audio/aac"),
    ("a.aac", b"ADIF", "audio/aac"),
    # which picture, and which sound, is said by the bytes
    ("a.png", JPEG, "image/jpeg"),
    ("a.mp3", b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
]
STRANGE = [
    ("a.png", b""),
    ("a.png", b"\x89PNG"),
    ("a.png", b"<svg xmlns="),
    ("a.png", b"OggS\x00"),
    ("a.png", b"ID3\x04\x00"),
    ("a.mp3", PNG),
    ("a.mp3", b"\xff\xfe\x00\x00"),
    ("a.mp3", b"\xff\xeb\x00\x00"),
    ("a.mp3", b"\xff"),
    ("a.heic", AVIF),
    ("a.m4a", HEIC),
    ("a.webp", b"RIFF\x10\x00\x00\x00AVI LIST"),
    ("a.txt", PNG),
    ("png", PNG),
]


@pytest.mark.parametrize(("name", "head", "media_type"), KNOWN)
def test_name_and_first_bytes_tell_what_a_file_is(name: str, head: bytes, media_type: str) -> None:
    assert is_media(PurePath(name))
    assert media_type_of(PurePath(name), head) == media_type


@pytest.mark.parametrize(("name", "head"), STRANGE)
def test_where_name_and_bytes_do_not_agree_it_is_nothing(name: str, head: bytes) -> None:
    assert media_type_of(PurePath(name), head) is None


@given(name=st.sampled_from([name for name, _, _ in KNOWN]), head=st.binary(max_size=64))
def test_no_bytes_raise(name: str, head: bytes) -> None:
    found = media_type_of(PurePath(name), head)
    assert found is None or found.partition("/")[0] in ("image", "audio")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("2026-05-01_team-photo.png", "2026-05-01 team photo"),
        ("IMG_4711.JPG", "IMG 4711"),
        ("a+b  c.wav", "a b c"),
        ("v1.2 plan.png", "v1.2 plan"),
        ("Grüße_aus__Köln.png", "Grüße aus Köln"),
        ("___.png", "___"),
        ("two\nlines.png", "two lines"),
        (f"{'x' * 300}.png", "x" * 199 + "…"),
    ],
)
def test_a_title_is_the_name_made_readable(name: str, title: str) -> None:
    assert title_of(PurePath(name)) == title


def test_a_picture_becomes_a_document_without_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a_b.png"
    path.write_bytes(PNG + b"pixels")
    os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    media = Media(str(path), "image/png", 14, sha256(PNG + b"pixels").digest())
    assert media_document(path) == IncomingDocument(f"file://{path}", "a b", "", "image", "14:1000000000", media)
    content = read_media(path)
    assert isinstance(content, MediaContent)
    assert (content.data, content.media) == (PNG + b"pixels", media)


def reason(found: object) -> tuple[str, str]:
    assert isinstance(found, SkippedDocument), found
    return found.reason, found.detail


def test_what_can_not_be_read_has_a_reason(tmp_path: Path) -> None:
    def file(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(media_document(tmp_path / "gone.png")) == ("gone", "")
    assert reason(media_document(tmp_path / "folder.png"))[0] == "not a file"
    assert reason(media_document(tmp_path / "pipe.png"))[0] == "not a file"
    assert reason(media_document(file("empty.png", b""))) == ("empty", "it has no bytes")
    found = reason(media_document(file("text.png", b"just text")))
    assert found[0] == "not what its name says"
    assert found[1].startswith("it begins with 6a 75 73 74 20 74 65 78, which is no png; known are png, jpg,")
    assert reason(media_document(file("large.png", PNG + bytes(100)), most_bytes=107))[0] == "too large"
    assert isinstance(media_document(tmp_path / "large.png", most_bytes=108), IncomingDocument)


def test_more_than_twenty_megabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(MOST_MEDIA_BYTES + 1)
    assert reason(read_media(path))[0] == "too large"
    with pytest.raises(UnreadablePathError, match="too large"):
        Given.from_path(path, most_bytes=100_000_000)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    path.write_bytes(PNG)
    assert reason(media_document(path)) == ("unreadable", "its name is not UTF-8: rename it")


def test_from_path_takes_pictures_and_refuses_what_only_is_called_like_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    found = Given.from_path(tmp_path / "a.png")
    assert (type(found), found.format, found.text) == (Given, "image", "")
    assert found.media == Media(str(tmp_path / "a.png"), "image/png", 8, sha256(PNG).digest())
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(UnreadablePathError, match="not what its name says"):
        Given.from_path(tmp_path / "b.png")
    (tmp_path / "c.txt").write_text("text")
    assert Given.from_path(tmp_path / "c.txt").media is None
