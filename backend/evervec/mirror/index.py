"""The index of one dataset: readers take its snapshot and never wait, one writer at a time publishes the next one."""

from dataclasses import replace
from threading import Lock

import numpy as np

from evervec.domain.feed import Changes, Digest, FeedVectors, Ids, Watermark
from evervec.mirror.build import FLAT_BELOW
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot

DELTA_LEAST = 10_000
"""Up to that many vectors a delta is scanned in a fraction of what the main segment takes."""
DELTA_SHARE = 0.10
TOMBSTONE_SHARE = 0.20


class DatasetIndex:
    """The mirror of one dataset in memory: a main segment and what the change feed said after it."""

    def __init__(self, main: Segment) -> None:
        self._snapshot = Snapshot.of(main)
        self._writer = Lock()

    @property
    def snapshot(self) -> Snapshot:
        """What stands now. Take it once for a search: it stays as it is, whatever is published meanwhile."""
        return self._snapshot

    def __len__(self) -> int:
        return len(self._snapshot)

    def apply(self, changes: Changes) -> Snapshot:
        """Publish what the feed said and answer the new snapshot. The same changes twice do no more than once.

        First `deleted` goes, then `upserts` comes, in whatever version: of two transactions that wrote one row the one
        with the lower id may have come last, so that only the watermark tells what is newer.
        Raises `ValueError` for a watermark behind the present one, vectors of another width, and an id that comes twice.
        """
        _check(changes.upserts, self._snapshot.dimensions)
        with self._writer:
            now = self._snapshot
            if _behind(changes.watermark, now.watermark):
                raise ValueError(f"The changes are of {changes.watermark}, the mirror is at {now.watermark} already.")
            self._snapshot = replace(_edited(now, changes.upserts, changes.deleted), watermark=changes.watermark)
            return self._snapshot

    def repair(self, upserts: FeedVectors, deleted: Ids, *, seen: Snapshot | None = None) -> Snapshot:
        """Publish what a check found to differ, under the same watermark: first `deleted` goes, then `upserts` comes.

        A vector is replaced in the same version too: its numbers may be what was wrong.
        `seen` is the snapshot that was compared, taken before the database was read: what changed here since then is
        newer than the check and stays as it is. Raises `ValueError` as `apply` does.
        """
        _check(upserts, self._snapshot.dimensions)
        with self._writer:
            now = self._snapshot
            if seen is not None and seen is not now:
                upserts = upserts.take(now.find(upserts.ids) == seen.find(upserts.ids))
                deleted = deleted[now.find(deleted) == seen.find(deleted)]
            self._snapshot = now.without(deleted).plus(upserts)
            return self._snapshot

    def digest(self) -> Digest:
        """Of all that is alive; see `Snapshot.digest`."""
        return self._snapshot.digest

    def versions(self) -> tuple[Ids, Ids]:
        """Ids and versions of all that is alive; see `Snapshot.versions`."""
        return self._snapshot.versions()

    def compaction_due(self) -> str | None:
        """In words, why the main segment should be built anew; None while it is good."""
        now = self._snapshot
        main, scanned = len(now.main), now.delta.stored
        dead = main - len(now.base)
        if main < FLAT_BELOW <= len(now):
            return f"{len(now):,} vectors are more than a flat scan is good for (below {FLAT_BELOW:,})"
        if scanned > max(DELTA_LEAST, DELTA_SHARE * main):
            return f"the delta holds {scanned:,} vectors beside {main:,}"
        if dead > TOMBSTONE_SHARE * main:
            return f"{dead:,} of {main:,} vectors are tombstones"
        return None


def _check(upserts: FeedVectors, dimensions: int) -> None:
    if len(upserts) and upserts.rows.shape[1:] != (dimensions,):
        width = upserts.rows.shape[1] if upserts.rows.ndim == 2 else upserts.rows.shape
        raise ValueError(f"The vectors are {width} wide, those of this dataset {dimensions}.")
    ids = np.sort(upserts.ids)
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise ValueError(f"Vector {twice[0]} comes twice among the same changes.")


def _behind(coming: Watermark, present: Watermark) -> bool:
    """Whether something that is in the present was not seen by what comes."""
    if coming.xmin < present.xmin or coming.xmax < present.xmax:
        return True
    # between equal bounds transactions only end
    alike = (coming.xmin, coming.xmax) == (present.xmin, present.xmax)
    return alike and not set(coming.in_progress) <= set(present.in_progress)


def _edited(now: Snapshot, upserts: FeedVectors, deleted: Ids) -> Snapshot:
    same = now.find(upserts.ids) == upserts.versions
    if same.any():
        # deleted and back in the version that is here: nothing happened
        deleted = deleted[~np.isin(deleted, upserts.ids[same])]
        upserts = upserts.take(~same)
    return now.without(deleted).plus(upserts)
