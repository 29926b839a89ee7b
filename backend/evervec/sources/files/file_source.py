"""Files as the source of a dataset: lists, names and reads them off the event loop; formats are read in `readers`."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from evervec.domain.documents.document import ChangedIds, IncomingDocument, ListedDocument, SkippedDocument
from evervec.errors import Refused, UnknownTableError
from evervec.sources.files.file_uris import normalize, path_of, stamp_of, uri_of
from evervec.sources.files.ignore import FileFilter
from evervec.sources.files.listing import FileTree, ListingEntry, SkipReason, merge_walks
from evervec.sources.files.roots import FileIdentity, Root, is_folder, system_reason

FILES_TABLE: Final = "files"

_FILES: Final = 64
_BYTES: Final = 16_000_000
_URIS: Final = 1_000
_READINGS: Final = 3

T = TypeVar("T")


class FileSource:
    """The files at and below some roots, without those that git ignores, hidden ones, and those that a caller excludes.

    `include` and `exclude` are gitignore patterns relative to each root; without `include` every known format is read,
    and a root that is a file is read in any format, even if git ignores it. Files of more than `most_bytes` are left
    out. With `checksum` no stamp is listed, so that every file is read again. The roots in `gone` have no documents any
    more. The roots in `away`, folders or files, can not be read now: they are listed as unreadable, and nothing below
    them is reported as missing. Raises `UnreadablePathError` for a root that is not there or may not be read, `Refused`
    for a glob without a pattern.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        most_bytes: int = 20_000_000,
        checksum: bool = False,
        gone: Sequence[Path] = (),
        away: Sequence[Root] = (),
    ) -> None:
        if not roots and not gone:
            raise Refused(reason="There is no path to read files from. Give at least one file or folder.")
        self._away = {root.path: root for root in away}
        wanted = [self._away.get(path) or Root.at(path) for path in roots]
        self._there = [root for root in wanted if root.path not in self._away]
        self._roots = [*wanted, *(Root(normalize(path), False) for path in gone)]
        self.gone: Final = [uri_of(path) for path in gone]
        self._filter = FileFilter(tuple(include), tuple(exclude))
        self._most_bytes, self._checksum = most_bytes, checksum
        self._blocked: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Return the roots, for messages."""
        return ", ".join(str(root.path) for root in self._roots)

    @property
    def folders(self) -> list[str]:
        """Return the uris of the roots that are folders, each with its slash."""
        return [root.uri.rstrip("/") + "/" for root in self._there if root.is_folder]

    def owns(self, uri: str) -> bool:
        """Return whether a uri is at or below a root that can be read.

        False also for a uri in a folder that the last listing could not read.
        """
        if self._away_with(uri) is not None or uri.startswith(self._blocked):
            return False
        return any(root.owns(uri) for root in self._roots)

    def exists(self, uri: str) -> bool:
        """Return whether a file of this name exists; True too if that can not be known.

        It can not be known where a folder on the way may not be read, or the root itself can not be read.
        """
        if self._away_with(uri) is not None:
            return True
        try:
            path_of(uri).lstat()
        except Refused:
            return False
        except (FileNotFoundError, NotADirectoryError):
            return any(root.owns(uri) and root.is_away() for root in self._roots)
        except OSError:
            return True
        return True

    def named(self, changed: ChangedIds) -> list[str]:
        """Return the uris of the table `files`, whose ids are paths or file URIs.

        A relative path begins at the first folder. A folder stands for the files in it; a folder that is gone stands
        for itself: everything below `{uri}/` is gone with it. It looks at the file system: call it from a thread when
        there may be many. Raises `UnknownTableError`, and `Refused` for what is no path or is outside of every root.
        """
        for table in changed:
            if table != FILES_TABLE:
                raise UnknownTableError(table=table, known=FILES_TABLE)
        trees = self._trees()
        paths = [self._path(one) for one in _ids(changed.get(FILES_TABLE, ()))]
        return list(dict.fromkeys(uri for path in paths for uri in self._files(trees, path)))

    def listing(self, *, after: str | None = None) -> AsyncIterator[list[ListedDocument | SkippedDocument]]:
        """Yield files and what was left out, in the order of their uris, at most 64 files and 16 MB at once.

        Raises `UnreadablePathError` when a root can not be read, or is no longer there at the end.
        """
        found = (one for one in self._found() if after is None or one[0].uri > after)
        return _off_loop(_batches(found, _FILES))

    def read(self, listed: Sequence[ListedDocument]) -> AsyncIterator[list[IncomingDocument | SkippedDocument]]:
        """Yield the documents of files, in order, about 16 MB of text at once.

        The reason `gone` is that of a file that a listing would not have either. A document's stamp is of the version
        that was read. Raises `UnreadablePathError` when a root is gone.
        """
        return _off_loop(_batches(self._outcomes([one.uri for one in listed]), _FILES))

    def uris(self) -> AsyncIterator[list[str]]:
        """Yield the uris of a new listing, without what was left out for good. Raises as `listing` does."""
        there = (
            (one.uri, 0)
            for one, _ in self._found()
            if isinstance(one, ListedDocument) or one.reason == SkipReason.UNREADABLE
        )
        return _off_loop(_batches(there, _URIS))

    async def aclose(self) -> None:
        """Do nothing: no file is kept open."""

    def _trees(self) -> list[tuple[Root, FileTree]]:
        return [(root, FileTree(root, self._filter, self._most_bytes)) for root in self._there]

    def _away_with(self, uri: str) -> Root | None:
        return next((root for root in self._away.values() if root.owns(uri)), None)

    def _found(self) -> Iterator[ListingEntry]:
        trees = [tree for _, tree in self._trees()]
        closed: list[Iterator[ListingEntry]] = [iter([(_closed(root), 0)]) for root in self._away.values()]
        for one, size in merge_walks([*(tree.walk() for tree in trees), *closed]):
            yield (replace(one, stamp=None) if self._checksum and isinstance(one, ListedDocument) else one), size
        self._blocked = tuple(uri for tree in trees for uri in tree.blocked)

    def _path(self, named: str) -> Path:
        """Return the path that an id names, inside one of the roots."""
        first = next((root.path for root in self._roots if root.is_folder), self._roots[0].path.parent)
        path = path_of(named) if named.startswith("file:") else normalize(first / named)
        if not any(root.owns(uri_of(path)) for root in self._roots):
            paths = ", ".join(repr(str(root.path)) for root in self._roots)
            raise Refused(reason=f"{named!r} is not in the files of this dataset. They are in {paths}.")
        return path

    def _files(self, trees: Sequence[tuple[Root, FileTree]], path: Path) -> Iterator[str]:
        if not is_folder(path):
            yield uri_of(path)
            return
        walks = [tree.walk(path) for root, tree in trees if path.is_relative_to(root.path)]
        walks += [tree.walk() for root, tree in trees if root.path != path and root.path.is_relative_to(path)]
        yield from (one.uri for one, _ in merge_walks(walks) if not one.uri.endswith("/"))

    def _outcomes(self, uris: Iterable[str]) -> Iterator[tuple[IncomingDocument | SkippedDocument, int]]:
        trees = self._trees()
        for uri in uris:
            outcome = self._outcome(trees, uri)
            if isinstance(outcome, SkippedDocument) and outcome.reason == SkipReason.GONE:
                for _, tree in trees:
                    tree.check_root()
            yield replace(outcome, uri=uri), len(outcome.text) if isinstance(outcome, IncomingDocument) else 0

    def _outcome(self, trees: Sequence[tuple[Root, FileTree]], uri: str) -> IncomingDocument | SkippedDocument:
        path = path_of(uri)
        seen = [tree.find(path) for root, tree in trees if path.is_relative_to(root.path)]
        results = [
            one[0] if isinstance(one, tuple) else SkippedDocument(uri, SkipReason.NOT_A_FILE, "a folder")
            for one in seen
            if one
        ]
        if any(isinstance(one, ListedDocument) for one in results):
            return self._read(path, uri)
        away = self._away_with(uri)
        otherwise = SkippedDocument(uri, SkipReason.GONE) if away is None else _closed(away)
        return next((one for one in results if isinstance(one, SkippedDocument)), otherwise)

    def _read(self, path: Path, uri: str) -> IncomingDocument | SkippedDocument:
        """Return the document as it was at one moment: a file that changes meanwhile is read again."""
        # grammars, PDF and HTML take a second to import: only who reads a file waits for it
        from evervec.sources.files.readers.document import read_file

        try:
            for _ in range(_READINGS):
                before, stamp = _version(path), stamp_of(path.stat())
                outcome = read_file(path, most_bytes=self._most_bytes)
                if _version(path) == before:
                    return replace(outcome, stamp=stamp) if isinstance(outcome, IncomingDocument) else outcome
        except (FileNotFoundError, NotADirectoryError):
            return SkippedDocument(uri, SkipReason.GONE)
        except OSError as error:
            return SkippedDocument(uri, SkipReason.UNREADABLE, system_reason(error))
        return SkippedDocument(uri, SkipReason.TORN, "it keeps changing")


def _closed(root: Root) -> SkippedDocument:
    return SkippedDocument(
        root.uri.rstrip("/") + "/" * root.is_folder, SkipReason.UNREADABLE, root.unreadable_reason() or "it was away"
    )


def _ids(ids: Sequence[str | int]) -> Iterator[str]:
    if isinstance(ids, str):
        raise Refused(reason=f"{ids!r} is not a list of paths. Give a list, also for a single one.")
    for one in ids:
        if not isinstance(one, str) or not one:
            raise Refused(reason=f"{one!r} is not the path of a file. Give a path or a file URI, as text.")
        yield one


def _version(path: Path) -> tuple[FileIdentity, int, int, int]:
    found = path.stat()
    return (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _batches(found: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """Group items, at most `most` and not much more than 16 MB together."""
    batch, total = list[T](), 0
    for one, size in found:
        if batch and (len(batch) >= most or total + size > _BYTES):
            yield batch
            batch, total = [], 0
        batch.append(one)
        total += size
    if batch:
        yield batch


async def _off_loop(batches: Iterator[list[T]]) -> AsyncIterator[list[T]]:
    """Yield the same batches, each made in a thread, so that the event loop never waits for a disk."""
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        yield batch
