"""One dataset's mirror: opened from disk or built, kept up with the feed, checked, repaired, rebuilt.

Everything that FAISS does runs in a thread; what is searched meanwhile is the snapshot that was there before.
"""

import asyncio
import os
from contextlib import suppress
from time import monotonic, perf_counter

import numpy as np

from evervec import log
from evervec.domain.feed import Changes, FeedVectors, Watermark, compare
from evervec.errors import EvervecError, MirrorBusyError, MirrorFolderError
from evervec.mirror.build import build
from evervec.mirror.disk.files import Folder
from evervec.mirror.index import DatasetIndex
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors import difference
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.executors import Executors
from evervec.settings import Settings
from evervec.store import changes
from evervec.store.changes import FeedState
from evervec.store.datasets import Dataset
from evervec.store.session import Database, ReadTx

logger = log.get("mirror")

REBUILD_ABOVE = 0.2
"""A mirror that differs in more than this share is built anew instead of repaired."""


class OtherDatabaseError(Exception):
    """The watermark belongs to another database identity: the changes since then can not be computed."""


class NothingToMirrorError(Exception):
    """The dataset was deleted, or nothing embeds yet: there is nothing to mirror."""


class Mirror:
    """One dataset's mirror in this process. `index` is None until there is something to search."""

    def __init__(
        self, settings: Settings, database: Database, workshop: Executors, folder: Folder, of: Dataset
    ) -> None:
        self.dataset = of
        self.index: DatasetIndex | None = None
        self.state = "loading"
        self.reason = ""
        self.used = monotonic()
        self.last_check: MirrorDifference | None = None
        self.on_disk = ""
        self.failures = 0
        self._settings = settings
        self._database = database
        self._workshop = workshop
        self._folder = folder
        self._writing = asyncio.Lock()
        self._building = asyncio.Lock()

    @property
    def memory(self) -> int:
        """Bytes held."""
        return 0 if self.index is None else self.index.snapshot.memory

    def snapshot(self) -> Snapshot | None:
        """What a search sees, or None while there is nothing."""
        self.used = monotonic()
        return None if self.index is None else self.index.snapshot

    async def open(self, *, build_missing: bool = True, follow: bool = True) -> None:
        """From disk, brought up to the feed; else built from the database, unless only what is there is wanted.

        Without `follow` it stays as it was when it was written. Raises `NothingToMirrorError`.
        """
        async with self._building:
            if self.index is not None:
                return
            heading = await self._heading()
            self._to("loading")
            loaded = await self._workshop.quick(
                self._folder.load, self.dataset.project_id, self.dataset.id, heading.identity
            )
            if loaded.reason:
                logger.info("no mirror on disk", dataset=self.name, state=loaded.state, reason=loaded.reason)
            self.on_disk = loaded.state
            if loaded.segment is not None:
                index = DatasetIndex(loaded.segment)
                try:
                    if follow:
                        await self._catch_up(index)
                except OtherDatabaseError as error:
                    self.reason = str(error)
                    if build_missing:
                        await self._forget_file()
                else:
                    self.index = index
                    self._to("ready")
                    return
            else:
                if loaded.state == "set aside":
                    logger.warning("mirror set aside", dataset=self.name, reason=loaded.reason)
                self.reason = loaded.reason
        if build_missing:
            await self.rebuild(self.reason or "there was no file")

    async def _forget_file(self) -> None:
        """A file from a future that this database never had: it would look newer than whatever is built, and stay."""
        logger.warning("mirror removed", dataset=self.name, reason=self.reason)
        with suppress(MirrorBusyError, MirrorFolderError):  # then what is built stays in memory, and says so
            await self._workshop.quick(self._folder.remove, self.dataset.project_id, self.dataset.id)

    async def catch_up(self) -> int:
        """Apply what the feed says; answers how many vectors and tombstones it was.

        Raises `OtherDatabaseError` when it says nothing about this mirror, `NothingToMirrorError` when the dataset is deleted.
        """
        async with self._writing:
            return 0 if self.index is None else await self._catch_up(self.index)

    async def nothing_between(self, seen: Watermark, now: Watermark) -> None:
        """The feed was looked at and holds nothing between two watermarks: the mirror is as good as at the later one."""
        async with self._writing:
            index = self.index
            if index is not None and index.snapshot.watermark == seen and now.xmax >= seen.xmax:
                nothing = FeedVectors.none(index.snapshot.dimensions)
                await self._workshop.quick(index.apply, Changes(now, nothing, nothing.ids))

    async def rebuild(self, reason: str) -> None:
        """Build anew from the database; what is there is searched until the new one is at the feed's end."""
        async with self._building:
            started = perf_counter()
            if self.index is None:
                self._to("building", reason)
            segment = await self._saved(await self._built())
            index = DatasetIndex(segment)
            await self._catch_up(index)  # what was written meanwhile; the rest of it, under the lock, is short
            async with self._writing:
                await self._catch_up(index)
                self.index = index
            self._to("ready", "" if self.state == "dropped" else self.reason)
            logger.info(
                "mirror built",
                dataset=self.name,
                reason=reason,
                vectors=len(index),
                factory=segment.factory,
                recall=segment.tuning.recall,
                seconds=round(perf_counter() - started, 3),
            )

    async def check(self, *, follow: bool = True, deep: bool = False, repair: bool = True) -> MirrorDifference:
        """Compare with the database at one snapshot: digests, then versions, then (`deep`) every number of every vector.

        With `follow` what the feed explains is applied first and is no difference. `repair` puts the difference right,
        or builds anew where it is too large. Raises `NothingToMirrorError`.
        """
        async with self._writing:
            found = await self._compared(follow=follow, deep=deep, repair=repair)
        if found.repaired == "rebuild":
            await self.rebuild(f"{found.missing:,} missing, {found.extra:,} extra, {found.stale:,} stale")
        elif found.repaired:
            logger.warning(
                "mirror repaired", dataset=self.name, missing=found.missing, extra=found.extra, stale=found.stale
            )
        self.last_check = found
        return found

    async def save(self) -> None:
        """Put what is in memory on disk: a small mirror is built anew for it, of a large one the feed tells the rest."""
        index = self.index
        if index is not None and index.snapshot.main.index is index.snapshot.main.storage and self.unsaved:
            await self.rebuild("saved")

    @property
    def unsaved(self) -> int:
        """Vectors and tombstones that are not in the main segment."""
        if self.index is None:
            return 0
        now = self.index.snapshot
        return now.delta.stored + len(now.main) - len(now.base)

    def drop(self, reason: str) -> None:
        """Forget what is in memory; the file stays."""
        self.index = None
        self._to("dropped", reason)

    def distrust(self, reason: str) -> None:
        """Forget what is in memory, which is not to be searched any more. Unlike a dropped one, it is opened again."""
        self.index = None
        self._to("loading", reason)

    def fail(self, reason: str) -> None:
        """Say why there is nothing to search here."""
        self.index = None
        self.failures += 1
        self._to("failed", reason)

    @property
    def name(self) -> str:
        """How people call the dataset."""
        return f"{self.dataset.project}/{self.dataset.slug}"

    def _to(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        if state == "ready":
            self.failures = 0

    async def _heading(self, tx: ReadTx | None = None) -> FeedState:
        if tx is None:
            async with self._database.read() as own:
                return await self._heading(own)
        heading = await changes.feed_state(tx, self.dataset.id)
        if heading is None:
            raise NothingToMirrorError("no embedding space is active")
        if not heading.live:
            raise NothingToMirrorError("the dataset was deleted")
        return heading

    def _other_identity(self, index: DatasetIndex, heading: FeedState) -> str | None:
        """In words, why the watermark means nothing here; None where it does."""
        now, seen = index.snapshot, heading.watermark.xmax
        if reason := now.identity.difference(heading.identity):
            return f"the database is another one: {reason}"
        if now.watermark.xmax > seen:
            older = f"transaction {seen}, not {now.watermark.xmax}"
            return f"the database is older than its mirror ({older}): it was restored from a backup"
        return None

    async def _catch_up(self, index: DatasetIndex) -> int:
        """Bring an index to the feed's end."""
        seen = index.snapshot.watermark
        async with self._database.read() as tx:
            heading = await self._heading(tx)
            if other := self._other_identity(index, heading):
                raise OtherDatabaseError(other)
            if heading.feed_from > seen.xmin:  # tombstones that it has not seen are gone: only a comparison finds them
                held = await self._workshop.quick(index.versions)
                differing = compare(await changes.versions(tx, self.dataset.id), held)
                news = await difference.changes_to_apply(tx, self.dataset.id, heading, differing)
            else:
                news = await changes.since(tx, self.dataset.id, seen, heading.identity.dimensions)
        await self._workshop.quick(index.apply, news)
        return len(news)

    async def _built(self) -> Segment:
        async with self._database.read() as tx:
            heading = await self._heading(tx)
            vectors = await changes.all_vectors(tx, self.dataset.id, heading.identity.dimensions)
        # while another one is searched, a core is left to it
        cores = 1 if self.index is not None else os.cpu_count() or 1
        return await self._workshop.slow(
            build,
            vectors,
            heading.identity,
            heading.watermark,
            target=heading.recall_target or self._settings.mirror_recall,
            factory=self._settings.mirror_index,
            threads=cores,
            stop=lambda: self._workshop.closed,
        )

    async def _saved(self, segment: Segment) -> Segment:
        """The same segment from disk, or as it is where the disk does not take it; of two builders, the first one's."""
        self._to(self.state)
        try:
            return await self._workshop.slow(self._folder.save, self.dataset.project_id, self.dataset.id, segment)
        except MirrorBusyError as error:
            loaded = await self._workshop.slow(
                self._folder.load, self.dataset.project_id, self.dataset.id, segment.identity
            )
            if loaded.segment is not None:
                return loaded.segment
            reason = str(error)
        except MirrorFolderError as error:
            reason = str(error)
        logger.warning("mirror is in memory only", dataset=self.name, reason=reason)
        self._to(self.state, f"in memory only: {reason}")
        return segment

    async def _compared(self, *, follow: bool, deep: bool, repair: bool) -> MirrorDifference:
        started = perf_counter()
        index = self.index
        async with self._database.read() as tx:
            heading = await self._heading(tx)
            if index is None or self._other_identity(index, heading):
                none = np.empty(0, np.int64)
                held = (none, none) if index is None else await self._workshop.quick(index.versions)
                wanted = await changes.versions(tx, self.dataset.id)
                return difference.described(started, len(wanted[0]), compare(wanted, held), "rebuild" if repair else "")
            if follow and heading.feed_from <= index.snapshot.watermark.xmin:
                seen = index.snapshot.watermark
                await self._workshop.quick(
                    index.apply, await changes.since(tx, self.dataset.id, seen, heading.identity.dimensions)
                )
            count, differing, unheard = await difference.difference(
                tx, self.dataset.id, index, self._workshop, deep=deep
            )
            if not len(differing) or not repair:
                return difference.described(started, count, differing, "")
            if unheard or len(differing) > REBUILD_ABOVE * max(count, 1):
                return difference.described(started, count, differing, "rebuild")
            found = difference.described(started, count, differing, "repair")
            news = await difference.changes_to_apply(tx, self.dataset.id, heading, differing)
        await self._workshop.quick(index.apply, news)
        return found


def failure(error: BaseException) -> str:
    """In words, why a mirror could not be made."""
    return str(error) if isinstance(error, EvervecError | NothingToMirrorError | OtherDatabaseError) else repr(error)
