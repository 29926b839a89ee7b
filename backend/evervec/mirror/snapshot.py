"""What one search sees: the main segment, its deleted positions, and the delta, as they were at one watermark."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, Digest, FeedVectors, Ids, Watermark
from evervec.mirror.delta import Delta, ScoredIds, Tier
from evervec.mirror.entries import MISSING_ID, Entries
from evervec.mirror.faiss_library import use_threads
from evervec.mirror.filter import Filter, LruCache
from evervec.mirror.position_set import PositionSet
from evervec.mirror.scan import FloatArray
from evervec.mirror.segment import Segment, SegmentHits

SPARE_FOR_DELETED = 4
OFTEN_DEAD = 0.2
"""From this share of tombstones on, FAISS itself skips the deleted vectors; below, they are removed from its result."""


@dataclass(frozen=True)
class SnapshotHits:
    """The best k of nq queries: ids int64 and scores float32 (cosine), `(nq, k)`, best first, then -1 and -inf.

    `exact`: no approximate index took part. `widened`: the index searched more than it was tuned for.
    """

    ids: Ids
    scores: FloatArray
    exact: bool
    widened: bool


@dataclass(frozen=True, eq=False)
class LiveSegment:
    """A main segment, its entries, and which positions are alive (None: all). A change returns the next one."""

    segment: Segment
    entries: Entries
    alive: PositionSet | None = None
    _allowed: LruCache[Filter, PositionSet | None] = field(default_factory=lambda: LruCache(8), repr=False)

    @classmethod
    def of(cls, segment: Segment) -> "LiveSegment":
        """Return a segment with all its positions alive."""
        return cls(segment, Entries(segment.ids, segment.versions, segment.kinds))

    def __len__(self) -> int:
        return len(self.entries) if self.alive is None else self.alive.count

    def allowed(self, only: Filter | None) -> PositionSet | None:
        """Return the positions a search may return; None: all.

        Cached, so that its list counts serve the next search.
        """
        if only is None:
            return self.alive
        return self._allowed.get(only, lambda: self.entries.allowed(self.alive, only))

    def search(self, queries: FloatArray, k: int, only: Filter | None, *, exact: bool, threads: int) -> SegmentHits:
        """Return the best k of each query `(nq, dim)` of length 1 that are alive and pass; see `Segment.search`."""
        if only is not None or self.alive is None or exact:
            return self.segment.search(queries, k, self.allowed(only), exact=exact, threads=threads)
        # a set that changes with every edit has to be counted and packed again before FAISS can use it: as long as
        # few vectors are deleted, it is faster to ask for a few hits more than wanted
        dead = 1 - self.alive.count / len(self.entries)
        spare = SPARE_FOR_DELETED + math.ceil(2 * dead * k)
        if dead > OFTEN_DEAD or k + spare > len(self.entries):
            return self.segment.search(queries, k, self.alive, threads=threads)
        return self._drop_deleted(self.segment.search(queries, k + spare, threads=threads), queries, k, threads)

    def without(self, ids: Ids) -> "LiveSegment":
        """Return the segment with those ids deleted, `(m,)` in any order. Ids that are not here are ignored."""
        positions = self.entries.positions_of(ids, self.alive)
        positions = positions[positions != MISSING_ID]
        if not len(positions):
            return self
        return LiveSegment(
            self.segment, self.entries, (self.alive or PositionSet.all(len(self.entries))).without(positions)
        )

    def versions_of(self, ids: Ids) -> Ids:
        """Return the versions `(m,)` in which ids are alive here; -1 where they are not."""
        return self.entries.versions_of(ids, self.alive)

    def vectors(self, positions: Ids) -> FloatArray:
        """Return the vectors at some positions, `(m, dim)` float32."""
        return self.segment.vectors(positions)

    def live_entries(self) -> Entries:
        """Return the entries that are alive."""
        return self.entries if self.alive is None else self.entries.take(self.alive.mask)

    @cached_property
    def digest(self) -> Digest:
        """Return the digest of what is alive: the segment's, computed once, minus that of the deleted entries."""
        if self.alive is None:
            return self.entries.digest
        dead = ~self.alive.mask
        return self.entries.digest - Digest.of(self.entries.ids[dead], self.entries.versions[dead])

    def _drop_deleted(self, found: SegmentHits, queries: FloatArray, k: int, threads: int) -> SegmentHits:
        """Keep the first k hits that are alive; a query with too few is searched again among live vectors only."""
        alive = (self.alive or PositionSet.all(len(self.entries))).mask[found.positions] & (found.positions >= 0)
        short = np.flatnonzero(np.count_nonzero(alive, axis=1) < k)
        first = np.argsort(~alive, axis=1, kind="stable")[
            :, :k
        ]  # stable: the live hits stay in the order of their scores
        rows = np.arange(len(first))[:, None]
        scores, positions = found.scores[rows, first], found.positions[rows, first]
        if not len(short):
            return SegmentHits(scores, positions, found.exact, found.widened)
        again = self.segment.search(queries[short], k, self.alive, threads=threads)
        scores[short], positions[short] = again.scores, again.positions
        return SegmentHits(scores, positions, found.exact and again.exact, found.widened or again.widened)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A dataset at one watermark. Immutable, so any number of threads may search it; an id is alive in one place."""

    base: LiveSegment
    delta: Delta
    watermark: Watermark

    @classmethod
    def of(cls, segment: Segment) -> "Snapshot":
        """Return a segment with an empty delta."""
        return cls(LiveSegment.of(segment), Delta(segment.identity.dimensions), segment.watermark)

    @property
    def main(self) -> Segment:
        """Return the main segment."""
        return self.base.segment

    @property
    def identity(self) -> DatabaseIdentity:
        """Return the identity of the database that the watermark belongs to."""
        return self.main.identity

    @property
    def dimensions(self) -> int:
        """Return the width of the vectors."""
        return self.identity.dimensions

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    def search(
        self,
        queries: FloatArray,
        k: int,
        only: Filter | None = None,
        *,
        exact: bool = False,
        threads: int = 1,
    ) -> SnapshotHits:
        """Return the k nearest to each query `(nq, dim)`, of any length, among what the filter `only` lets through.

        Never fewer than k while there are more. Raises `ValueError` for a wrong width, a number that is not finite, and
        k below 1.
        """
        directions = self._directions(queries, k)
        use_threads(threads)
        wanted = min(k, len(self))
        hits, was_exact, widened = self._search_base(directions, wanted, only, exact, threads)
        hits += self.delta.search(directions, wanted, only) if wanted else []
        scores, ids = _merged(hits, len(directions), k)
        return SnapshotHits(ids, scores, was_exact, widened)

    def versions_of(self, ids: Ids) -> Ids:
        """Return the versions `(m,)` in which ids are alive; -1 where they are not."""
        return np.maximum(self.base.versions_of(ids), self.delta.versions_of(ids))

    def vectors(self, ids: Ids) -> FloatArray:
        """Return the vectors `(m, dim)` float32 of ids `(m,)`, in fp16 precision.

        Raises `KeyError` for an id not alive.
        """
        rows, missing = np.empty((len(ids), self.dimensions), np.float32), np.ones(len(ids), bool)
        for part, there, positions in self._places_of(ids):
            rows[there] = part.vectors(positions)
            missing &= ~there
        if missing.any():
            raise KeyError(f"Vector {ids[missing][0]} is not alive in this snapshot.")
        return rows

    def kinds_of(self, ids: Ids) -> NDArray[np.int16]:
        """Return the kinds int16 `(m,)` of ids `(m,)`; -1 where they are not alive."""
        kinds = np.full(len(ids), MISSING_ID, np.int16)
        for part, there, positions in self._places_of(ids):
            kinds[there] = part.entries.kinds[positions]
        return kinds

    def _places_of(self, ids: Ids) -> Iterator[tuple[LiveSegment | Tier, NDArray[np.bool_], Ids]]:
        """Yield each part that has some of these ids alive, a mask of which, and their positions there."""
        parts: tuple[LiveSegment | Tier, ...] = (self.base, *self.delta.tiers)
        for part in parts:
            positions = part.entries.positions_of(ids, part.alive)
            there = positions != MISSING_ID
            if there.any():
                yield part, there, positions[there]

    def edited(self) -> Ids:
        """Return the ids whose vector is not the one in the main segment: added, replaced or deleted since it was built."""
        gone = [] if self.base.alive is None else [self.base.entries.ids[~self.base.alive.mask]]
        return np.unique(
            np.concatenate([np.empty(0, np.int64), *gone, *(part.ids for part in self.delta.live_entries())])
        )

    def versions(self) -> tuple[Ids, Ids]:
        """Return ids and versions of all that is alive, `(n,)` each, in no order."""
        live = Entries.concatenate([self.base.live_entries(), *self.delta.live_entries()])
        return live.ids, live.versions

    @cached_property
    def digest(self) -> Digest:
        """Return the digest of all that is alive, from the arrays that searches are answered from."""
        return self.base.digest + self.delta.digest

    @property
    def memory(self) -> int:
        """Return the bytes of the segment and the delta."""
        return self.main.memory + self.delta.memory

    def without(self, ids: Ids) -> "Snapshot":
        """Return the snapshot with those ids deleted. Ids that are not here are ignored."""
        if not len(ids):
            return self
        ids = np.sort(ids)  # a sorted list is looked up several times faster, and the order has no meaning here
        return replace(self, base=self.base.without(ids), delta=self.delta.without(ids))

    def plus(self, vectors: FeedVectors) -> "Snapshot":
        """Return the snapshot with vectors that replace those of the same id."""
        if not len(vectors):
            return self
        rest = self.without(vectors.ids)
        return replace(rest, delta=rest.delta.plus(vectors))

    def relabelled(self, identity: DatabaseIdentity, watermark: Watermark) -> "Snapshot":
        """Return the snapshot as one of another identity and watermark: the caller has compared it with that database."""
        segment = replace(self.main, identity=identity)
        return replace(self, base=replace(self.base, segment=segment), watermark=watermark)

    def _directions(self, queries: FloatArray, k: int) -> FloatArray:
        """Return the queries scaled to length 1, so that a score is a cosine."""
        if k < 1:
            raise ValueError(f"A search needs at least 1 neighbour, not {k}.")
        rows = np.ascontiguousarray(queries, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimensions:
            raise ValueError(f"The queries are {rows.shape}, the vectors of this dataset {self.dimensions} wide.")
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
        if not np.isfinite(lengths).all():
            raise ValueError("A query holds a number that is not finite.")
        lengths[lengths == 0] = 1
        directions: FloatArray = (rows / lengths).astype(np.float32)
        return directions

    def _search_base(
        self, directions: FloatArray, k: int, only: Filter | None, exact: bool, threads: int
    ) -> tuple[list[ScoredIds], bool, bool]:
        allowed = self.base.allowed(only)
        count = len(self.main) if allowed is None else allowed.count
        if not count or not k:
            return [], True, False
        found = self.base.search(directions, min(k, count), only, exact=exact, threads=threads)
        return [(found.scores, self.base.entries.ids_at(found.positions))], found.exact, found.widened


def _merged(hits: list[ScoredIds], nq: int, k: int) -> ScoredIds:
    """Merge several lists of hits into the best k for each query, padded to k columns."""
    scores, ids = np.full((nq, k), -np.inf, np.float32), np.full((nq, k), MISSING_ID, np.int64)
    if len(hits) > 1:
        every_score, every_id = zip(*hits, strict=True)
        hits = [_best(np.concatenate(every_score, axis=1), np.concatenate(every_id, axis=1), k)]
    for found_scores, found_ids in hits:
        count = found_ids.shape[1]
        scores[:, :count], ids[:, :count] = found_scores, found_ids
    return scores, ids


def _best(scores: FloatArray, ids: Ids, k: int) -> ScoredIds:
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    rows = np.arange(len(first))[:, None]
    return scores[rows, first], ids[rows, first]
