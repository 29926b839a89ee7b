"""Where a mirror differs from the database at one snapshot of it: digests first, then versions, then every number."""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from uuid import UUID

import numpy as np

from evervec.domain.feed import Changes, Difference, FeedVectors, Ids, compare
from evervec.mirror.index import DatasetIndex
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors.executors import Executors
from evervec.store import changes
from evervec.store.changes import FeedState
from evervec.store.session import ReadTx

EXAMPLES = 20
"""So many vector ids of each sort of difference are named; all are counted."""
COMPARED_AT_ONCE = 20_000
"""Vectors that a deep check holds at a time."""
TOLERANCE = 2e-3
"""How far a number of a unit vector may be off: half precision rounds to a fraction of it."""


@dataclass(frozen=True)
class MirrorDifference:
    """What a sync check found, before it repaired anything. `examples` names vector ids of each sort of difference."""

    vectors: int
    missing: int
    extra: int
    stale: int
    milliseconds: float
    repaired: str = ""
    examples: dict[str, list[int]] = field(default_factory=dict)

    @property
    def in_sync(self) -> bool:
        """Whether the mirror was what the database said."""
        return self.missing + self.extra + self.stale == 0


async def difference(
    tx: ReadTx, dataset_id: UUID, index: DatasetIndex, workshop: Executors, *, deep: bool
) -> tuple[int, Difference, bool]:
    """How many vectors the database has, where the mirror differs from it, and whether the feed knows nothing of that.

    What went round the feed is wrong in the file, too, and nobody who opens it would ever hear of it.
    """
    held = asyncio.ensure_future(workshop.quick(index.digest))
    wanted = await changes.digest(tx, dataset_id)
    none = other = np.empty(0, np.int64)
    found = Difference(none, none, none)
    if await held != wanted:
        found = compare(await changes.versions(tx, dataset_id), await workshop.quick(index.versions))
    if deep:
        other = await _other_numbers(tx, dataset_id, index.snapshot, workshop)
        other = np.setdiff1d(other, np.concatenate([found.extra, found.stale]))
        found = Difference(found.missing, found.extra, np.union1d(found.stale, other))
    return wanted.count, found, bool(len(other))


async def changes_to_apply(tx: ReadTx, dataset_id: UUID, heading: FeedState, found: Difference) -> Changes:
    """What makes a difference go away, true at the heading's watermark."""
    wanted = np.concatenate([found.missing, found.stale])
    upserts = await changes.by_ids(tx, dataset_id, wanted, heading.identity.dimensions)
    return Changes(heading.watermark, upserts, np.concatenate([found.extra, found.stale]))


async def _other_numbers(tx: ReadTx, dataset_id: UUID, snapshot: Snapshot, workshop: Executors) -> Ids:
    """Ids whose vector in the mirror is not the one in the database, whatever their versions say."""
    ids = np.sort(snapshot.versions()[0])
    other: list[Ids] = [np.empty(0, np.int64)]
    for start in range(0, len(ids), COMPARED_AT_ONCE):
        wanted = await changes.by_ids(tx, dataset_id, ids[start : start + COMPARED_AT_ONCE], snapshot.dimensions)
        other.append(await workshop.quick(_unlike, wanted, snapshot))
    return np.concatenate(other)


def _unlike(wanted: FeedVectors, snapshot: Snapshot) -> Ids:
    if not len(wanted):
        return wanted.ids
    unlike: Ids = wanted.ids[np.abs(wanted.rows - snapshot.vectors(wanted.ids)).max(axis=1) > TOLERANCE]
    return unlike


def described(started: float, vectors: int, found: Difference, repaired: str) -> MirrorDifference:
    """What a check that started then (`perf_counter`) has to say."""
    named = {"missing": found.missing, "extra": found.extra, "stale": found.stale}
    return MirrorDifference(
        vectors,
        **{sort: len(ids) for sort, ids in named.items()},
        milliseconds=round((perf_counter() - started) * 1000, 3),
        repaired=repaired,
        examples={sort: ids[:EXAMPLES].tolist() for sort, ids in named.items() if len(ids)},
    )
