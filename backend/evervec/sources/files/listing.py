"""What files there are below a root, in the order of their uris, and what is left out why; none of them is opened."""

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

from evervec.domain.document import ListedDocument, SkippedDocument
from evervec.errors import PathRefusedError
from evervec.sources.files import ignore
from evervec.sources.files.formats import known
from evervec.sources.files.ignore import Choice, Rules
from evervec.sources.files.roots import Key, Root, is_folder, said
from evervec.sources.files.uris import encoded, stamp_of

_MOST_LINKS: Final = 16
"""How often a folder is entered through links: folders that link to each other have more ways through them than atoms."""

Found = tuple[ListedDocument | SkippedDocument, int]
"""What is said of a file, and its size in bytes; 0 for what is left out. The uri of a folder ends in `/`."""


class Reason(StrEnum):
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
    """A folder on the way. `path` and `uri` end in `/`; paths relative to the root begin at `start`."""

    path: str
    uri: str
    start: int
    rules: Rules
    keys: frozenset[Key]
    included: bool = False


class Tree:
    """One look at one root. `blocked` collects the uris of folders that could not be looked into."""

    def __init__(self, root: Root, choice: Choice, most_bytes: int) -> None:
        self._root, self._choice, self._most_bytes = root, choice, most_bytes
        self._key = root.key() if root.is_folder else None
        self._links = Counter[Key]()
        self._ways = dict[Path, _Folder | Found | None]()
        self.blocked: list[str] = []

    def require(self) -> None:
        """Raises `PathRefusedError` when the root is no longer the folder that it was.

        An unmounted one leaves an empty folder behind, in which nothing would be left of all documents.
        """
        if self._key and self._root.key() != self._key:
            raise PathRefusedError(path=str(self._root.path), reason="another folder took its place meanwhile")

    def walk(self, at: Path | None = None) -> Iterator[Found]:
        """Everything at or below the root, or below a folder in it, in the order of the uris.

        Raises `PathRefusedError` when the root can not be looked into, or is not there any more at the end.
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
        self.require()

    def find(self, path: Path) -> "_Folder | Found | None":
        """What a listing would say of a path at or below the root: None when it would not have it."""
        node, at = self._top, self._root.path
        for name in path.relative_to(at).parts:
            if not isinstance(node, _Folder):
                break
            at = at / name
            node = self._way(node, at) if at != path else self._child(node, name, encoded(name) + "/" * is_folder(path))
        return node

    def reaches(self, path: Path) -> bool:
        """Whether a listing comes to it: a folder that is entered, or a file that is taken."""
        found = self.find(path)
        return isinstance(found[0], ListedDocument) if isinstance(found, tuple) else found is not None

    def _way(self, above: _Folder, at: Path) -> "_Folder | Found | None":
        """A folder on the way to what is looked for, remembered, since many a file is looked for in it."""
        if at not in self._ways:
            self._ways[at] = self._child(above, at.name, encoded(at.name) + "/")
        return self._ways[at]

    @cached_property
    def _top(self) -> "_Folder | Found | None":
        path = self._root.path
        if not self._root.is_folder:
            name, wanted = path.name, self._choice.includes(path.name, above=not self._choice.include)
            return None if self._choice.excludes(name) or not wanted else self._file(path, self._root.uri, named=True)
        try:
            rules = ignore.rules_in(path, ignore.rules_above(path))
        except OSError as error:
            raise PathRefusedError(path=str(path), reason=f"its .gitignore is not readable: {said(error)}") from None
        keys = frozenset([self._root.key()])
        at, uri = str(path).rstrip("/") + "/", self._root.uri.rstrip("/") + "/"
        return _Folder(at, uri, len(at), rules, keys)

    def _children(self, folder: _Folder) -> Iterator["_Folder | Found"]:
        try:
            with os.scandir(folder.path) as found:
                names = sorted((encoded(one.name) + "/" * is_folder(one), one.name) for one in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield self._block(folder.uri, error)
            return
        for code, name in names:
            child = self._child(folder, name, code)
            if child:
                yield child

    def _child(self, folder: _Folder, name: str, code: str) -> "_Folder | Found | None":
        """What is said of a name in a folder; `code` is the name as it stands in a uri, a folder's with `/` at its end."""
        path, uri = folder.path + name + "/" * code.endswith("/"), folder.uri + code
        below = path[folder.start :]
        if not self._choice.shows(name) or self._choice.excludes(below) or ignore.ignored(path, folder.rules):
            return None
        included = self._choice.includes(below, above=folder.included)
        if code.endswith("/"):
            return self._enter(folder, path, uri, included=included)
        return self._file(Path(path), uri, named=included) if included or not self._choice.include else None

    def _enter(self, above: _Folder, path: str, uri: str, *, included: bool) -> "_Folder | Found | None":
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
            return SkippedDocument(uri, Reason.SYMLINK_LOOP, "it leads to a folder that it lies in"), 0
        if is_link and self._links[key] > _MOST_LINKS:
            return SkippedDocument(uri, Reason.SYMLINK_LOOP, f"{_MOST_LINKS} other links lead to the same folder"), 0
        return _Folder(path, uri, above.start, rules, above.keys | {key}, included)

    def _file(self, path: Path, uri: str, *, named: bool) -> Found | None:
        """What is said of a file; one that was `named`, by an including glob or as the root, may have any format."""
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return (
                (SkippedDocument(uri, Reason.NOT_A_FILE, "a link that leads nowhere"), 0) if path.is_symlink() else None
            )
        except OSError as error:
            reason = Reason.SYMLINK_LOOP if error.errno == errno.ELOOP else Reason.UNREADABLE
            return SkippedDocument(uri, reason, said(error)), 0
        if not stat.S_ISREG(status.st_mode):
            return SkippedDocument(uri, Reason.NOT_A_FILE, _kind(status.st_mode)), 0
        if not named and not known(path):
            return SkippedDocument(uri, Reason.UNKNOWN_FORMAT, encoded(path.suffix)), 0
        if status.st_size > self._most_bytes:
            detail = f"{status.st_size:,} bytes, {self._most_bytes:,} at most"
            return SkippedDocument(uri, Reason.TOO_LARGE, detail), 0
        return ListedDocument(uri, stamp_of(status)), status.st_size

    def _block(self, uri: str, error: OSError) -> Found:
        if uri.rstrip("/") == self._root.uri.rstrip("/"):
            raise PathRefusedError(path=str(self._root.path), reason=said(error)) from None
        self.blocked.append(uri)
        return SkippedDocument(uri, Reason.UNREADABLE, said(error)), 0


def merged(walks: Sequence[Iterator[Found]]) -> Iterator[Found]:
    """Several walks as one, in the order of the uris; of what one walk leaves out and another has, the latter."""
    for _, same in groupby(merge(*walks, key=_uri), key=_uri):
        yield max(same, key=lambda found: isinstance(found[0], ListedDocument))


def _uri(found: Found) -> str:
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
