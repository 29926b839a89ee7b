"""The mirrors of one process: which are open, how much memory they use, what a search reads. `follower` updates them."""

import asyncio
import os
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from evervec import log
from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.pipeline.mirrors.filters import FilterCache
from evervec.pipeline.mirrors.relation import NothingToMirrorError, OtherDatabaseError, failure
from evervec.settings import Settings
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.mirrors import MirrorHolder

if TYPE_CHECKING:
    # FAISS takes a third of a second to import, which most commands do without
    from evervec.mirror.disk.folder import MirrorFolder
    from evervec.mirror.searcher import Searcher
    from evervec.mirror.snapshot import Snapshot
    from evervec.pipeline.mirrors.difference import MirrorDifference
    from evervec.pipeline.mirrors.executors import Executors
    from evervec.pipeline.mirrors.mirror import Mirror

logger = log.get("mirror")

MEBIBYTE = 1 << 20
OTHER_SPACES = "spaces"
"""Where, below the folder of mirrors, those of spaces are that are not searched."""
QUICK_BYTES = 64 * MEBIBYTE
"""A file of at most this size is read and checked in the time of one query."""


class FollowerDoorbell:
    """The datasets that the doorbell rang for, and the event that wakes the follower."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._rung: set[UUID] = set()

    def ring(self, dataset_ids: Iterable[UUID]) -> None:
        """Add datasets that may have changed, and wake the follower."""
        self._rung.update(dataset_ids)
        self.woken.set()

    def take(self) -> set[UUID]:
        """Return the datasets that were added since the last call."""
        rung, self._rung = self._rung, set()
        return rung


class Mirrors:
    """Every mirror of this process. Nothing is opened, and no thread runs, before it is needed.

    A worker calls `follower.follow`; a process that only answers one question opens what is on disk.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.following = False
        self.settings = settings
        self.database = database
        self.filters = FilterCache()
        self._mirrors: dict[tuple[UUID, int], Mirror] = {}
        self._opening: dict[tuple[UUID, int], asyncio.Task[None]] = {}
        self._executors: Executors | None = None
        self._searcher: Searcher | None = None
        self._folders: dict[int | None, MirrorFolder] = {}
        self._holder: MirrorHolder | None = None
        self._doorbell = FollowerDoorbell()

    @property
    def folder(self) -> "MirrorFolder":
        """Return the folder of mirrors on disk."""
        return self.folder_of(None)

    def folder_of(self, space_id: int | None) -> "MirrorFolder":
        """Return the folder of the mirrors of a space that is not the one searched; None: of those that are."""
        if space_id not in self._folders:
            from evervec.mirror.disk.folder import MirrorFolder

            main = self.settings.mirrors
            self._folders[space_id] = MirrorFolder(main if space_id is None else main / OTHER_SPACES / str(space_id))
        return self._folders[space_id]

    @property
    def searcher(self) -> "Searcher":
        """Return what answers the searches of this process, many in one call."""
        if self._searcher is None:
            from evervec.mirror.searcher import Searcher

            self._searcher = Searcher()
        return self._searcher

    @property
    def holder(self) -> MirrorHolder:
        """Return the identity of this process, for other processes."""
        if self._holder is None:
            from evervec.mirror.disk.paths import this_host

            self._holder = MirrorHolder(uuid4(), this_host(), str(self.settings.mirrors.resolve()), os.getpid())
        return self._holder

    def all(self) -> "list[Mirror]":
        """Return every mirror that was asked for, open or not."""
        return list(self._mirrors.values())

    def known(self, key: tuple[UUID, int]) -> "Mirror | None":
        """Return the mirror of a dataset in a space, or None if nobody asked for it yet."""
        return self._mirrors.get(key)

    def of_dataset(self, dataset_id: UUID) -> "list[Mirror]":
        """Return the mirrors of a dataset in all its spaces that somebody asked for."""
        return [mirror for (known, _), mirror in self._mirrors.items() if known == dataset_id]

    def forget(self, key: tuple[UUID, int]) -> "Mirror":
        """Remove the mirror of a deleted dataset, or of a space that was dropped, from this registry, and return it."""
        return self._mirrors.pop(key)

    def mirror(self, dataset: DatasetRef, *, current: bool = True) -> "Mirror":
        """Return the mirror of a dataset in its space in whatever state it is, made if necessary but not opened."""
        key = dataset.id, dataset.space_id
        found = self._mirrors.get(key)
        if found is None:
            from evervec.pipeline.mirrors.executors import Executors
            from evervec.pipeline.mirrors.mirror import Mirror

            self._executors = self._executors or Executors()
            folder = self.folder_of(None if current else dataset.space_id)
            found = Mirror(self.settings, self.database, self._executors, folder, dataset)
            found.is_current = current
            self._mirrors[key] = found
        return found

    async def snapshots(
        self, wanted: Sequence[DatasetRef], *, seen: int | None = None, any_size: bool = False
    ) -> "dict[UUID, Snapshot]":
        """Return the snapshots of those datasets that can be searched now; PostgreSQL has to answer for the others.

        A process that follows uses what it has in memory, and reopens what it had to drop. Any other process opens what
        is on disk, if the file is small or `any_size` is allowed, and applies the feed. With `seen`, a transaction id, both
        apply the feed, because the vectors of what that transaction wrote are committed by a later one. So they do after a
        lost connection: the server may be one whose history the mirror does not know.
        """
        found: dict[UUID, Snapshot] = {}
        for dataset in wanted:
            mirror = self.mirror(dataset)
            if mirror.index is None and (
                mirror.state == "dropped" if self.following else self._quick(dataset, any_size)
            ):
                await self._open(mirror, build_missing=False)
            snapshot = mirror.snapshot()
            if snapshot is not None and (not self.following or seen is not None or mirror.was_disconnected):
                snapshot = await self._caught_up(mirror)
            if snapshot is not None:
                found[dataset.id] = snapshot
        return found

    def _quick(self, dataset: DatasetRef, any_size: bool) -> bool:
        """Return whether a process that ends after one answer should read this mirror."""
        described = self.folder.describe(dataset.project_id, dataset.id)
        return described is not None and (any_size or described["bytes"] <= QUICK_BYTES)

    async def _caught_up(self, mirror: "Mirror") -> "Snapshot | None":
        try:
            await mirror.catch_up()
        except (NothingToMirrorError, OtherDatabaseError) as error:
            logger.info("mirror not used", dataset=mirror.name, reason=str(error))
            self._doorbell.ring({mirror.dataset.id})
            if not self.following:
                mirror.drop(str(error))  # another process may have written a valid file before the next search
            return None
        return mirror.snapshot()

    async def _open(self, mirror: "Mirror", *, build_missing: bool, follow: bool = True) -> None:
        """Open a mirror once, however many callers wait for it."""
        task = self._opening.get(mirror.key)
        if task is None:
            task = asyncio.create_task(self.guarded(mirror, mirror.open(build_missing=build_missing, follow=follow)))
            self._opening[mirror.key] = task
            task.add_done_callback(lambda _: self._opening.pop(mirror.key, None))
        await asyncio.shield(task)
        self.keep_to_budget(mirror)

    async def guarded(self, mirror: "Mirror", work: Awaitable[object]) -> None:
        """Await work on a mirror; turn any error into the mirror's state, so that it stops nothing else."""
        from evervec.mirror.build import BuildCancelled

        try:
            await work
        except NothingToMirrorError as error:
            mirror.fail(str(error))
            if self._mirrors.get(mirror.key) is not mirror:  # the dataset was deleted during the build
                await self.remove_files(mirror)
        except BuildCancelled:
            logger.info("mirror build cancelled", dataset=mirror.name)
        except Exception as error:
            # disk, database or FAISS: searches go to PostgreSQL, and the next round tries again
            logger.warning("mirror failed", dataset=mirror.name, reason=failure(error))
            if mirror.index is None:
                mirror.fail(failure(error))

    async def remove_files(self, mirror: "Mirror") -> None:
        """Remove the files of a deleted dataset, or of a dropped space; if that fails, a later collection removes them."""
        folder = self.folder_of(None if mirror.is_current else mirror.dataset.space_id)
        try:
            await asyncio.to_thread(folder.remove, mirror.dataset.project_id, mirror.dataset.id)
        except (MirrorBusyError, MirrorFolderError) as error:
            logger.info("mirror files not removed", dataset=str(mirror.dataset.id), reason=str(error))

    def keep_to_budget(self, kept: "Mirror") -> None:
        """Drop the mirrors that were not used for longest until the rest fits in memory; `kept` always stays."""
        budget = self.settings.mirror_memory_mb * MEBIBYTE
        open_mirrors = sorted((m for m in self._mirrors.values() if m.index is not None), key=lambda m: m.used)
        used = sum(mirror.memory for mirror in open_mirrors)
        for mirror in open_mirrors:
            if used <= budget or mirror is kept:
                continue
            used -= mirror.memory
            mirror.drop(f"{self.settings.mirror_memory_mb} MB are used (EVERVEC_MIRROR_MEMORY_MB)")

    def other_spaces_on_disk(self) -> list[int]:
        """Return the spaces that mirrors are kept of beside those that are searched."""
        folder = self.settings.mirrors / OTHER_SPACES
        return [int(one.name) for one in folder.iterdir() if one.name.isdecimal()] if folder.is_dir() else []

    async def check(
        self,
        dataset: DatasetRef,
        *,
        current: bool = True,
        follow: bool = True,
        deep: bool = False,
        repair: bool = True,
    ) -> "MirrorDifference":
        """Check the mirror of a dataset as `Mirror.check` does. Raises `NothingToMirrorError`."""
        mirror = self.mirror(dataset, current=current)
        if mirror.index is None:
            await self._open(mirror, build_missing=False, follow=follow)
        return await mirror.check(follow=follow, deep=deep, repair=repair)

    async def rebuild(self, dataset: DatasetRef, reason: str) -> "Mirror":
        """Build a dataset's mirror anew from the database. Raises `NothingToMirrorError`."""
        mirror = self.mirror(dataset)
        await mirror.rebuild(reason)
        self.keep_to_budget(mirror)
        return mirror

    @contextmanager
    def followed(self) -> Iterator[FollowerDoorbell]:
        """Mark the mirrors as kept up to date by a follower while inside; yield the doorbell that wakes it."""
        self._doorbell = FollowerDoorbell()
        self.following = True
        try:
            yield self._doorbell
        finally:
            self.following = False

    @contextmanager
    def builds_stopped(self) -> Iterator[None]:
        """Stop builds at their next slice while inside."""
        if self._executors is not None:
            self._executors.closed = True
        try:
            yield
        finally:
            if self._executors is not None:
                self._executors.closed = False

    async def aclose(self) -> None:
        """Close what was opened; may be called twice."""
        searcher, self._searcher = self._searcher, None
        if searcher is not None:
            await searcher.aclose()
        executors, self._executors = self._executors, None
        if executors is not None:
            await asyncio.to_thread(executors.close)
        self._mirrors.clear()
