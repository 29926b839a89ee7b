"""One dataset's mirror: opened from disk or built, updated from the change feed, checked, repaired, rebuilt.

All work of FAISS runs in threads; until it is done, searches use the snapshot from before.
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
from evervec.mirror.disk.folder import MirrorFolder
from evervec.mirror.index import DatasetIndex
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors import difference
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.executors import Executors
from evervec.settings import Settings
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState
from evervec.store.session import Database, ReadTx

logger = log.get("mirror")

REBUILD_ABOVE = 0.2
"""A mirror that differs in more than this share of its vectors is rebuilt instead of repaired."""


class OtherDatabaseError(Exception):
    """The mirror's watermark belongs to another database, or to another history of it: the feed can not update it."""


class NothingToMirrorError(Exception):
    """The dataset was deleted, or no embedding space is active: there is nothing to mirror."""


class Mirror:
    """One dataset's mirror in this process. `index` is None until there is something to search."""

    def __init__(
        self, settings: Settings, database: Database, executors: Executors, folder: MirrorFolder, of: DatasetRef
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
        self._executors = executors
        self._folder = folder
        self._writing = asyncio.Lock()
        self._building = asyncio.Lock()

    @property
    def memory(self) -> int:
        """Return the bytes in memory."""
        return 0 if self.index is None else self.index.snapshot.memory

    def snapshot(self) -> Snapshot | None:
        """Return what a search reads, or None while there is nothing."""
        self.used = monotonic()
        return None if self.index is None else self.index.snapshot

    async def open(self, *, build_missing: bool = True, follow: bool = True) -> None:
        """Read the mirror from disk and apply the change feed; build it from the database if there is no valid file.

        Without `build_missing` nothing is built. Without `follow` the feed is not applied. Raises `NothingToMirrorError`.
        """
        async with self._building:
            if self.index is not None:
                return
            feed = await self._feed_state()
            self._set_state("loading")
            loaded = await self._executors.quick(
                self._folder.load, self.dataset.project_id, self.dataset.id, feed.identity
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
                        await self._remove_file()
                else:
                    self.index = index
                    self._set_state("ready")
                    return
            else:
                if loaded.state == "set aside":
                    logger.warning("mirror quarantined", dataset=self.name, reason=loaded.reason)
                self.reason = loaded.reason
        if build_missing:
            await self.rebuild(self.reason or "there was no file")

    async def _remove_file(self) -> None:
        """Remove a file whose watermark this database never reached: it would count as newer than any rebuilt one."""
        logger.warning("mirror removed", dataset=self.name, reason=self.reason)
        # if that fails, the rebuilt mirror stays in memory only, and its reason says so
        with suppress(MirrorBusyError, MirrorFolderError):
            await self._executors.quick(self._folder.remove, self.dataset.project_id, self.dataset.id)

    async def catch_up(self) -> int:
        """Apply the change feed; return how many vectors and tombstones were applied.

        Raises `OtherDatabaseError` when the feed does not belong to this mirror, `NothingToMirrorError` when the
        dataset is deleted.
        """
        async with self._writing:
            return 0 if self.index is None else await self._catch_up(self.index)

    async def advance(self, seen: Watermark, now: Watermark) -> None:
        """Move the watermark from `seen` to `now`, between which the caller found no changes in the feed."""
        async with self._writing:
            index = self.index
            if index is not None and index.snapshot.watermark == seen and now.xmax >= seen.xmax:
                empty = FeedVectors.none(index.snapshot.dimensions)
                await self._executors.quick(index.apply, Changes(now, empty, empty.ids))

    async def rebuild(self, reason: str) -> None:
        """Build the mirror anew from the database; the old one is searched until the new one is up to date."""
        async with self._building:
            started = perf_counter()
            if self.index is None:
                self._set_state("building", reason)
            segment = await self._write(await self._build())
            index = DatasetIndex(segment)
            await self._catch_up(index)  # most of what was written meanwhile, so that little is left under the lock
            async with self._writing:
                await self._catch_up(index)
                self.index = index
            self._set_state("ready", "" if self.state == "dropped" else self.reason)
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

        With `follow` the change feed is applied first. `repair` removes the difference, or rebuilds the mirror where the
        difference is too large. Raises `NothingToMirrorError`.
        """
        async with self._writing:
            found = await self._compare(follow=follow, deep=deep, repair=repair)
        if found.repaired == "rebuild":
            await self.rebuild(f"{found.missing:,} missing, {found.extra:,} extra, {found.stale:,} stale")
        elif found.repaired:
            logger.warning(
                "mirror repaired", dataset=self.name, missing=found.missing, extra=found.extra, stale=found.stale
            )
        self.last_check = found
        return found

    async def save(self) -> None:
        """Rebuild a small mirror so that its file is up to date; the feed completes the file of a large one at the next start."""
        index = self.index
        if index is not None and index.snapshot.main.index is index.snapshot.main.storage and self.unsaved:
            await self.rebuild("saved")

    @property
    def unsaved(self) -> int:
        """Return how many vectors and tombstones are not in the main segment."""
        if self.index is None:
            return 0
        now = self.index.snapshot
        return now.delta.stored + len(now.main) - len(now.base)

    def drop(self, reason: str) -> None:
        """Release the memory; the file stays."""
        self.index = None
        self._set_state("dropped", reason)

    def distrust(self, reason: str) -> None:
        """Release an index that is wrong and must not be searched. Unlike a dropped one, it is opened again by itself."""
        self.index = None
        self._set_state("loading", reason)

    def fail(self, reason: str) -> None:
        """Record why there is nothing to search."""
        self.index = None
        self.failures += 1
        self._set_state("failed", reason)

    @property
    def name(self) -> str:
        """Return the dataset's name, `project/dataset`."""
        return f"{self.dataset.project}/{self.dataset.slug}"

    def _set_state(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        if state == "ready":
            self.failures = 0

    async def _feed_state(self, tx: ReadTx | None = None) -> FeedState:
        if tx is None:
            async with self._database.read() as own:
                return await self._feed_state(own)
        feed = await changes.feed_state(tx, self.dataset.id)
        if feed is None:
            raise NothingToMirrorError("no embedding space is active")
        if not feed.live:
            raise NothingToMirrorError("the dataset was deleted")
        return feed

    def _unrelated(self, index: DatasetIndex, feed: FeedState) -> str | None:
        """Return why the index's watermark is not valid in this database; None if it is."""
        now, seen = index.snapshot, feed.watermark.xmax
        if reason := now.identity.difference(feed.identity):
            return f"the database is another one: {reason}"
        if now.watermark.xmax > seen:
            older = f"transaction {seen}, not {now.watermark.xmax}"
            return f"the database is older than its mirror ({older}): it was restored from a backup"
        return None

    async def _catch_up(self, index: DatasetIndex) -> int:
        """Apply the change feed to an index up to now."""
        seen = index.snapshot.watermark
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            if other := self._unrelated(index, feed):
                raise OtherDatabaseError(other)
            if feed.feed_from > seen.xmin:  # tombstones that it has not seen are pruned: only a comparison finds them
                mirrored = await self._executors.quick(index.versions)
                differing = compare(await changes.versions(tx, self.dataset.id), mirrored)
                changed = await difference.changes_to_apply(tx, self.dataset.id, feed, differing)
            else:
                changed = await changes.since(tx, self.dataset.id, seen, feed.identity.dimensions)
        await self._executors.quick(index.apply, changed)
        return len(changed)

    async def _build(self) -> Segment:
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            vectors = await changes.all_vectors(tx, self.dataset.id, feed.identity.dimensions)
        # searches of the present index need the other cores
        cores = 1 if self.index is not None else os.cpu_count() or 1
        return await self._executors.slow(
            build,
            vectors,
            feed.identity,
            feed.watermark,
            target=feed.recall_target or self._settings.mirror_recall,
            factory=self._settings.mirror_index,
            threads=cores,
            stop=lambda: self._executors.closed,
        )

    async def _write(self, segment: Segment) -> Segment:
        """Return the segment as mapped from disk, or unchanged if it can not be written; of two builders, the first one's."""
        self._set_state(self.state)
        try:
            return await self._executors.slow(self._folder.save, self.dataset.project_id, self.dataset.id, segment)
        except MirrorBusyError as error:
            loaded = await self._executors.slow(
                self._folder.load, self.dataset.project_id, self.dataset.id, segment.identity
            )
            if loaded.segment is not None:
                return loaded.segment
            reason = str(error)
        except MirrorFolderError as error:
            reason = str(error)
        logger.warning("mirror is in memory only", dataset=self.name, reason=reason)
        self._set_state(self.state, f"in memory only: {reason}")
        return segment

    async def _compare(self, *, follow: bool, deep: bool, repair: bool) -> MirrorDifference:
        started = perf_counter()
        index = self.index
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            if index is None or self._unrelated(index, feed):
                none = np.empty(0, np.int64)
                mirrored = (none, none) if index is None else await self._executors.quick(index.versions)
                wanted = await changes.versions(tx, self.dataset.id)
                differing = compare(wanted, mirrored)
                return difference.summarize(started, len(wanted[0]), differing, "rebuild" if repair else "")
            if follow and feed.feed_from <= index.snapshot.watermark.xmin:
                seen = index.snapshot.watermark
                await self._executors.quick(
                    index.apply, await changes.since(tx, self.dataset.id, seen, feed.identity.dimensions)
                )
            count, differing, not_in_feed = await difference.difference(
                tx, self.dataset.id, index, self._executors, deep=deep
            )
            if not len(differing) or not repair:
                return difference.summarize(started, count, differing, "")
            if not_in_feed or len(differing) > REBUILD_ABOVE * max(count, 1):
                return difference.summarize(started, count, differing, "rebuild")
            found = difference.summarize(started, count, differing, "repair")
            changed = await difference.changes_to_apply(tx, self.dataset.id, feed, differing)
        await self._executors.quick(index.apply, changed)
        return found


def failure(error: BaseException) -> str:
    """Return in words why a mirror could not be opened or built."""
    return str(error) if isinstance(error, EvervecError | NothingToMirrorError | OtherDatabaseError) else repr(error)
