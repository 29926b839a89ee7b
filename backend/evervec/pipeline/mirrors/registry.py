"""The mirrors of one process: which are open, what they may hold, what a search gets of them. `following` keeps them true."""

import asyncio
import os
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from evervec import log
from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.settings import Settings
from evervec.store.datasets import Dataset
from evervec.store.mirrors import MirrorHolder
from evervec.store.session import Database

if TYPE_CHECKING:
    # FAISS takes a third of a second to import, which most commands do without
    from evervec.mirror.batching import Searcher
    from evervec.mirror.disk.files import Folder
    from evervec.mirror.snapshot import Snapshot
    from evervec.pipeline.mirrors.difference import MirrorDifference
    from evervec.pipeline.mirrors.executors import Executors
    from evervec.pipeline.mirrors.mirror import Mirror

logger = log.get("mirror")

MEGABYTE = 1 << 20
QUICK_BYTES = 64 * MEGABYTE
"""A file of that size is read and checked in the time of one query."""


class FollowerDoorbell:
    """The datasets that somebody rang for, and the event that wakes whoever follows."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._rung: set[UUID] = set()

    def ring(self, dataset_ids: Iterable[UUID]) -> None:
        """Something happened in these datasets."""
        self._rung.update(dataset_ids)
        self.woken.set()

    def take(self) -> set[UUID]:
        """Those that were rung for since the last time."""
        rung, self._rung = self._rung, set()
        return rung


class Mirrors:
    """Every mirror of this process. Nothing is opened, and nothing runs, before somebody asks for it.

    A process that stays calls `follower.follow`; one that only answers a question opens what is on disk.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.following = False
        self.settings = settings
        self.database = database
        self._mirrors: dict[UUID, Mirror] = {}
        self._opening: dict[UUID, asyncio.Task[None]] = {}
        self._workshop: Executors | None = None
        self._searcher: Searcher | None = None
        self._folder: Folder | None = None
        self._holder: MirrorHolder | None = None
        self._rung = FollowerDoorbell()

    @property
    def folder(self) -> "Folder":
        """The folder of mirrors on disk."""
        if self._folder is None:
            from evervec.mirror.disk.files import Folder

            self._folder = Folder(self.settings.mirrors)
        return self._folder

    @property
    def searcher(self) -> "Searcher":
        """Answers searches of this process, many in one call."""
        if self._searcher is None:
            from evervec.mirror.batching import Searcher

            self._searcher = Searcher()
        return self._searcher

    @property
    def holder(self) -> MirrorHolder:
        """Who this process is, for the others."""
        if self._holder is None:
            from evervec.mirror.disk.paths import this_host

            self._holder = MirrorHolder(uuid4(), this_host(), str(self.settings.mirrors.resolve()), os.getpid())
        return self._holder

    def all(self) -> "list[Mirror]":
        """Every mirror that was asked for, open or not."""
        return list(self._mirrors.values())

    def known(self, dataset_id: UUID) -> "Mirror | None":
        """The mirror of a dataset, if it was asked for."""
        return self._mirrors.get(dataset_id)

    def forget(self, dataset_id: UUID) -> "Mirror":
        """A dataset is gone: its mirror is nobody's any more."""
        return self._mirrors.pop(dataset_id)

    def mirror(self, dataset: Dataset) -> "Mirror":
        """The mirror of a dataset, as it stands: perhaps not open."""
        found = self._mirrors.get(dataset.id)
        if found is None:
            from evervec.pipeline.mirrors.executors import Executors
            from evervec.pipeline.mirrors.mirror import Mirror

            self._workshop = self._workshop or Executors()
            found = Mirror(self.settings, self.database, self._workshop, self.folder, dataset)
            self._mirrors[dataset.id] = found
        return found

    async def snapshots(
        self, wanted: Sequence[Dataset], *, seen: int | None = None, anything: bool = False
    ) -> "dict[UUID, Snapshot]":
        """What can be searched of these datasets now; those that are missing have to be asked of PostgreSQL.

        A process that follows serves what it holds, and opens what it had to drop. Any other one opens what is on
        disk, if that is quick or `anything` is wanted, and reads the feed. With `seen` each reads it: the vector of what
        that transaction wrote came in a later one.
        """
        found: dict[UUID, Snapshot] = {}
        for dataset in wanted:
            mirror = self.mirror(dataset)
            if mirror.index is None and (
                mirror.state == "dropped" if self.following else self._quick(dataset, anything)
            ):
                await self._open(mirror, build_missing=False)
            snapshot = mirror.snapshot()
            if snapshot is not None and (not self.following or seen is not None):
                snapshot = await self._caught_up(mirror)
            if snapshot is not None:
                found[dataset.id] = snapshot
        return found

    def _quick(self, dataset: Dataset, anything: bool) -> bool:
        """Whether a process that ends after one answer should read this mirror."""
        there = self.folder.describe(dataset.project_id, dataset.id)
        return there is not None and (anything or there["bytes"] <= QUICK_BYTES)

    async def _caught_up(self, mirror: "Mirror") -> "Snapshot | None":
        from evervec.pipeline.mirrors.mirror import NothingToMirrorError, OtherDatabaseError

        try:
            await mirror.catch_up()
        except (NothingToMirrorError, OtherDatabaseError) as error:
            logger.info("mirror not used", dataset=mirror.name, reason=str(error))
            self._rung.ring({mirror.dataset.id})
            if not self.following:
                mirror.drop(str(error))  # perhaps somebody else has put the right one on disk by the next time
            return None
        return mirror.snapshot()

    async def _open(self, mirror: "Mirror", *, build_missing: bool, follow: bool = True) -> None:
        """Open a mirror once, however many ask."""
        task = self._opening.get(mirror.dataset.id)
        if task is None:
            task = asyncio.create_task(self.guarded(mirror, mirror.open(build_missing=build_missing, follow=follow)))
            self._opening[mirror.dataset.id] = task
            task.add_done_callback(lambda _: self._opening.pop(mirror.dataset.id, None))
        await asyncio.shield(task)
        self.keep_to_budget(mirror)

    async def guarded(self, mirror: "Mirror", work: Awaitable[object]) -> None:
        """Whatever happens to one mirror is that mirror's state, and nobody else's trouble."""
        from evervec.mirror.build import Cancelled
        from evervec.pipeline.mirrors.mirror import NothingToMirrorError, failure

        try:
            await work
        except NothingToMirrorError as error:
            mirror.fail(str(error))
            if self._mirrors.get(mirror.dataset.id) is not mirror:  # deleted while it was built
                await self.remove_files(mirror.dataset)
        except Cancelled:
            logger.info("mirror not built: this process stops", dataset=mirror.name)
        except Exception as error:
            # a disk, a database, FAISS: searches go to PostgreSQL, and the next round tries again
            logger.warning("mirror failed", dataset=mirror.name, reason=failure(error))
            if mirror.index is None:
                mirror.fail(failure(error))

    async def remove_files(self, dataset: Dataset) -> None:
        try:
            await asyncio.to_thread(self.folder.remove, dataset.project_id, dataset.id)
        except (MirrorBusyError, MirrorFolderError) as error:
            logger.info("files of a deleted dataset stay for now", dataset=str(dataset.id), reason=str(error))

    def keep_to_budget(self, kept: "Mirror") -> None:
        """Drop what was not used for longest, never what was just asked for."""
        budget = self.settings.mirror_memory_mb * MEGABYTE
        held = sorted((m for m in self._mirrors.values() if m.index is not None), key=lambda m: m.used)
        used = sum(mirror.memory for mirror in held)
        for mirror in held:
            if used <= budget or mirror is kept:
                continue
            used -= mirror.memory
            mirror.drop(f"{self.settings.mirror_memory_mb} MB are used (EVERVEC_MIRROR_MEMORY_MB)")

    async def check(
        self, dataset: Dataset, *, follow: bool = True, deep: bool = False, repair: bool = True
    ) -> "MirrorDifference":
        """The sync check of a dataset; see `Mirror.check`. Raises `NothingToMirrorError`."""
        mirror = self.mirror(dataset)
        if mirror.index is None:
            await self._open(mirror, build_missing=False, follow=follow)
        return await mirror.check(follow=follow, deep=deep, repair=repair)

    async def rebuild(self, dataset: Dataset, reason: str) -> "Mirror":
        """Build a dataset's mirror anew from the database. Raises `NothingToMirrorError`."""
        mirror = self.mirror(dataset)
        await mirror.rebuild(reason)
        self.keep_to_budget(mirror)
        return mirror

    @contextmanager
    def followed(self) -> Iterator[FollowerDoorbell]:
        """Let a follower keep the mirrors up to date while inside; yield the bells that wake it."""
        self._rung = FollowerDoorbell()
        self.following = True
        try:
            yield self._rung
        finally:
            self.following = False

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """While inside, builds stop at their next slice."""
        if self._workshop is not None:
            self._workshop.closed = True
        try:
            yield
        finally:
            if self._workshop is not None:
                self._workshop.closed = False

    async def aclose(self) -> None:
        """Close what was opened; may be called twice."""
        searcher, self._searcher = self._searcher, None
        if searcher is not None:
            await searcher.aclose()
        workshop, self._workshop = self._workshop, None
        if workshop is not None:
            await asyncio.to_thread(workshop.close)
        self._mirrors.clear()
