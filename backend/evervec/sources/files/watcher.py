"""Watches the files below some roots, and keeps the changed paths until they are taken; no file is read here."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from watchfiles import Change, awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from evervec.sources.files.events import ChangedPaths, EventReader, FileEvent, LinkedPaths, Listings, compare_listings
from evervec.sources.files.ignore import FileFilter
from evervec.sources.files.roots import FileIdentity, Root

STEP_MS: Final = 50
DEBOUNCE_MS: Final = 400
"""Changes are reported after one quiet step, and every 400 ms while changes go on."""

ROOT_CHECK_SECONDS: Final = 0.2
"""Seconds between two checks that the roots are still there."""

COMPARE_SECONDS: Final = 600.0
"""Seconds between comparisons of everything: for what the kernel does not report, such as a .gitignore above a root."""

MOST_CHANGED_PATHS: Final = 10_000
"""Above this number of paths everything is compared instead: it takes no longer then, and no memory."""

FLOOD_EVENTS: Final = 4_000
"""So many changes without a pause may overflow the kernel's queue, which holds 16,384 events, four a file.

The kernel reports an overflow, but watchfiles hides it: https://github.com/samuelcolvin/watchfiles/issues/348.
"""

WATCH_POLL_SECONDS: Final = 5.0
"""Seconds between two listings where the kernel can not watch."""

FolderIdentities = Mapping[Path, FileIdentity]


@dataclass(frozen=True)
class ChangedFiles:
    """What may have changed: these paths, or everything below these roots. The roots in `away` can not be read."""

    paths: frozenset[Path]
    everything: bool
    roots: tuple[Path, ...]
    away: tuple[Path, ...]


class FileWatcher:
    """A watch on the files that a `FileSource` with the same arguments would list. `note` gets messages for the user.

    With `poll` (seconds) it compares listings instead of using the kernel's events, as network file systems need it.
    Raises `UnreadablePathError` for a root that is not there, `Refused` for a glob without a pattern.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        most_bytes: int = 20_000_000,
        poll: float | None = None,
        note: Callable[[str], None],
    ) -> None:
        self._reader = EventReader(roots, FileFilter(tuple(include), tuple(exclude)), most_bytes)
        self._poll, self._note = poll, note
        self._links = LinkedPaths()
        # only if a folder may not be read: watchfiles then ignores every error, also that there are no watches left
        self._leniently = False
        self._paths, self._later, self._everything = set[Path](), dict[Path, float](), False
        self._compared, self._trusted = monotonic(), dict[Root, FileIdentity]()
        self.has_changes = asyncio.Event()
        """Set while there are changes to take."""

    async def take(self) -> ChangedFiles:
        """Return what may have changed since the last call.

        A folder with another identity than when everything was last compared may be an empty mount point: then missing
        files are not reported one by one, but everything is to be compared.
        """
        there, away = await asyncio.to_thread(lambda: (self._reader.reachable_roots(), self._reader.missing_roots()))
        strange = [root.path for root, key in there.items() if root.is_folder and self._trusted.get(root) != key]
        paths, everything = frozenset(self._paths), self._everything
        self._paths, self._everything = set(), False
        self.has_changes.clear()
        everything = everything or any(path.is_relative_to(root) for path in paths for root in strange)
        if everything:
            self._compared, self._trusted = monotonic(), there
        return ChangedFiles(
            frozenset() if everything else paths, everything, tuple(root.path for root in there), tuple(away)
        )

    def distrust(self, root: Path) -> None:
        """Compare a root as a whole whenever something happens in it: all its files seem to be gone."""
        self._trusted = {one: key for one, key in self._trusted.items() if one.path != root}

    def put_back(self, seen: ChangedFiles) -> None:
        """Report these changes again with the next `take`: they could not be handled."""
        self._add(seen.paths, everything=seen.everything)

    async def run(self) -> None:
        """Watch until cancelled. Anything may have changed before a watch begins, so everything is compared first."""
        if self._poll is None:
            self._links = await asyncio.to_thread(self._reader.links)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow(self._folders, recursive=True))
                    group.create_task(self._follow(self._beside, recursive=False))
            except* (OSError, WatchfilesRustInternalError) as group:
                self._note(
                    f"The kernel does not watch all of this ({_reason(group)}): looking every {WATCH_POLL_SECONDS:.0f} s instead."
                )
        await self._look(self._poll or WATCH_POLL_SECONDS)

    async def _look(self, seconds: float) -> None:
        """Compare listings, for at most a quarter of the time."""
        before: Listings = {}
        while True:
            began = monotonic()
            now = await asyncio.to_thread(self._reader.listings)
            self._add_changes(compare_listings(before, now))
            before = now
            await asyncio.sleep(max(seconds, 3 * (monotonic() - began)))

    def _folders(self) -> FolderIdentities:
        roots = {root.path: key for root, key in self._reader.reachable_roots().items() if root.is_folder}
        return roots | _keys(self._links.folders)

    def _beside(self) -> FolderIdentities:
        """Return the folders of the files that are watched by name: a saved file may be another inode."""
        return _keys({path.parent for path in self._links.names})

    async def _follow(self, places: Callable[[], FolderIdentities], *, recursive: bool) -> None:
        """Watch some folders, and again whenever one has another identity: a watch belongs to an inode."""
        while True:
            there = await asyncio.to_thread(places)
            try:
                if there:
                    await self._follow_while(there, places, recursive=recursive)
                    self._add((), everything=True)
            except ExceptionGroup as group:
                # the watch ends at a name that is not UTF-8; the next watch compares everything
                if group.split(WatchfilesRustInternalError)[1] is not None:
                    raise
            except FileNotFoundError:
                there = {}
            except PermissionError:
                if self._leniently:
                    raise
                self._leniently = True
            self._add_due()
            await asyncio.sleep(0 if there else ROOT_CHECK_SECONDS)

    async def _follow_while(
        self, there: FolderIdentities, places: Callable[[], FolderIdentities], *, recursive: bool
    ) -> None:
        begun, burst = False, 0
        async with aclosing(self._watch(there, recursive=recursive)) as batches:
            async for events in batches:
                flooded = not events and burst >= FLOOD_EVENTS
                burst = burst + len(events) if events else 0
                self._add((), everything=flooded or not begun)
                begun = True
                await self._handle_events(events)
                left = any(change == Change.deleted and Path(name) in there for change, name in events)
                if left or await asyncio.to_thread(places) != there:
                    return

    def _watch(self, there: FolderIdentities, *, recursive: bool) -> AsyncGenerator[set[FileEvent], None]:
        """Yield batches of events, empty ones in between; the first comes once the watch is in place."""
        return awatch(
            *there,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            rust_timeout=int(ROOT_CHECK_SECONDS * 1000),
            yield_on_timeout=True,
            force_polling=False,
            recursive=recursive,
            ignore_permission_denied=self._leniently,
        )

    async def _handle_events(self, events: set[FileEvent]) -> None:
        meaning = await asyncio.to_thread(self._reader.read, events, self._links) if events else ChangedPaths()
        self._add_changes(meaning)
        if meaning.linked:
            self._links = await asyncio.to_thread(self._reader.links)

    def _add_changes(self, meaning: ChangedPaths) -> None:
        for path in meaning.now:
            self._later.pop(path, None)
        self._later |= {path: monotonic() + seconds for path, seconds in meaning.later.items()}
        self._add(meaning.now, everything=meaning.everything)
        self._add_due()

    def _add_due(self) -> None:
        """Add the delayed paths, and the comparison of everything, when they are due."""
        now = monotonic()
        due = [path for path, at in self._later.items() if at <= now]
        for path in due:
            del self._later[path]
        self._add(due, everything=now - self._compared >= COMPARE_SECONDS)

    def _add(self, paths: Iterable[Path], *, everything: bool = False) -> None:
        self._paths.update(paths)
        if self._everything or everything or len(self._paths) > MOST_CHANGED_PATHS:
            self._paths, self._everything = set(), True
        if self._paths or self._everything:
            self.has_changes.set()


def _keys(folders: Iterable[Path]) -> dict[Path, FileIdentity]:
    found = {}
    for path in folders:
        try:
            status = path.stat()
        except OSError:
            continue
        found[path] = status.st_dev, status.st_ino
    return found


def _reason(group: BaseExceptionGroup[Exception]) -> str:
    """Return the first error of a group, without the paths."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).partition(" about [")[0].rstrip(".")
