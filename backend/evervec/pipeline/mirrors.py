"""The mirrors of one process: which are open, how they follow the feed, what they may hold, what they are asked."""

import asyncio
import os
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from evervec import log
from evervec.domain.feed import Watermark
from evervec.errors import EvervecError, MirrorBusyError, MirrorFolderError
from evervec.settings import Settings
from evervec.store import changes, datasets, mirrors
from evervec.store.datasets import Dataset
from evervec.store.mirrors import Holder, Told
from evervec.store.session import Database

if TYPE_CHECKING:
    # FAISS takes a third of a second to import, which most commands do without
    from evervec.mirror.batching import Searcher
    from evervec.mirror.files import Folder
    from evervec.mirror.snapshot import Snapshot
    from evervec.pipeline.refresh import Mirror
    from evervec.pipeline.truth import SyncCheck
    from evervec.pipeline.workshop import Workshop
    from evervec.queue.broker import JetStreamBroker

logger = log.get("mirror")

TELL_SECONDS = 1.0
DISCOVER_SECONDS = 2.0
MEGABYTE = 1 << 20
QUICK_BYTES = 64 * MEGABYTE
"""A file of that size is read and checked in the time of one query."""


class Mirrors:
    """Every mirror of this process. Nothing is opened, and nothing runs, before somebody asks for it.

    A process that stays calls `follow`; one that only answers a question opens what is on disk.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.following = False
        self._settings = settings
        self._database = database
        self._mirrors: dict[UUID, Mirror] = {}
        self._opening: dict[UUID, asyncio.Task[None]] = {}
        self._workshop: Workshop | None = None
        self._searcher: Searcher | None = None
        self._folder: Folder | None = None
        self._rung: set[UUID] = set()
        self._wake = asyncio.Event()
        self._holder: Holder | None = None
        self._due: dict[tuple[UUID | None, str], float] = {}
        self._behind: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._chores: asyncio.Task[None] | None = None

    @property
    def folder(self) -> "Folder":
        """The folder of mirrors on disk."""
        if self._folder is None:
            from evervec.mirror.files import Folder

            self._folder = Folder(self._settings.mirrors)
        return self._folder

    @property
    def searcher(self) -> "Searcher":
        """Answers searches of this process, many in one call."""
        if self._searcher is None:
            from evervec.mirror.batching import Searcher

            self._searcher = Searcher()
        return self._searcher

    @property
    def holder(self) -> Holder:
        """Who this process is, for the others."""
        if self._holder is None:
            from evervec.mirror.paths import this_host

            self._holder = Holder(uuid4(), this_host(), str(self._settings.mirrors.resolve()), os.getpid())
        return self._holder

    def mirror(self, dataset: Dataset) -> "Mirror":
        """The mirror of a dataset, as it stands: perhaps not open."""
        found = self._mirrors.get(dataset.id)
        if found is None:
            from evervec.pipeline.refresh import Mirror
            from evervec.pipeline.workshop import Workshop

            self._workshop = self._workshop or Workshop()
            found = Mirror(self._settings, self._database, self._workshop, self.folder, dataset)
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
        from evervec.pipeline.refresh import GoneError, OtherLifeError

        try:
            await mirror.catch_up()
        except (GoneError, OtherLifeError) as error:
            logger.info("mirror not used", dataset=mirror.name, reason=str(error))
            self._rung.add(mirror.dataset.id)
            if not self.following:
                mirror.drop(str(error))  # perhaps somebody else has put the right one on disk by the next time
            return None
        return mirror.snapshot()

    async def _open(self, mirror: "Mirror", *, build_missing: bool, follow: bool = True) -> None:
        """Open a mirror once, however many ask."""
        task = self._opening.get(mirror.dataset.id)
        if task is None:
            task = asyncio.create_task(self._guarded(mirror, mirror.open(build_missing=build_missing, follow=follow)))
            self._opening[mirror.dataset.id] = task
            task.add_done_callback(lambda _: self._opening.pop(mirror.dataset.id, None))
        await asyncio.shield(task)
        self._keep_to_budget(mirror)

    async def _guarded(self, mirror: "Mirror", work: Awaitable[object]) -> None:
        """Whatever happens to one mirror is that mirror's state, and nobody else's trouble."""
        from evervec.mirror.build import Cancelled
        from evervec.pipeline.refresh import GoneError, failure

        try:
            await work
        except GoneError as error:
            mirror.fail(str(error))
            if self._mirrors.get(mirror.dataset.id) is not mirror:  # deleted while it was built
                await self._remove_files(mirror.dataset)
        except Cancelled:
            logger.info("mirror not built: this process stops", dataset=mirror.name)
        except Exception as error:
            # a disk, a database, FAISS: searches go to PostgreSQL, and the next round tries again
            logger.warning("mirror failed", dataset=mirror.name, reason=failure(error))
            if mirror.index is None:
                mirror.fail(failure(error))

    def _keep_to_budget(self, kept: "Mirror") -> None:
        """Drop what was not used for longest, never what was just asked for."""
        budget = self._settings.mirror_memory_mb * MEGABYTE
        held = sorted((m for m in self._mirrors.values() if m.index is not None), key=lambda m: m.used)
        used = sum(mirror.memory for mirror in held)
        for mirror in held:
            if used <= budget or mirror is kept:
                continue
            used -= mirror.memory
            mirror.drop(f"{self._settings.mirror_memory_mb} MB are used (EVERVEC_MIRROR_MEMORY_MB)")

    async def check(
        self, dataset: Dataset, *, follow: bool = True, deep: bool = False, repair: bool = True
    ) -> "SyncCheck":
        """The sync check of a dataset; see `Mirror.check`. Raises `GoneError`."""
        mirror = self.mirror(dataset)
        if mirror.index is None:
            await self._open(mirror, build_missing=False, follow=follow)
        return await mirror.check(follow=follow, deep=deep, repair=repair)

    async def rebuild(self, dataset: Dataset, reason: str) -> "Mirror":
        """Build a dataset's mirror anew from the database. Raises `GoneError`."""
        mirror = self.mirror(dataset)
        await mirror.rebuild(reason)
        self._keep_to_budget(mirror)
        return mirror

    # --- following ---------------------------------------------------------------------------------------------

    async def follow(self, broker: "JetStreamBroker", finish: asyncio.Event) -> None:
        """Keep a mirror of every live dataset true until `finish` is set: by doorbell, and by looking now and then."""
        from evervec.queue.changed import hearing_changes

        self.following = True
        ended = asyncio.create_task(self._wake_at(finish))
        try:
            async with hearing_changes(broker, self._ring):
                while not finish.is_set():
                    await self._turn()
                    await self._until_woken()
        finally:
            ended.cancel()
            self.following = False
            if self._chores is not None:
                await asyncio.gather(self._chores, return_exceptions=True)
            await self._leave()

    def _ring(self, dataset_ids: set[UUID]) -> None:
        self._rung |= dataset_ids
        self._wake.set()

    async def _wake_at(self, finish: asyncio.Event) -> None:
        await finish.wait()
        self._wake.set()

    async def _until_woken(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._settings.mirror_poll_seconds)
        self._wake.clear()
        if self._is_due("poll", self._settings.mirror_poll_seconds):
            self._rung |= self._mirrors.keys()  # also those for whom nobody rang

    async def _turn(self) -> None:
        """One round: the news, and beside it what is due otherwise, for which no news waits."""
        await self._logged(self._apply_news())
        if self._chores is None or self._chores.done():
            self._chores = asyncio.create_task(self._logged(self._do_chores()))
        if not self._mirrors:  # at the start all are opened before anything else happens
            await self._chores

    async def _do_chores(self) -> None:
        if self._is_due("discover", DISCOVER_SECONDS):
            await self._discover(first=not self._mirrors)
        if self._is_due("tell", TELL_SECONDS):
            await self._tell()
        for mirror in [m for m in self._mirrors.values() if m.index is not None and self.following]:
            self._look_after(mirror)

    async def _logged(self, work: Awaitable[None]) -> None:
        """Whatever is down now is up again later: following itself never ends by an error."""
        try:
            await work
        except EvervecError as error:
            logger.warning("mirrors are not followed for the moment", reason=str(error))
        except Exception:
            logger.exception("mirrors are not followed for the moment")

    async def _apply_news(self) -> None:
        """Catch up those that a bell rang for; of many, those that have news at all."""
        rung, self._rung = self._rung, set()
        ready = {
            dataset_id: mirror.index.snapshot.watermark
            for dataset_id in rung
            if (mirror := self._mirrors.get(dataset_id)) is not None and mirror.index is not None
        }
        if len(ready) > 1:
            async with self._database.read() as tx:
                ready = {dataset_id: ready[dataset_id] for dataset_id in await changes.with_news(tx, ready)}
        for dataset_id in ready:
            if (mirror := self._mirrors.get(dataset_id)) is not None:  # or the dataset was deleted meanwhile
                await self._follow_one(mirror)

    async def _follow_one(self, mirror: "Mirror") -> None:
        from evervec.pipeline.refresh import GoneError, OtherLifeError

        try:
            await mirror.catch_up()
        except OtherLifeError as error:
            logger.warning("mirror of another life", dataset=mirror.name, reason=str(error))
            mirror.drop(str(error))
            self._in_background(mirror, "open", mirror.rebuild(str(error)))
        except GoneError as error:
            mirror.fail(str(error))

    async def _discover(self, *, first: bool) -> None:
        """Open what is new, forget what is gone. At the start all are opened before anything else happens."""
        async with self._database.read() as tx:
            live = {dataset.id: dataset for dataset in await datasets.live(tx)}
            active = await changes.heading(tx, next(iter(live))) if live else None
        for dataset_id in self._mirrors.keys() - live.keys():
            mirror = self._mirrors.pop(dataset_id)
            await self._remove_files(mirror.dataset)
        if self._is_due("collect", self._settings.mirror_check_seconds):
            await self._collect(live.values())
        if active is None:
            return
        closed = [self.mirror(dataset) for dataset in live.values() if self.mirror(dataset).index is None]
        waiting = [
            m for m in closed if m.state != "dropped" and self._is_due("open", 2.0 ** min(m.failures, 8), m.dataset.id)
        ]
        opened = [self._in_background(mirror, "open", self._opened(mirror)) for mirror in waiting]
        if first:
            await asyncio.gather(*opened)

    async def _opened(self, mirror: "Mirror") -> None:
        await mirror.open()
        self._keep_to_budget(mirror)
        if mirror.index is not None:
            await self._check(mirror, asked=False)

    async def _remove_files(self, dataset: Dataset) -> None:
        try:
            await asyncio.to_thread(self.folder.remove, dataset.project_id, dataset.id)
        except (MirrorBusyError, MirrorFolderError) as error:
            logger.info("files of a deleted dataset stay for now", dataset=str(dataset.id), reason=str(error))

    async def _collect(self, live: Iterable[Dataset]) -> None:
        try:
            await asyncio.to_thread(self.folder.collect, [(d.project_id, d.id) for d in live])
        except MirrorFolderError as error:
            logger.warning("old files of mirrors stay", reason=str(error))

    def _look_after(self, mirror: "Mirror") -> None:
        """What is due for one mirror, each at most once at a time, all beside the searches."""
        key = mirror.dataset.id
        if mirror.index is not None and (reason := mirror.index.compaction_due()):
            self._in_background(mirror, "build", mirror.rebuild(reason))
        if self._is_due("check", self._settings.mirror_check_seconds, key, at_once=False):
            self._in_background(mirror, "check", self._checked_and_pruned(mirror))
        if self._is_due("recall", self._settings.mirror_recall_seconds, key, at_once=False):
            self._in_background(mirror, "recall", self._watch_recall(mirror))

    def _is_due(self, what: str, seconds: float, of: UUID | None = None, *, at_once: bool = True) -> bool:
        now = monotonic()
        due = self._due.setdefault((of, what), now if at_once else now + seconds)
        if now < due:
            return False
        self._due[of, what] = now + seconds
        return True

    def _in_background(self, mirror: "Mirror", what: str, work: Awaitable[object]) -> "asyncio.Task[None]":
        """Start it, unless the same is at work for the same mirror."""
        key = (mirror.dataset.id, what)
        running = self._behind.get(key)
        if running is not None:
            if asyncio.iscoroutine(work):
                work.close()
            return running
        task = asyncio.create_task(self._guarded(mirror, work))
        self._behind[key] = task
        task.add_done_callback(lambda _: self._behind.pop(key, None))
        return task

    async def _check(self, mirror: "Mirror", *, asked: bool) -> None:
        found = await self.check(mirror.dataset, deep=asked)  # opens it first where it was dropped
        async with self._database.transaction() as tx:
            await mirrors.tell(tx, self.holder, self._told())
            await mirrors.checked(
                tx,
                self.holder,
                mirror.dataset.id,
                missing=found.missing,
                extra=found.extra,
                stale=found.stale,
                answer=asked,
            )

    async def _checked_and_pruned(self, mirror: "Mirror") -> None:
        """The check, and then tombstones that every live mirror has seen are forgotten."""
        await self._check(mirror, asked=False)
        async with self._database.transaction() as tx:
            lowest = await mirrors.lowest_watermark(tx, mirror.dataset.id)
            if lowest is not None:
                await changes.prune(tx, mirror.dataset.id, Watermark.parse(lowest).xmin)

    async def _watch_recall(self, mirror: "Mirror") -> None:
        from evervec.pipeline.recall import measure

        await measure(self._database, mirror)

    async def _tell(self) -> None:
        """Say how far everything is; hear what is asked."""
        async with self._database.transaction() as tx:
            asked = await mirrors.tell(tx, self.holder, self._told())
        for dataset_id, what in asked.items():
            mirror = self._mirrors[dataset_id]
            self._in_background(mirror, "asked", self._answer(mirror, what))

    async def _answer(self, mirror: "Mirror", what: str) -> None:
        try:
            if what != "check":
                await mirror.rebuild(f"{what} was asked for")
            await self._check(mirror, asked=True)
        except Exception:
            async with self._database.transaction() as tx:
                await mirrors.pass_on(tx, self.holder, mirror.dataset.id)
            raise

    def _told(self) -> list[Told]:
        return [
            Told(
                dataset_id,
                mirror.state,
                mirror.reason,
                0 if mirror.index is None else len(mirror.index),
                mirror.memory,
                None if mirror.index is None else str(mirror.index.snapshot.watermark),
            )
            for dataset_id, mirror in self._mirrors.items()
        ]

    async def _leave(self) -> None:
        """The end of following: finish or give up what runs, save small mirrors, and say goodbye."""
        if self._workshop is not None and self._behind:
            self._workshop.closed = True
            await asyncio.gather(*self._behind.values(), return_exceptions=True)
            self._workshop.closed = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_seconds / 2):
                for mirror in list(self._mirrors.values()):
                    await self._guarded(mirror, mirror.save())
        try:
            async with self._database.transaction() as tx:
                await mirrors.leave(tx, self.holder)
        except EvervecError as error:
            logger.info("left without a word", reason=str(error))

    async def aclose(self) -> None:
        """Close what was opened; may be called twice."""
        searcher, self._searcher = self._searcher, None
        if searcher is not None:
            await searcher.aclose()
        workshop, self._workshop = self._workshop, None
        if workshop is not None:
            await asyncio.to_thread(workshop.close)
        self._mirrors.clear()
