"""Compare a mirror with one snapshot of the database: digests first, then versions, then every number."""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from uuid import UUID

import numpy as np

from evervec.domain.feed import Changes, Difference, FeedVectors, Ids, compare
from evervec.mirror.index import DatasetIndex
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors.executors import Executors
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState

REBUILD_ABOVE = 0.2
"""A mirror that differs in more than this share of its vectors is rebuilt instead of repaired."""
EXAMPLE_IDS = 20
"""At most so many vector ids of each sort of difference are named; all are counted."""
COMPARED_AT_ONCE = 20_000
"""Vectors that a deep check compares at a time."""
TOLERANCE = 2e-3
"""The largest error allowed in one number of a unit vector; half precision rounds by a fraction of it."""


@dataclass(frozen=True)
class MirrorDifference:
    """The result of a mirror check, before any repair. `examples` names vector ids of each sort of difference."""

    vectors: int
    missing: int
    extra: int
    stale: int
    milliseconds: float
    repaired: str = ""
    examples: dict[str, list[int]] = field(default_factory=dict)

    @property
    def in_sync(self) -> bool:
        """Return whether the mirror was equal to the database."""
        return self.missing + self.extra + self.stale == 0


async def difference(
    tx: ReadTx, dataset_id: UUID, index: DatasetIndex, executors: Executors, *, deep: bool
) -> tuple[int, Difference, bool]:
    """Return the number of vectors in the database, the difference, and whether a part of it is not in the change feed.

    A change that bypassed the feed is missing from the mirror's file too, and whoever opens the file would not notice.
    """
    mirrored = asyncio.ensure_future(executors.quick(index.digest))
    of = dataset_id, index.snapshot.identity.space_id
    wanted = await changes.digest(tx, *of)
    none = other = np.empty(0, np.int64)
    found = Difference(none, none, none)
    if await mirrored != wanted:
        found = compare(await changes.versions(tx, *of), await executors.quick(index.versions))
    if deep:
        other = await _other_vectors(tx, dataset_id, index.snapshot, executors)
        other = np.setdiff1d(other, np.concatenate([found.extra, found.stale]))
        found = Difference(found.missing, found.extra, np.union1d(found.stale, other))
    return wanted.count, found, bool(len(other))


async def changes_to_apply(tx: ReadTx, dataset_id: UUID, state: FeedState, found: Difference) -> Changes:
    """Return the changes that remove a difference, as of the watermark of `state`."""
    wanted = np.concatenate([found.missing, found.stale])
    upserts = await changes.by_ids(tx, dataset_id, state.identity.space_id, wanted, state.identity.dimensions)
    return Changes(state.watermark, upserts, np.concatenate([found.extra, found.stale]))


async def _other_vectors(tx: ReadTx, dataset_id: UUID, snapshot: Snapshot, executors: Executors) -> Ids:
    """Return the ids whose vector or kind in the mirror is not the one in the database, whatever their versions are."""
    ids, space_id = np.sort(snapshot.versions()[0]), snapshot.identity.space_id
    other: list[Ids] = [np.empty(0, np.int64)]
    for start in range(0, len(ids), COMPARED_AT_ONCE):
        part = ids[start : start + COMPARED_AT_ONCE]
        wanted = await changes.by_ids(tx, dataset_id, space_id, part, snapshot.dimensions)
        other.append(await executors.quick(_unlike, wanted, snapshot))
    return np.concatenate(other)


def _unlike(wanted: FeedVectors, snapshot: Snapshot) -> Ids:
    if not len(wanted):
        return wanted.ids
    far = np.abs(wanted.rows - snapshot.vectors(wanted.ids)).max(axis=1) > TOLERANCE
    unlike: Ids = wanted.ids[far | (wanted.kinds != snapshot.kinds_of(wanted.ids))]
    return unlike


def too_large(found: Difference, count: int) -> bool:
    """Return whether a mirror of `count` vectors differs in so much that it is rebuilt."""
    return len(found) > REBUILD_ABOVE * max(count, 1)


def summarize(started: float, vectors: int, found: Difference, repaired: str) -> MirrorDifference:
    """Return the counts and examples of a difference, for a check that began at `started` (`perf_counter`)."""
    named = {"missing": found.missing, "extra": found.extra, "stale": found.stale}
    return MirrorDifference(
        vectors,
        **{sort: len(ids) for sort, ids in named.items()},
        milliseconds=round((perf_counter() - started) * 1000, 3),
        repaired=repaired,
        examples={sort: ids[:EXAMPLE_IDS].tolist() for sort, ids in named.items() if len(ids)},
    )
