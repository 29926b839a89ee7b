"""What one search sees: the main segment, what is dead in it, and the delta, as they were at one watermark."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from evervec.domain.feed import DatabaseIdentity, Digest, FeedVectors, Ids, Watermark
from evervec.mirror import threads as openmp
from evervec.mirror.allowed import Allowed
from evervec.mirror.delta import Delta, Hits, Tier
from evervec.mirror.places import NOWHERE, Filter, Places, Recent
from evervec.mirror.scan import Rows
from evervec.mirror.segment import Found, Segment

__all__ = ["Answer", "Base", "Filter", "Snapshot"]

SPARE = 4
OFTEN_DEAD = 0.2
"""From that share of tombstones on the dead are left out while FAISS searches, not afterwards."""


@dataclass(frozen=True)
class Answer:
    """The best k of each of nq queries: ids int64 and scores float32 (cosine), `(nq, k)`, best first; -1 and -inf behind.

    `exact`: no approximate index took part. `widened`: the index had to look further than it was tuned for.
    """

    ids: Ids
    scores: Rows
    exact: bool
    widened: bool


@dataclass(frozen=True, eq=False)
class Base:
    """A main segment, what stands in it, and which positions are alive (None: all). A change answers the next base."""

    segment: Segment
    places: Places
    alive: Allowed | None = None
    _allowed: Recent[Filter, Allowed | None] = field(default_factory=lambda: Recent(8), repr=False)

    @classmethod
    def of(cls, segment: Segment) -> "Base":
        """All of a segment."""
        return cls(segment, Places(segment.ids, segment.versions, segment.kinds))

    def __len__(self) -> int:
        return len(self.places) if self.alive is None else self.alive.count

    def allowed(self, only: Filter | None) -> Allowed | None:
        """The positions a search may answer; None: all. Kept, so that what it has counted serves the next search too."""
        if only is None:
            return self.alive
        return self._allowed.get(only, lambda: self.places.allowed(self.alive, only))

    def search(self, queries: Rows, k: int, only: Filter | None, *, exact: bool, threads: int) -> Found:
        """The best k of each query `(nq, dim)` of length 1, among what is alive and passes; see `Segment.search`."""
        if only is not None or self.alive is None or exact:
            return self.segment.search(queries, k, self.allowed(only), exact=exact, threads=threads)
        # a set that changes with every edit has to be counted and packed anew before FAISS can ask it: as long as
        # little is dead, a few hits more than wanted are had sooner
        dead = 1 - self.alive.count / len(self.places)
        spare = SPARE + math.ceil(2 * dead * k)
        if dead > OFTEN_DEAD or k + spare > len(self.places):
            return self.segment.search(queries, k, self.alive, threads=threads)
        return self._sifted(self.segment.search(queries, k + spare, threads=threads), queries, k, threads)

    def without(self, ids: Ids) -> "Base":
        """With those ids dead, `(m,)` in any order. Ids that are not here do no harm."""
        positions = self.places.find(ids, self.alive)
        positions = positions[positions != NOWHERE]
        if not len(positions):
            return self
        return Base(self.segment, self.places, (self.alive or Allowed.all(len(self.places))).without(positions))

    def find(self, ids: Ids) -> Ids:
        """The versions `(m,)` in which ids are alive here; -1 where they are not."""
        if not len(self.places):
            return np.full(len(ids), NOWHERE, np.int64)
        positions = self.places.find(ids, self.alive)
        return np.where(positions != NOWHERE, self.places.versions[positions], NOWHERE)

    def vectors(self, positions: Ids) -> Rows:
        """The vectors at some positions, `(m, dim)` float32."""
        return self.segment.vectors(positions)

    def living(self) -> Places:
        """What is alive."""
        return self.places if self.alive is None else self.places.take(self.alive.mask)

    @cached_property
    def digest(self) -> Digest:
        """Of what is alive: the digest of the segment, found once, without that of the dead."""
        if self.alive is None:
            return self.places.digest
        dead = ~self.alive.mask
        return self.places.digest - Digest.of(self.places.ids[dead], self.places.versions[dead])

    def _sifted(self, found: Found, queries: Rows, k: int, threads: int) -> Found:
        """The first k that are alive of more; where the dead left fewer, the query is searched among the living."""
        alive = (self.alive or Allowed.all(len(self.places))).mask[found.positions] & (found.positions >= 0)
        short = np.flatnonzero(np.count_nonzero(alive, axis=1) < k)
        first = np.argsort(~alive, axis=1, kind="stable")[:, :k]  # stable: the living stay in the order of their scores
        rows = np.arange(len(first))[:, None]
        scores, positions = found.scores[rows, first], found.positions[rows, first]
        if not len(short):
            return Found(scores, positions, found.exact, found.widened)
        again = self.segment.search(queries[short], k, self.alive, threads=threads)
        scores[short], positions[short] = again.scores, again.positions
        return Found(scores, positions, found.exact and again.exact, found.widened or again.widened)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A dataset at one watermark. Never changed, so any number of threads may search it; an id is alive in one place."""

    base: Base
    delta: Delta
    watermark: Watermark

    @classmethod
    def of(cls, segment: Segment) -> "Snapshot":
        """A segment and nothing after it."""
        return cls(Base.of(segment), Delta(segment.identity.dimensions), segment.watermark)

    @property
    def main(self) -> Segment:
        """The main segment."""
        return self.base.segment

    @property
    def identity(self) -> DatabaseIdentity:
        """Return the identity of the database that the watermark belongs to."""
        return self.main.identity

    @property
    def dimensions(self) -> int:
        """The width of the vectors."""
        return self.identity.dimensions

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    def search(
        self,
        queries: Rows,
        k: int,
        only: Filter | None = None,
        *,
        exact: bool = False,
        threads: int = 1,
    ) -> Answer:
        """The k nearest to each query `(nq, dim)`, of any length; of `only` what a filter lets through.

        Never fewer than k while there are more. Raises `ValueError` for a wrong width, a number that is not finite, and
        k below 1.
        """
        directions = self._directions(queries, k)
        openmp.use(threads)
        wanted = min(k, len(self))
        hits, was_exact, widened = self._search_base(directions, wanted, only, exact, threads)
        hits += self.delta.search(directions, wanted, only) if wanted else []
        scores, ids = _merged(hits, len(directions), k)
        return Answer(ids, scores, was_exact, widened)

    def find(self, ids: Ids) -> Ids:
        """The versions `(m,)` in which ids are alive; -1 where they are not."""
        return np.maximum(self.base.find(ids), self.delta.find(ids))

    def vectors(self, ids: Ids) -> Rows:
        """The vectors `(m, dim)` float32 of ids `(m,)`, as half precision keeps them. Raises `KeyError` for one not alive."""
        rows, missing = np.empty((len(ids), self.dimensions), np.float32), np.ones(len(ids), bool)
        parts: tuple[Base | Tier, ...] = (self.base, *self.delta.tiers)
        for held in parts:
            positions = held.places.find(ids, held.alive)
            there = positions != NOWHERE
            if there.any():
                rows[there] = held.vectors(positions[there])
                missing &= ~there
        if missing.any():
            raise KeyError(f"Vector {ids[missing][0]} is not alive in this snapshot.")
        return rows

    def versions(self) -> tuple[Ids, Ids]:
        """Ids and versions of all that is alive, `(n,)` each, in no order."""
        held = Places.joined([self.base.living(), *self.delta.living()])
        return held.ids, held.versions

    @cached_property
    def digest(self) -> Digest:
        """Of all that is alive, from the arrays that searches are answered from."""
        return self.base.digest + self.delta.digest

    @property
    def memory(self) -> int:
        """Bytes held: the segment and the delta."""
        return self.main.memory + self.delta.memory

    def without(self, ids: Ids) -> "Snapshot":
        """With those ids dead. Ids that are not here do no harm."""
        if not len(ids):
            return self
        ids = np.sort(ids)  # a sorted list is looked up several times faster, and the order says nothing here
        return replace(self, base=self.base.without(ids), delta=self.delta.without(ids))

    def plus(self, vectors: FeedVectors) -> "Snapshot":
        """With vectors that replace those of the same id."""
        if not len(vectors):
            return self
        buried = self.without(vectors.ids)
        return replace(buried, delta=buried.delta.plus(vectors))

    def _directions(self, queries: Rows, k: int) -> Rows:
        """The queries brought to length 1: a score is a cosine then."""
        if k < 1:
            raise ValueError(f"A search wants at least 1 neighbour, not {k}.")
        rows = np.ascontiguousarray(queries, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimensions:
            raise ValueError(f"The queries are {rows.shape}, the vectors of this dataset {self.dimensions} wide.")
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
        if not np.isfinite(lengths).all():
            raise ValueError("A query holds a number that is not finite.")
        lengths[lengths == 0] = 1
        directions: Rows = (rows / lengths).astype(np.float32)
        return directions

    def _search_base(
        self, directions: Rows, k: int, only: Filter | None, exact: bool, threads: int
    ) -> tuple[list[Hits], bool, bool]:
        allowed = self.base.allowed(only)
        count = len(self.main) if allowed is None else allowed.count
        if not count or not k:
            return [], True, False
        found = self.base.search(directions, min(k, count), only, exact=exact, threads=threads)
        return [(found.scores, self.base.places.ids_at(found.positions))], found.exact, found.widened


def _merged(hits: list[Hits], nq: int, k: int) -> Hits:
    """The best k of several lists for each query, padded to k columns."""
    scores, ids = np.full((nq, k), -np.inf, np.float32), np.full((nq, k), NOWHERE, np.int64)
    if len(hits) > 1:
        every_score, every_id = zip(*hits, strict=True)
        hits = [_best(np.concatenate(every_score, axis=1), np.concatenate(every_id, axis=1), k)]
    for found_scores, found_ids in hits:
        count = found_ids.shape[1]
        scores[:, :count], ids[:, :count] = found_scores, found_ids
    return scores, ids


def _best(scores: Rows, ids: Ids, k: int) -> Hits:
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    rows = np.arange(len(first))[:, None]
    return scores[rows, first], ids[rows, first]
