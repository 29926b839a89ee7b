"""Translates events of the file system below some roots into paths to compare, now or later."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchfiles import Change

from evervec.domain.documents.document import ListedDocument, SkippedDocument
from evervec.errors import UnreadablePathError
from evervec.sources.files.file_uris import path_of
from evervec.sources.files.ignore import FileFilter
from evervec.sources.files.listing import FileTree, SkipReason
from evervec.sources.files.roots import FileIdentity, Root, is_folder

MOVED_SECONDS: Final = 0.5
"""Seconds that a name may be missing: editors move the old file away before they write the new one."""

NEW_FOLDER_SECONDS: Final = 2.0
"""Seconds after which a new folder is listed again: its event comes before the watch on it is in place."""

FileEvent = tuple[Change, str]

Listings = Mapping[Path, tuple[FileIdentity, Mapping[str, str]]]
"""By root: its identity, and the stamps of its files by uri."""


@dataclass
class ChangedPaths:
    """The paths to compare after a batch of events: `now`, and `later` after so many seconds.

    `everything` is set if all files are to be compared, as when rules changed; `linked` if there is a new link.
    """

    now: set[Path] = field(default_factory=set)
    later: dict[Path, float] = field(default_factory=dict)
    everything: bool = False
    linked: bool = False


@dataclass(frozen=True)
class LinkedPaths:
    """What is outside the roots but linked: folders, and by real path the names a file has in the roots."""

    folders: frozenset[Path] = frozenset()
    names: Mapping[Path, frozenset[Path]] = field(default_factory=dict)


class EventReader:
    """A reader of events that applies the rules of a listing. Calls block, because they look at files.

    Events of files that a listing leaves out are ignored.
    """

    def __init__(self, roots: Sequence[Path], file_filter: FileFilter, most_bytes: int) -> None:
        self._roots = [Root.at(path) for path in roots]
        self._filter, self._most_bytes = file_filter, most_bytes

    def reachable_roots(self) -> dict[Root, FileIdentity]:
        """Return the roots that can be read now, each with its identity."""
        return {root: key for root in self._roots if (key := _key(root)) is not None}

    def missing_roots(self) -> list[Path]:
        """Return the roots that can not be read now."""
        there = self.reachable_roots()
        return [root.path for root in self._roots if root not in there]

    def read(self, events: Iterable[FileEvent], links: LinkedPaths) -> ChangedPaths:
        """Return the paths to compare after some events. An event of a link's target counts for the link."""
        meaning = ChangedPaths()
        named = [(change, path) for change, name in events for path in {Path(name), *links.names.get(Path(name), ())}]
        for root in self._roots:
            try:
                look = _Look(root, FileTree(root, self._filter, self._most_bytes))
                for change, path in named:
                    if look.enters(path):
                        self._read_one(meaning, look, change, path)
            except UnreadablePathError:  # the root can not be read: the indexing run reports it
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
        """List every file below the reachable roots, for a watch without help from the kernel."""
        found = dict[Path, tuple[FileIdentity, dict[str, str]]]()
        for root, key in self.reachable_roots().items():
            tree = FileTree(root, self._filter, self._most_bytes)
            with suppress(UnreadablePathError):
                listed = [one for one, _ in tree.walk() if isinstance(one, ListedDocument)]
                found[root.path] = key, {one.uri: one.stamp or _young(path_of(one.uri)) for one in listed}
        return found

    def links(self) -> LinkedPaths:
        """Return the links in the roots, and the roots that are files: for such a root, its folder is watched."""
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
            except OSError:  # the indexing run reports it
                continue
            yield from (Path(one.path) for one in shown if one.is_symlink())
            stack += [Path(one.path) for one in shown if one.is_dir(follow_symlinks=False)]


class _Look:
    """A look at one root that remembers which folders a listing enters."""

    def __init__(self, root: Root, tree: FileTree) -> None:
        self.root, self.tree = root, tree
        self._entered: dict[Path, bool] = {}

    def enters(self, path: Path) -> bool:
        """Return whether a path is the root, or in a folder that a listing enters."""
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
    """Return a stand-in for the stamp of a file that is too young to have one; it differs from every stamp."""
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"young {status.st_size}:{status.st_mtime_ns}"


def compare_listings(before: Listings, now: Listings) -> ChangedPaths:
    """Return the paths that differ between two listings.

    A root that went, came or was replaced only sets `everything`.
    """
    meaning = ChangedPaths()
    for root in {*before, *now}:
        if root not in before or root not in now or before[root][0] != now[root][0]:
            meaning.everything = True
            continue
        was, stamps = before[root][1], now[root][1]
        meaning.now |= {path_of(uri) for uri, stamp in stamps.items() if was.get(uri) != stamp}
        meaning.later |= {path_of(uri): MOVED_SECONDS for uri in was if uri not in stamps}
    return meaning
