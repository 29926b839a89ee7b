"""The files and folders that a user named: which uris belong to them, and whether they are still the same."""

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evervec.errors import UnreadablePathError
from evervec.sources.files.file_uris import normalize, uri_of

FileIdentity = tuple[int, int]
"""Device and inode: the same file or folder, whatever its name."""


@dataclass(frozen=True)
class Root:
    """A file or folder that a user named; `path` is absolute, with links as they were given."""

    path: Path
    is_folder: bool

    @classmethod
    def at(cls, path: Path) -> "Root":
        """Return the root at `path`. Raises `UnreadablePathError` when there is none that this user may read."""
        uri_of(path)
        root = cls(normalize(path), is_folder(path))
        root.identity()
        return root

    @cached_property
    def uri(self) -> str:
        """Return its uri; the uris of all that is below a folder begin with it and a `/`."""
        return uri_of(self.path)

    def owns(self, uri: str) -> bool:
        """Return whether a uri is this one, or below it."""
        return uri == self.uri or uri.startswith(self.uri.rstrip("/") + "/")

    def identity(self) -> FileIdentity:
        """Return the identity of the present file or folder. Raises `UnreadablePathError` as `at` does."""
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
        """Return why it can not be read now; an empty text when it can."""
        try:
            self.identity()
        except UnreadablePathError as error:
            return str(error.values["reason"])
        return ""

    def is_away(self) -> bool:
        """Return whether this is a folder that can not be read now, so that nothing is known of its files."""
        return self.is_folder and bool(self.unreadable_reason())

    def is_gone(self) -> bool:
        """Return whether this is a file that was deleted: its folder is readable, and the file is not in it."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return not self.is_folder and not Root(self.path.parent, True).unreadable_reason()
        except OSError:
            return False
        return False


def is_folder(one: "os.DirEntry[str] | Path") -> bool:
    """Return whether a path is a folder, or a link to one; False when that is not known."""
    try:
        return one.is_dir()
    except OSError:
        return False


def system_reason(error: OSError) -> str:
    """Return the system's reason for a failed call, without the path."""
    return (error.strerror or str(error)).lower()
