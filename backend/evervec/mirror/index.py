"""The index of one dataset: readers take a snapshot and never wait, one writer at a time publishes the next."""

from dataclasses import replace
from threading import Lock

import numpy as np

from evervec.domain.feed import Changes, DatabaseIdentity, Digest, FeedVectors, Ids, Watermark
from evervec.mirror.build import FLAT_BELOW
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot

DELTA_LEAST = 10_000
"""Up to this many vectors, a delta is scanned in a fraction of the main segment's search time."""
DELTA_SHARE = 0.10
TOMBSTONE_SHARE = 0.20


class DatasetIndex:
    """The mirror of one dataset in memory: a main segment and the changes that the change feed reported after it."""

    def __init__(self, main: Segment) -> None:
        self._snapshot = Snapshot.of(main)
        self._writer = Lock()

    @property
    def snapshot(self) -> Snapshot:
        """Return the present snapshot.

        Take it once for a search: it does not change, whatever is published meanwhile.
        """
        return self._snapshot

    def __len__(self) -> int:
        return len(self._snapshot)

    def apply(self, changes: Changes) -> Snapshot:
        """Publish changes of the feed and return the new snapshot.

        Applying the same changes twice changes nothing more.

        First `deleted` is removed, then `upserts` are added, in whatever version: of two transactions that wrote one
        row, the one with the lower id may have come last, so that only the watermark tells what is newer. Raises
        `ValueError` for a watermark behind the present one, vectors of another width, and an id that comes twice.
        """
        _check(changes.upserts, self._snapshot.dimensions)
        with self._writer:
            now = self._snapshot
            if _behind(changes.watermark, now.watermark):
                raise ValueError(f"The changes are of {changes.watermark}, the mirror is at {now.watermark} already.")
            self._snapshot = replace(_edited(now, changes.upserts, changes.deleted), watermark=changes.watermark)
            return self._snapshot

    def repair(self, upserts: FeedVectors, deleted: Ids, *, compared: Snapshot | None = None) -> Snapshot:
        """Publish the differences that a check found: first remove `deleted`, then add `upserts`.

        The watermark stays. A vector is replaced in the same version too: its numbers may be what was wrong. `compared`
        is the snapshot that was checked, taken before the database was read: what changed here since then is newer than
        the check and stays as it is. Raises `ValueError` as `apply` does.
        """
        _check(upserts, self._snapshot.dimensions)
        with self._writer:
            now = self._snapshot
            if compared is not None and compared is not now:
                upserts = upserts.take(now.versions_of(upserts.ids) == compared.versions_of(upserts.ids))
                deleted = deleted[now.versions_of(deleted) == compared.versions_of(deleted)]
            self._snapshot = now.without(deleted).plus(upserts)
            return self._snapshot

    def relabelled(self, identity: DatabaseIdentity, changes: Changes) -> "DatasetIndex":
        """Return an index of another identity: this one with `changes`, at their watermark, be it behind the present one.

        A vector is replaced in the same version too: another history may have other numbers under it.
        """
        _check(changes.upserts, self._snapshot.dimensions)
        now = self._snapshot.without(changes.deleted).plus(changes.upserts)
        other = DatasetIndex(now.main)
        other._snapshot = now.relabelled(identity, changes.watermark)
        return other

    def digest(self) -> Digest:
        """Return the digest of all that is alive; see `Snapshot.digest`."""
        return self._snapshot.digest

    def versions(self) -> tuple[Ids, Ids]:
        """Return ids and versions of all that is alive; see `Snapshot.versions`."""
        return self._snapshot.versions()

    def compaction_due(self) -> str | None:
        """Return why the main segment should be rebuilt, as a sentence; None if it need not be."""
        now = self._snapshot
        main, scanned = len(now.main), now.delta.stored
        dead = main - len(now.base)
        if main < FLAT_BELOW <= len(now):
            return f"{len(now):,} vectors are too many for a flat scan (below {FLAT_BELOW:,})"
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
    """Return whether the present includes something that the coming watermark does not."""
    if coming.xmin < present.xmin or coming.xmax < present.xmax:
        return True
    # between equal bounds, transactions can only end
    alike = (coming.xmin, coming.xmax) == (present.xmin, present.xmax)
    return alike and not set(coming.in_progress) <= set(present.in_progress)


def _edited(now: Snapshot, upserts: FeedVectors, deleted: Ids) -> Snapshot:
    same = now.versions_of(upserts.ids) == upserts.versions
    if same.any():
        # deleted and added again in the version that is here: nothing changed
        deleted = deleted[~np.isin(deleted, upserts.ids[same])]
        upserts = upserts.take(~same)
    return now.without(deleted).plus(upserts)
