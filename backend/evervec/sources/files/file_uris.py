"""The uri of a file, and the stamp that tells one version of it from the next; no file is opened here."""

import os
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from evervec.errors import Refused

_YOUNG_NS: Final = 2_000_000_000
_HOW_TO_NAME: Final = "Give an absolute path, or a URI like file:///home/mara/notes/plan.md."


def uri_of(path: Path) -> str:
    """Return the file URI of a path made absolute, without `..`, links as they are: `file:///a/b%0Ac.md`.

    It encodes the bytes of the file system, so every name has one. Raises `Refused` for an impossible file name.
    """
    try:
        return f"file://{encode(str(normalize(path)))}"
    except ValueError:
        raise Refused(reason=f"{str(path)!r} can not be the name of a file. {_HOW_TO_NAME}") from None


def path_of(uri: str) -> Path:
    """Return the path of a uri of `uri_of`. Raises `Refused` for anything but a file URI of this machine."""
    try:
        scheme, path = uri[:8], os.fsdecode(unquote_to_bytes(uri[7:]))
    except ValueError:
        scheme, path = "", ""
    if scheme != "file:///" or "\0" in path:
        raise Refused(reason=f"{uri!r} is not the URI of a file. {_HOW_TO_NAME}")
    return normalize(Path(path))


def normalize(path: Path) -> Path:
    """Return the path, absolute and without `.` and `..`; links are not followed."""
    return Path("/" + os.path.normpath(path.absolute()).lstrip("/"))


def encode(name: str) -> str:
    """Return a name, or a path, encoded for a URI. Raises `ValueError` for an impossible file name."""
    if "\0" in name:
        raise ValueError("a name can not hold a NUL")
    return quote_from_bytes(os.fsencode(name))


def stamp_of(found: os.stat_result) -> str | None:
    """Return `size:mtime_ns`, to be taken before the file is read; None for a file that changed in the last 2 s.

    A second edit within one tick of the file system's clock changes neither size nor time. Ticks last 4 ms on ext4 and
    2 s on FAT, so a file that changed in the last 2 s (or in the future) must be read again, as git does it. File times
    come from the wall clock, so they are compared with it: a clock that is set back costs one more reading.
    """
    if found.st_mtime_ns > time.time_ns() - _YOUNG_NS:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"
