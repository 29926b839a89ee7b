"""What an event of the file system means for the files below some roots: which paths to look at, and when."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchfiles import Change

from evervec.domain.document import ListedDocument, SkippedDocument
from evervec.errors import UnreadablePathError
from evervec.sources.files.file_uris import path_of
from evervec.sources.files.ignore import FileFilter
from evervec.sources.files.listing import FileTree, SkipReason
from evervec.sources.files.roots import FileIdentity, Root, is_folder

MOVED_SECONDS: Final = 0.5
"""Seconds that a name may be gone: editors move the old file away before the new one is there."""

NEW_FOLDER_SECONDS: Final = 2.0
"""Seconds after which a new folder is looked at again: it is announced before it is watched."""

FileEvent = tuple[Change, str]

Listings = Mapping[Path, tuple[FileIdentity, Mapping[str, str]]]
"""By root: which file or folder it is, and the files in it by uri with their stamps."""


@dataclass
class ChangedPaths:
    """What a batch of events comes to: paths to look at now, and those in so many seconds.

    `everything` is to be compared where rules changed; `linked` says that there is a new link.
    """

    now: set[Path] = field(default_factory=set)
    later: dict[Path, float] = field(default_factory=dict)
    everything: bool = False
    linked: bool = False


@dataclass(frozen=True)
class LinkedPaths:
    """What lies beside the roots and belongs to them: linked folders, and by real path what is the name of it in a root."""

    folders: frozenset[Path] = frozenset()
    names: Mapping[Path, frozenset[Path]] = field(default_factory=dict)


class EventReader:
    """Reads events as a listing of the roots would: what that leaves out concerns nobody. Blocking, as it looks at files."""

    def __init__(self, roots: Sequence[Path], file_filter: FileFilter, most_bytes: int) -> None:
        self._roots = [Root.at(path) for path in roots]
        self._filter, self._most_bytes = file_filter, most_bytes

    def reachable_roots(self) -> dict[Root, FileIdentity]:
        """The roots that can be looked into now, and which file or folder each of them is."""
        return {root: key for root in self._roots if (key := _key(root)) is not None}

    def missing_roots(self) -> list[Path]:
        """The roots that can not be looked into now."""
        there = self.reachable_roots()
        return [root.path for root in self._roots if root not in there]

    def read(self, events: Iterable[FileEvent], links: LinkedPaths) -> ChangedPaths:
        """What the events come to. An event of what a link leads to is one of the link."""
        meaning = ChangedPaths()
        named = [(change, path) for change, name in events for path in {Path(name), *links.names.get(Path(name), ())}]
        for root in self._roots:
            try:
                look = _Look(root, FileTree(root, self._filter, self._most_bytes))
                for change, path in named:
                    if look.enters(path):
                        self._read_one(meaning, look, change, path)
            except UnreadablePathError:  # the root is away: whoever indexes it says so
                meaning.everything = True
        return meaning

    def _read_one(self, meaning: ChangedPaths, look: "_Look", change: Change, path: Path) -> None:
        if path.name == ".gitignore" or (path.name == ".git" and change != Change.modified):
            meaning.everything = True
            return
        found = look.tree.find(path)
        if found is None:
            if self._filter.allows_name(path.name) and not os.path.lexists(path):
                meaning.later[path] = MOVED_SECONDS
            return
        is_new = change != Change.modified
        meaning.linked |= is_new and path.is_symlink()
        if not isinstance(found, tuple):
            if is_new and path != look.root.path:
                meaning.now.add(path)
                meaning.later[path] = NEW_FOLDER_SECONDS
        elif not (isinstance(found[0], SkippedDocument) and found[0].reason == SkipReason.UNKNOWN_FORMAT):
            meaning.now.add(path)

    def listings(self) -> Listings:
        """Every file below the roots that are there, for a watch that the kernel does not help."""
        found = dict[Path, tuple[FileIdentity, dict[str, str]]]()
        for root, key in self.reachable_roots().items():
            tree = FileTree(root, self._filter, self._most_bytes)
            with suppress(UnreadablePathError):
                listed = [one for one, _ in tree.walk() if isinstance(one, ListedDocument)]
                found[root.path] = key, {one.uri: one.stamp or _young(path_of(one.uri)) for one in listed}
        return found

    def links(self) -> LinkedPaths:
        """The links in the roots, and the roots that are files: of such a one its folder is watched."""
        folders, names = set[Path](), defaultdict[Path, set[Path]](set)
        for root in self._roots:
            paths = self._links_below(root.path) if root.is_folder else [root.path]
            for path in paths:
                if is_folder(path):
                    folders.add(path)
                else:
                    names[path.resolve()].add(path)
                    names[path].add(path)
        return LinkedPaths(frozenset(folders), {at: frozenset(found) for at, found in names.items()})

    def _links_below(self, folder: Path) -> Iterator[Path]:
        stack = [folder]
        while stack:
            try:
                with os.scandir(stack.pop()) as entries:
                    shown = [one for one in entries if self._filter.allows_name(one.name)]
            except OSError:  # whoever indexes it says so
                continue
            yield from (Path(one.path) for one in shown if one.is_symlink())
            stack += [Path(one.path) for one in shown if one.is_dir(follow_symlinks=False)]


class _Look:
    """One look at one root, which remembers the folders that it entered."""

    def __init__(self, root: Root, tree: FileTree) -> None:
        self.root, self.tree = root, tree
        self._entered: dict[Path, bool] = {}

    def enters(self, path: Path) -> bool:
        """Whether a path is the root, or in a folder that a listing enters."""
        if path == self.root.path:
            return True
        if not self.root.is_folder or not path.is_relative_to(self.root.path):
            return False
        if path.parent not in self._entered:
            found = self.tree.find(path.parent)
            self._entered[path.parent] = found is not None and not isinstance(found, tuple)
        return self._entered[path.parent]


def _key(root: Root) -> FileIdentity | None:
    try:
        return root.identity()
    except UnreadablePathError:
        return None


def _young(path: Path) -> str:
    """A sign for a file that has no stamp yet. When it has one that is another, so the file is looked at once more."""
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"young {status.st_size}:{status.st_mtime_ns}"


def compare_listings(before: Listings, now: Listings) -> ChangedPaths:
    """What two listings come to. Of a root that went, came or is another one nothing is told but that."""
    meaning = ChangedPaths()
    for root in {*before, *now}:
        if root not in before or root not in now or before[root][0] != now[root][0]:
            meaning.everything = True
            continue
        was, stamps = before[root][1], now[root][1]
        meaning.now |= {path_of(uri) for uri, stamp in stamps.items() if was.get(uri) != stamp}
        meaning.later |= {path_of(uri): MOVED_SECONDS for uri in was if uri not in stamps}
    return meaning
