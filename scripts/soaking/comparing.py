"""Compares a mirror with the database by what the rows say: independent of the feed and of the product's own check."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest, FeedVectors, Ids, Watermark, compare
from evervec.mirror.snapshot import Snapshot
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes

GONE = "SELECT vector_id, deleted_xid FROM vector_tombstones WHERE dataset_id = $1"
TOLERANCE = 2e-3
"""How far a number of a unit vector may be off: half precision rounds to a fraction of it."""


@dataclass(frozen=True)
class Expected:
    """One snapshot of the database: its vectors, and which vector ids left the dataset in which transaction, `(m,)` each."""

    watermark: Watermark
    vectors: FeedVectors
    gone: Ids
    gone_in: Ids


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to. `in_flight` vectors were written after the mirror's watermark and prove nothing."""

    compared: int
    in_flight: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0
    other_numbers: int = 0
    digest_differs: bool = False

    @property
    def equal(self) -> bool:
        """Return whether the mirror is exactly what the database was at the mirror's watermark."""
        return not (self.missing or self.extra or self.stale or self.other_numbers or self.digest_differs)

    def answer(self) -> dict[str, Any]:
        """Return the verdict as a JSON document."""
        return asdict(self) | {"equal": self.equal}


async def expected(database: Database, dataset: DatasetRef, dimensions: int) -> Expected:
    """Read all of a dataset in one REPEATABLE READ transaction."""
    async with database.read() as tx:
        vectors = await changes.all_vectors(tx, dataset.id, dataset.space_id, dimensions)
        gone = await tx.fetch(GONE, dataset.id)
        watermark = await changes.watermark(tx)
    pairs = np.array([(row["vector_id"], row["deleted_xid"]) for row in gone], np.int64).reshape(-1, 2)
    return Expected(watermark, vectors, pairs[:, 0].copy(), pairs[:, 1].copy())


def compared(wanted: Expected, snapshot: Snapshot) -> Verdict:
    """Compare a mirror with the database, which was read after the mirror's snapshot was taken.

    Each vector that the watermark of the mirror has seen must be there, in that version and with those numbers; each
    one that is there must be one of these, or have been written or deleted after the watermark.
    """
    seen = covered(snapshot.watermark, wanted.vectors.versions)
    decided, in_flight = wanted.vectors.take(seen), wanted.vectors.ids[~seen]
    difference = compare((decided.ids, decided.versions), snapshot.versions())
    left_later = wanted.gone[~covered(snapshot.watermark, wanted.gone_in)]
    extra = np.setdiff1d(difference.extra, np.concatenate([in_flight, left_later]))
    there = decided.take(~np.isin(decided.ids, difference.missing))
    held = Digest.of(*snapshot.versions())
    return Verdict(
        compared=len(decided),
        in_flight=len(in_flight) + len(left_later),
        missing=len(difference.missing),
        extra=len(extra),
        stale=len(difference.stale),
        other_numbers=_other_numbers(there, snapshot),
        digest_differs=held != snapshot.digest,
    )


def covered(watermark: Watermark, xids: Ids) -> NDArray[np.bool_]:
    """Return which of many transactions a watermark has seen, `(n,)`."""
    begun = (xids < watermark.xmax) & ~np.isin(xids, np.array(watermark.in_progress, np.int64))
    return (xids < watermark.xmin) | begun


def _other_numbers(vectors: FeedVectors, snapshot: Snapshot) -> int:
    if not len(vectors):
        return 0
    off = np.abs(vectors.rows - snapshot.vectors(vectors.ids)).max(axis=1)
    return int((off > TOLERANCE).sum())
