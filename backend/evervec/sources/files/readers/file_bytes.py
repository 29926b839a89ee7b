"""The bytes of one file, or why they can not be read; loads quickly, because formats are read elsewhere."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from evervec.domain.documents.document import SkippedDocument
from evervec.domain.text import clean, snippet
from evervec.sources.files.readers.unreadable import Unreadable

LONGEST_TITLE: Final = 200
_LONGEST_DETAIL: Final = 300


def skipped(uri: str, problem: Unreadable) -> SkippedDocument:
    """Return the skipped document of a file that can not be read."""
    return SkippedDocument(uri, problem.reason, snippet(clean(problem.detail), _LONGEST_DETAIL))


def unreadable_for(error: OSError) -> Unreadable:
    """Return why a file could not be opened, in our words."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return Unreadable("gone")
        case errno.ENXIO:
            return _no_file()
        case _:
            return Unreadable("unreadable", error.strerror or str(error))


def read_content(path: Path, most_bytes: int) -> bytes:
    """Return all bytes of a regular file as it is now, however it grows. A pipe is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _no_file()
        _refuse_large(found.st_size, most_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(found.st_size + 1)
            if len(data) > found.st_size:
                data += file.read(most_bytes + 1 - len(data))
    finally:
        os.close(descriptor)
    _refuse_large(len(data), most_bytes)
    return data


def _refuse_large(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise Unreadable("too large", f"it has {size:,} bytes or more, and {most_bytes:,} are the most that are read")


def _no_file() -> Unreadable:
    return Unreadable("not a file", "it is a folder, a pipe, a socket or a device")
