"""One dataset's mirror: opened from disk or built, updated from the change feed, checked, repaired, rebuilt.

All work of FAISS runs in threads; until it is done, searches use the snapshot from before.
"""

import asyncio
import os
from collections.abc import Sequence
from time import monotonic, perf_counter
from uuid import UUID

import numpy as np

from evervec import log
from evervec.domain.feed import Changes, FeedVectors, Watermark, compare
from evervec.mirror.build import build
from evervec.mirror.disk.folder import MirrorFolder
from evervec.mirror.index import DatasetIndex
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors import difference
from evervec.pipeline.mirrors.carry_over import carry_over
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.executors import Executors
from evervec.pipeline.mirrors.published_file import PublishedFile
from evervec.pipeline.mirrors.relation import (
    NothingToMirrorError,
    OtherDatabaseError,
    OtherHistoryError,
    unrelated,
)
from evervec.settings import Settings
from evervec.store.database.session import Database, ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState

logger = log.get("mirror")


class Mirror:
    """One dataset's mirror in one space, in this process. `index` is None until there is something to search.

    `is_current` says that the space is the one that is searched; others are ready for a flip.
    """

    def __init__(
        self, settings: Settings, database: Database, executors: Executors, folder: MirrorFolder, of: DatasetRef
    ) -> None:
        self.dataset = of
        self.is_current = True
        self.index: DatasetIndex | None = None
        self.state = "loading"
        self.reason = ""
        self.used = monotonic()
        self.last_check: MirrorDifference | None = None
        self.file = PublishedFile(folder, executors, of)
        self.failures = 0
        self._settings = settings
        self._database = database
        self._executors = executors
        self._unverified: DatasetIndex | None = None
        self._lost_before = 0
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

    @property
    def was_disconnected(self) -> bool:
        """Return whether a connection was lost since the feed was read: what answers now may be another server."""
        return self._lost_before != self._database.lost_connections

    async def open(self, *, build_missing: bool = True, follow: bool = True) -> None:
        """Read the mirror from disk and apply the change feed; build it from the database if there is no valid file.

        One of another history of the database is compared with it first. Without `build_missing` nothing is built or
        compared. Without `follow` the feed is not applied. Raises `NothingToMirrorError`.
        """
        async with self._building:
            if self.index is not None:
                return
            feed = await self._feed_state()
            self._set_state("loading", self.reason)
            index, self._unverified = self._unverified, None
            reread: tuple[int, ...] = ()
            if index is None:
                loaded = await self.file.load(feed.identity)
                self.reason, reread = loaded.reason, loaded.reread
                index = None if loaded.segment is None else DatasetIndex(loaded.segment)
            if index is not None and await self._opened(index, reread, build_missing=build_missing, follow=follow):
                return
        if build_missing:
            await self.rebuild(self.reason or "there was no file")

    async def _opened(self, index: DatasetIndex, reread: Sequence[int], *, build_missing: bool, follow: bool) -> bool:
        """Bring an index up to date and let it be searched; return False if only a rebuild can do that."""
        opened: DatasetIndex | None = index
        try:
            if follow:
                await self._catch_up(index, reread)
        except OtherDatabaseError as error:
            self._set_state("loading", str(error))
            if not build_missing:
                return False
            opened = await self._carried_over(index) if isinstance(error, OtherHistoryError) else None
            if opened is None:
                await self.file.remove(self.reason)
                return False
        self.index = opened
        self._set_state("ready", self.file.problem)
        return True

    async def _carried_over(self, index: DatasetIndex) -> DatasetIndex | None:
        """Return an index as of the present history of the database; None if it differs in so much that it is rebuilt."""
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            if feed.identity.foreign(index.snapshot.identity):
                return None
            carried = await carry_over(tx, self.dataset.id, feed, index, self._executors)
        self.last_check = found = carried.found
        logger.warning(
            "mirror compared with another history",
            dataset=self.name,
            reason=self.reason,
            vectors=found.vectors,
            missing=found.missing,
            extra=found.extra,
            stale=found.stale,
            seconds=round(found.milliseconds / 1000, 3),
        )
        if carried.index is not None:
            await self.file.relabel(carried)
            await self._catch_up(carried.index)
        return carried.index

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
            segment = await self.file.save(await self._build())
            index = DatasetIndex(segment)
            await self._catch_up(index)  # most of what was written meanwhile, so that little is left under the lock
            async with self._writing:
                await self._catch_up(index)
                self.index, self._unverified = index, None
            self._set_state("ready", self.file.problem)
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
        difference is too large. Every number is compared where the database has another history than the mirror. Raises
        `NothingToMirrorError`.
        """
        try:
            async with self._writing:
                found = await self._compare(follow=follow, deep=deep, repair=repair)
        except OtherHistoryError as error:
            self.distrust(str(error))
            await self.open()
            async with self._writing:
                found = self.last_check or await self._compare(follow=True, deep=False, repair=False)
            self.last_check = found
            return found
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
        """Put an index away that must not be searched before it is compared. Unlike a dropped one, it is opened by itself."""
        if self.index is not None:
            self._unverified, self.index, self.last_check = self.index, None, None
        self._set_state("loading", reason)

    def fail(self, reason: str) -> None:
        """Record why there is nothing to search."""
        self.index = None
        self.failures += 1
        self._set_state("failed", reason)

    @property
    def name(self) -> str:
        """Return the dataset's name, `project/dataset`."""
        return self.dataset.name

    @property
    def key(self) -> tuple[UUID, int]:
        """Return the dataset and the space."""
        return self.dataset.id, self.dataset.space_id

    async def turn(self, *, current: bool, folder: MirrorFolder) -> bool:
        """Publish the file where a mirror of the space that is searched, or of another one, is looked for.

        Return whether there is such a file, or none is needed.
        """
        if self.is_current == current:
            return True
        self.is_current = current
        if current:
            return await self.file.move_to(folder)
        self.file = PublishedFile(folder, self._executors, self.dataset)
        return True

    def _set_state(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        if state == "ready":
            self.failures = 0

    async def _feed_state(self, tx: ReadTx | None = None) -> FeedState:
        if tx is None:
            async with self._database.read() as own:
                return await self._feed_state(own)
        feed = await changes.feed_state(tx, *self.key)
        if feed is None:
            raise NothingToMirrorError(f"space {self.dataset.space_id} was dropped")
        if not feed.live:
            raise NothingToMirrorError("the dataset was deleted")
        return feed

    async def _catch_up(self, index: DatasetIndex, reread: Sequence[int] = ()) -> int:
        """Read some vectors again, and apply the change feed up to now."""
        seen, lost = index.snapshot.watermark, self._database.lost_connections
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            if other := unrelated(index.snapshot.identity, seen, feed):
                raise other
            if reread:
                again = await changes.by_ids(tx, *self.key, reread, feed.identity.dimensions)
                await self._executors.quick(index.repair, again, np.array(reread, np.int64))
            if feed.feed_from > seen.xmin:  # tombstones that it has not seen are pruned: only a comparison finds them
                mirrored = await self._executors.quick(index.versions)
                differing = compare(await changes.versions(tx, *self.key), mirrored)
                changed = await difference.changes_to_apply(tx, self.dataset.id, feed, differing)
            else:
                changed = await changes.since(tx, *self.key, seen, feed.identity.dimensions)
        await self._executors.quick(index.apply, changed)
        self._lost_before = lost
        return len(changed)

    async def _build(self) -> Segment:
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            vectors = await changes.all_vectors(tx, *self.key, feed.identity.dimensions)
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

    async def _compare(self, *, follow: bool, deep: bool, repair: bool) -> MirrorDifference:
        started = perf_counter()
        index = self.index
        async with self._database.read() as tx:
            feed = await self._feed_state(tx)
            other = None if index is None else unrelated(index.snapshot.identity, index.snapshot.watermark, feed)
            if index is None or (other and not isinstance(other, OtherHistoryError)):
                none = np.empty(0, np.int64)
                mirrored = (none, none) if index is None else await self._executors.quick(index.versions)
                wanted = await changes.versions(tx, *self.key)
                differing = compare(wanted, mirrored)
                return difference.summarize(started, len(wanted[0]), differing, "rebuild" if repair else "")
            if other:
                if repair:
                    raise other
                self.reason, follow, deep = str(other), False, True
            if follow and feed.feed_from <= index.snapshot.watermark.xmin:
                seen = index.snapshot.watermark
                await self._executors.quick(
                    index.apply, await changes.since(tx, *self.key, seen, feed.identity.dimensions)
                )
            count, differing, not_in_feed = await difference.difference(
                tx, self.dataset.id, index, self._executors, deep=deep
            )
            if not len(differing) or not repair:
                return difference.summarize(started, count, differing, "")
            if not_in_feed or difference.too_large(differing, count):
                return difference.summarize(started, count, differing, "rebuild")
            found = difference.summarize(started, count, differing, "repair")
            changed = await difference.changes_to_apply(tx, self.dataset.id, feed, differing)
        await self._executors.quick(index.apply, changed)
        return found
