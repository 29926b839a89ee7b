"""The files and folders that were asked for by name: which uris are theirs, and whether they are still the same."""

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evervec.errors import UnreadablePathError
from evervec.sources.files.file_uris import normalize, uri_of

FileIdentity = tuple[int, int]
"""Which file or folder it is, whatever it is called: device and inode."""


@dataclass(frozen=True)
class Root:
    """A file or folder that was asked for by name; `path` is absolute, with the links as they were given."""

    path: Path
    is_folder: bool

    @classmethod
    def at(cls, path: Path) -> "Root":
        """What there is at `path`. Raises `UnreadablePathError` when that is nothing, or nothing that this user may read."""
        uri_of(path)
        root = cls(normalize(path), is_folder(path))
        root.identity()
        return root

    @cached_property
    def uri(self) -> str:
        """Its uri; those of all that is below a folder begin with it and a `/`."""
        return uri_of(self.path)

    def owns(self, uri: str) -> bool:
        """Whether a uri is this one, or below it."""
        return uri == self.uri or uri.startswith(self.uri.rstrip("/") + "/")

    def identity(self) -> FileIdentity:
        """Which file or folder it is now. Raises `UnreadablePathError` as `at` does."""
        try:
            found = self.path.stat()
            if self.is_folder:
                os.scandir(self.path).close()
            elif not os.access(self.path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise UnreadablePathError(path=str(self.path), reason=system_reason(error)) from None
        return found.st_dev, found.st_ino

    def unreadable_reason(self) -> str:
        """Why it can not be read now; nothing when it can."""
        try:
            self.identity()
        except UnreadablePathError as error:
            return str(error.values["reason"])
        return ""

    def is_away(self) -> bool:
        """Whether this is a folder that can not be looked into now, so that nothing is known of what is in it."""
        return self.is_folder and bool(self.unreadable_reason())

    def is_gone(self) -> bool:
        """Whether this is a file, and the folder that it was in is there without it."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return not self.is_folder and not Root(self.path.parent, True).unreadable_reason()
        except OSError:
            return False
        return False


def is_folder(one: "os.DirEntry[str] | Path") -> bool:
    """Whether it is a folder, or a link to one; what can not be told is none."""
    try:
        return one.is_dir()
    except OSError:
        return False


def system_reason(error: OSError) -> str:
    """What the system says of a failed call, without the path."""
    return (error.strerror or str(error)).lower()
