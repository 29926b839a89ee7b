"""What a file is called, and how a version of it is told from the next: file URIs and stamps; no file is opened here."""

import os
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from evervec.errors import Refused

_YOUNG_NS: Final = 2_000_000_000
_HOW_TO_NAME: Final = "Give an absolute path, or a URI like file:///home/mara/notes/plan.md."


def uri_of(path: Path) -> str:
    """The file URI of a path made absolute, without `..`, links as they are: `file:///a/b%0Ac.md`.

    It encodes the bytes that the file system keeps, so every name has one. Raises `Refused` for what no file is called.
    """
    try:
        return f"file://{encode(str(normalize(path)))}"
    except ValueError:
        raise Refused(reason=f"{str(path)!r} can not be the name of a file. {_HOW_TO_NAME}") from None


def path_of(uri: str) -> Path:
    """The path that `uri_of` made this of. Raises `Refused` for anything but a file URI of this machine."""
    try:
        scheme, path = uri[:8], os.fsdecode(unquote_to_bytes(uri[7:]))
    except ValueError:
        scheme, path = "", ""
    if scheme != "file:///" or "\0" in path:
        raise Refused(reason=f"{uri!r} is not the URI of a file. {_HOW_TO_NAME}")
    return normalize(Path(path))


def normalize(path: Path) -> Path:
    """The path, absolute and without `.` and `..`; links are not followed."""
    return Path("/" + os.path.normpath(path.absolute()).lstrip("/"))


def encode(name: str) -> str:
    """A name, or a path, as it stands in a URI. Raises `ValueError` for what no file is called."""
    if "\0" in name:
        raise ValueError("a name can not hold a NUL")
    return quote_from_bytes(os.fsencode(name))


def stamp_of(found: os.stat_result) -> str | None:
    """`size:mtime_ns`, taken before the file is read; None while the file is so young that its stamp promises nothing.

    A second edit in the same tick of the file system's clock leaves size and time as they are. Ticks last 4 ms on ext4
    and 2 s on FAT, so a file that was changed in the last 2 s (or in the future) is to be read again, as git does it.
    File times come from the wall clock, so they are compared with it: a clock that is set back costs a reading.
    """
    if found.st_mtime_ns > time.time_ns() - _YOUNG_NS:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"
