"""Images and audio files: which files they are, by name and first bytes, and their content; nothing is decoded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Final

from evervec.domain.documents.document import IncomingDocument, Media, SkippedDocument
from evervec.domain.text import clean, snippet
from evervec.sources.files.file_uris import stamp_of, uri_of
from evervec.sources.files.readers.file_bytes import LONGEST_TITLE, read_content, skipped, unreadable_for
from evervec.sources.files.readers.unreadable import Unreadable

MOST_MEDIA_BYTES: Final = 20_000_000
"""The largest file that providers accept inside one line of a batch."""

HEAD_BYTES: Final = 64
"""How many first bytes tell the type of a file."""

_BY_SUFFIX: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "heic": "image/heic",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
}

_BEGINNINGS: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"ADIF": "audio/aac",
}

_RIFF: Final[Mapping[bytes, str]] = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}

_STILLS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
_SOUNDS: Final = frozenset({b"M4A ", b"M4B ", b"mp41", b"mp42", b"isom", b"iso2", b"iso5", b"iso6", b"dash"})
"""Brands of ISO base media files, four letters each. https://mp4ra.org/registered-types/brands"""

_TAGGED: Final = frozenset({"audio/mpeg", "audio/aac", "audio/flac"})
"""An ID3 tag may precede any of these, and does not say which."""

_BETWEEN_WORDS: Final = re.compile(r"[\s_+]+|(?<!\d)[-.]+|[-.]+(?!\d)")


@dataclass(frozen=True)
class MediaContent:
    """A media file as it was read: all its bytes, and what they are."""

    data: bytes
    media: Media


def is_media(path: PurePath) -> bool:
    """Return whether a name is that of an image or an audio file, in any letter case."""
    return _suffix(path) in _BY_SUFFIX


def media_type_of(name: PurePath, head: bytes) -> str | None:
    """Return the type of a file (`image/png`) by its name and its first `HEAD_BYTES` bytes.

    None where they do not agree. The name tells image or audio; the bytes tell which: a JPEG is often called .png.
    """
    promised = _BY_SUFFIX.get(_suffix(name))
    if promised is None:
        return None
    if head.startswith(b"ID3"):
        return promised if promised in _TAGGED else "audio/mpeg" if promised.startswith("audio/") else None
    found = _by_bytes(head)
    return found if found is not None and _kind(found) == _kind(promised) else None


def read_media(path: Path, *, most_bytes: int = MOST_MEDIA_BYTES) -> MediaContent | SkippedDocument:
    """Read an image or an audio file with its bytes. Blocking; at most `most_bytes` + 1 bytes are read.

    No content of a file raises. The reasons of a `SkippedDocument`: `gone`, `unreadable`, `not a file`, `too large`,
    `empty`, `not what its name says`.
    """
    try:
        data = read_content(path, most_bytes)
        media_type = media_type_of(path, data[:HEAD_BYTES])
        if media_type is None:
            raise _unknown_content(path, data)
        return MediaContent(data, Media(_storable(path), media_type, len(data), sha256(data).digest()))
    except Unreadable as problem:
        return skipped(uri_of(path), problem)
    except OSError as error:
        return skipped(uri_of(path), unreadable_for(error))


def media_document(path: Path, *, most_bytes: int = MOST_MEDIA_BYTES) -> IncomingDocument | SkippedDocument:
    """Return the document of an image or an audio file: titled by its name, without a text. Blocking.

    The reasons of a `SkippedDocument` are those of `read_media`.
    """
    try:
        stamp = stamp_of(path.stat())
    except OSError as error:
        return skipped(uri_of(path), unreadable_for(error))
    content = read_media(path, most_bytes=most_bytes)
    if isinstance(content, SkippedDocument):
        return content
    media = content.media
    return IncomingDocument(uri_of(path), title_of(path), "", _kind(media.media_type), stamp, media)


def title_of(path: PurePath) -> str:
    """Return a file's name as words: `2026-05-01_team-photo.png` is `2026-05-01 team photo`."""
    words = " ".join(_BETWEEN_WORDS.sub(" ", path.stem).split())
    return snippet(clean(words or path.stem), LONGEST_TITLE)


def _suffix(path: PurePath) -> str:
    return path.suffix[1:].lower()


def _kind(media_type: str) -> str:
    """Return `image` or `audio`."""
    return media_type.partition("/")[0]


def _by_bytes(head: bytes) -> str | None:
    for beginning, media_type in _BEGINNINGS.items():
        if head.startswith(beginning):
            return media_type
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if len(head) > 2 and head[0] == 0xFF:
        return _by_frame(head[1])
    return None


def _by_brand(head: bytes) -> str | None:
    """Tell an ISO base media file by its brand; general image brands by the brands they are compatible with."""
    brand = head[8:12]
    length = min(int.from_bytes(head[:4], "big"), len(head))
    others = {head[at : at + 4] for at in range(16, length, 4)}
    if brand in _STILLS or (brand in (b"mif1", b"msf1") and others & _STILLS):
        return "image/heic"
    return "audio/mp4" if brand in _SOUNDS else None


def _by_frame(second: int) -> str | None:
    """Tell an MPEG frame by its header.

    Eleven bits are set, then come version and layer (ISO 11172-3, 2.4.2.3; ADTS has layer 0).
    """
    if second & 0xF6 == 0xF0:
        return "audio/aac"
    sound = second & 0xE0 == 0xE0 and second & 0x18 != 0x08 and second & 0x06 == 0x02
    return "audio/mpeg" if sound else None


def _unknown_content(path: Path, data: bytes) -> Unreadable:
    if not data:
        return Unreadable("empty", "it has no bytes")
    known = ", ".join(_BY_SUFFIX)
    return Unreadable(
        "not what its name says", f"it begins with {data[:8].hex(' ')}, which is no {_suffix(path)}; known are {known}"
    )


def _storable(path: Path) -> str:
    """Return the path as PostgreSQL can store it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise Unreadable("unreadable", "its name is not UTF-8: rename it") from None
    return str(path)
