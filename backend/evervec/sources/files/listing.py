"""The files below a root in the order of their uris, and what is left out and why; no file is opened here."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Final

from evervec.domain.documents.document import ListedDocument, SkippedDocument
from evervec.errors import UnreadablePathError
from evervec.sources.files import ignore
from evervec.sources.files.file_uris import encode, stamp_of
from evervec.sources.files.formats import is_known_format
from evervec.sources.files.ignore import FileFilter, Rules
from evervec.sources.files.roots import FileIdentity, Root, is_folder, system_reason

_MOST_LINKS: Final = 16
"""How often a folder is entered through links: between folders that link to each other there are endless paths."""

ListingEntry = tuple[ListedDocument | SkippedDocument, int]
"""A file and its size in bytes; 0 for a file that is left out. The uri of a folder ends in `/`."""


class SkipReason(StrEnum):
    """Why a file has no document."""

    BINARY = "binary"
    TOO_LARGE = "too large"
    NOT_A_FILE = "not a file"
    SYMLINK_LOOP = "symlink loop"
    UNREADABLE = "unreadable"
    GONE = "gone"
    EMPTY = "empty"
    ENCRYPTED = "encrypted"
    NO_TEXT = "no text"
    TORN = "torn"
    UNKNOWN_FORMAT = "unknown format"
    NOT_TEXT = "not text"


@dataclass(frozen=True)
class _Folder:
    """A folder on the walk. `path` and `uri` end in `/`; paths relative to the root begin at `start`."""

    path: str
    uri: str
    start: int
    rules: Rules
    keys: frozenset[FileIdentity]
    included: bool = False


class FileTree:
    """The files below one root at one time. `blocked` collects the uris of folders that could not be read."""

    def __init__(self, root: Root, file_filter: FileFilter, most_bytes: int) -> None:
        self._root, self._filter, self._most_bytes = root, file_filter, most_bytes
        self._key = root.identity() if root.is_folder else None
        self._links = Counter[FileIdentity]()
        self._ways = dict[Path, _Folder | ListingEntry | None]()
        self.blocked: list[str] = []

    def check_root(self) -> None:
        """Raise `UnreadablePathError` when the root is no longer the folder that it was.

        An unmounted file system leaves an empty folder behind: all documents would seem to be gone.
        """
        if self._key and self._root.identity() != self._key:
            raise UnreadablePathError(path=str(self._root.path), reason="another folder took its place meanwhile")

    def walk(self, at: Path | None = None) -> Iterator[ListingEntry]:
        """Yield everything at or below the root, or below a folder in it, in the order of the uris.

        Raises `UnreadablePathError` when the root can not be read, or is no longer there at the end.
        """
        top = self.find(at or self._root.path)
        stack = [self._children(top) if isinstance(top, _Folder) else iter([top] if top else [])]
        while stack:
            for child in stack[-1]:
                if isinstance(child, _Folder):
                    stack.append(self._children(child))
                    break
                yield child
            else:
                stack.pop()
        self.check_root()

    def find(self, path: Path) -> "_Folder | ListingEntry | None":
        """Return what a listing would have for a path at or below the root; None if it would not have it."""
        node, at = self._top, self._root.path
        for name in path.relative_to(at).parts:
            if not isinstance(node, _Folder):
                break
            at = at / name
            node = self._way(node, at) if at != path else self._child(node, name, encode(name) + "/" * is_folder(path))
        return node

    def reaches(self, path: Path) -> bool:
        """Return whether a listing reaches a path: a folder that is entered, or a file that is included."""
        found = self.find(path)
        return isinstance(found[0], ListedDocument) if isinstance(found, tuple) else found is not None

    def _way(self, above: _Folder, at: Path) -> "_Folder | ListingEntry | None":
        """Return a folder on the way to a path, cached, because many paths are looked up in it."""
        if at not in self._ways:
            self._ways[at] = self._child(above, at.name, encode(at.name) + "/")
        return self._ways[at]

    @cached_property
    def _top(self) -> "_Folder | ListingEntry | None":
        path = self._root.path
        if not self._root.is_folder:
            name, wanted = path.name, self._filter.includes(path.name, above=not self._filter.include)
            return None if self._filter.excludes(name) or not wanted else self._file(path, self._root.uri, named=True)
        try:
            rules = ignore.rules_in(path, ignore.rules_above(path))
        except OSError as error:
            raise UnreadablePathError(
                path=str(path), reason=f"its .gitignore is not readable: {system_reason(error)}"
            ) from None
        keys = frozenset([self._root.identity()])
        at, uri = str(path).rstrip("/") + "/", self._root.uri.rstrip("/") + "/"
        return _Folder(at, uri, len(at), rules, keys)

    def _children(self, folder: _Folder) -> Iterator["_Folder | ListingEntry"]:
        try:
            with os.scandir(folder.path) as found:
                names = sorted((encode(one.name) + "/" * is_folder(one), one.name) for one in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield self._block(folder.uri, error)
            return
        for code, name in names:
            child = self._child(folder, name, code)
            if child:
                yield child

    def _child(self, folder: _Folder, name: str, code: str) -> "_Folder | ListingEntry | None":
        """Return what a listing has for a name in a folder; `code` is the name in a uri, a folder's with `/`."""
        path, uri = folder.path + name + "/" * code.endswith("/"), folder.uri + code
        below = path[folder.start :]
        if not self._filter.allows_name(name) or self._filter.excludes(below) or ignore.ignored(path, folder.rules):
            return None
        included = self._filter.includes(below, above=folder.included)
        if code.endswith("/"):
            return self._enter(folder, path, uri, included=included)
        return self._file(Path(path), uri, named=included) if included or not self._filter.include else None

    def _enter(self, above: _Folder, path: str, uri: str, *, included: bool) -> "_Folder | ListingEntry | None":
        at = Path(path)
        try:
            status = at.stat()
            rules = ignore.rules_in(at, above.rules)
            is_link = at.is_symlink()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return self._block(uri, error)
        key = status.st_dev, status.st_ino
        self._links[key] += is_link
        if key in above.keys:
            return SkippedDocument(uri, SkipReason.SYMLINK_LOOP, "it leads to a folder that contains it"), 0
        if is_link and self._links[key] > _MOST_LINKS:
            return SkippedDocument(
                uri, SkipReason.SYMLINK_LOOP, f"{_MOST_LINKS} other links lead to the same folder"
            ), 0
        return _Folder(path, uri, above.start, rules, above.keys | {key}, included)

    def _file(self, path: Path, uri: str, *, named: bool) -> ListingEntry | None:
        """Return what a listing has for a file.

        One that was `named`, by an including glob or as the root, may have any format.
        """
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return (
                (SkippedDocument(uri, SkipReason.NOT_A_FILE, "a link that leads nowhere"), 0)
                if path.is_symlink()
                else None
            )
        except OSError as error:
            reason = SkipReason.SYMLINK_LOOP if error.errno == errno.ELOOP else SkipReason.UNREADABLE
            return SkippedDocument(uri, reason, system_reason(error)), 0
        if not stat.S_ISREG(status.st_mode):
            return SkippedDocument(uri, SkipReason.NOT_A_FILE, _kind(status.st_mode)), 0
        if not named and not is_known_format(path):
            return SkippedDocument(uri, SkipReason.UNKNOWN_FORMAT, encode(path.suffix)), 0
        if status.st_size > self._most_bytes:
            detail = f"{status.st_size:,} bytes, {self._most_bytes:,} at most"
            return SkippedDocument(uri, SkipReason.TOO_LARGE, detail), 0
        return ListedDocument(uri, stamp_of(status)), status.st_size

    def _block(self, uri: str, error: OSError) -> ListingEntry:
        if uri.rstrip("/") == self._root.uri.rstrip("/"):
            raise UnreadablePathError(path=str(self._root.path), reason=system_reason(error)) from None
        self.blocked.append(uri)
        return SkippedDocument(uri, SkipReason.UNREADABLE, system_reason(error)), 0


def merge_walks(walks: Sequence[Iterator[ListingEntry]]) -> Iterator[ListingEntry]:
    """Merge several walks in the order of the uris; a file that one walk leaves out and another has is kept."""
    for _, same in groupby(merge(*walks, key=_uri), key=_uri):
        yield max(same, key=lambda found: isinstance(found[0], ListedDocument))


def _uri(found: ListingEntry) -> str:
    return found[0].uri


def _kind(mode: int) -> str:
    match stat.S_IFMT(mode):
        case stat.S_IFSOCK:
            return "a socket"
        case stat.S_IFIFO:
            return "a pipe"
        case stat.S_IFDIR:
            return "a folder"
        case _:
            return "a device"
