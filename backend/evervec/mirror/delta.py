"""The delta: vectors that came after the main segment was built, in small flat fp16 indexes.

The indexes are scanned completely. FAISS crashes when one thread adds to an index while another searches it. So nothing
is added to an index once it can be searched: the smallest tier is copied on every change, and merged into the next one
as it fills.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest, FeedVectors, Ids
from evervec.mirror import scan
from evervec.mirror.entries import MISSING_ID, Entries
from evervec.mirror.faiss_library import faiss
from evervec.mirror.filter import Filter
from evervec.mirror.position_set import PositionSet

SMALLEST_TIER = 1_000
"""The most vectors in the smallest tier, which is copied on every change."""
TIER_RATIO = 8
"""The next tier holds this many times more. A vector is copied a few times in all; 10,000 vectors are in three tiers."""

Scores = NDArray[np.float32]
ScoredIds = tuple[Scores, Ids]


@dataclass(frozen=True, eq=False)
class Tier:
    """A flat fp16 index, its entries, and which positions are alive (None: all)."""

    index: Any
    entries: Entries
    alive: PositionSet | None = None

    @property
    def count(self) -> int:
        """Return how many vectors are alive."""
        return len(self.entries) if self.alive is None else self.alive.count

    def search(self, queries: NDArray[np.float32], k: int, only: Filter | None) -> ScoredIds | None:
        """Return scores float32 and ids int64 of the best k, `(nq, min(k, allowed))`; None if none is allowed."""
        allowed = self.entries.allowed(self.alive, only)
        count = len(self.entries) if allowed is None else allowed.count
        if not count:
            return None
        chosen = None if allowed is None else faiss.SearchParameters(sel=allowed.selector)
        scores, positions = self.index.search(queries, min(k, count), params=chosen)
        return scores, self.entries.ids_at(positions)

    def without(self, positions: Ids) -> "Tier":
        """Return this tier with some positions marked as deleted."""
        return replace(self, alive=(self.alive or PositionSet.all(len(self.entries))).without(positions))

    def vectors(self, positions: Ids) -> NDArray[np.float32]:
        """Return the vectors at some positions, `(m, dim)` float32."""
        return scan.fp16_view(self.index)[positions].astype(np.float32)

    def live_entries(self) -> Entries:
        """Return the entries that are alive."""
        return self.entries if self.alive is None else self.entries.take(self.alive.mask)

    def codes(self) -> NDArray[np.uint8]:
        """Return the fp16 codes of the vectors that are alive, `(count, 2 * dim)`."""
        rows = scan.fp16_view(self.index).view(np.uint8)
        return rows if self.alive is None else rows[self.alive.mask]


@dataclass(frozen=True, eq=False)
class Delta:
    """Tiers from the biggest to the smallest.

    Immutable: an edit returns the next delta. An id is alive once at most.
    """

    dimensions: int
    tiers: tuple[Tier, ...] = ()

    def __len__(self) -> int:
        return sum(tier.count for tier in self.tiers)

    @property
    def stored(self) -> int:
        """Return how many vectors a search scans: those alive, and deleted ones that are not dropped yet."""
        return sum(len(tier.entries) for tier in self.tiers)

    def plus(self, vectors: FeedVectors) -> "Delta":
        """Return the delta with more vectors; their ids are unique and not alive here yet (see `without`)."""
        if not len(vectors):
            return self
        tiers = list(self.tiers)
        joined, coming = [], len(vectors)
        while tiers and _level(len(tiers[-1].entries)) <= _level(coming):
            coming += tiers[-1].count
            joined.append(tiers.pop())
        return replace(self, tiers=(*tiers, _tier(self.dimensions, joined[::-1], vectors)))

    def without(self, ids: Ids) -> "Delta":
        """Return the delta with those ids deleted, `(m,)` in any order. Ids that are not here are ignored."""
        tiers = [self._without_ids(tier, ids) for tier in self.tiers]
        if all(left is tier for left, tier in zip(tiers, self.tiers, strict=True)):
            return self
        return replace(self, tiers=tuple(tier for tier in tiers if tier.count))

    def versions_of(self, ids: Ids) -> Ids:
        """Return the versions `(m,)` in which ids are alive here; -1 where they are not."""
        found = np.full(len(ids), MISSING_ID, np.int64)
        for tier in self.tiers:
            positions = tier.entries.positions_of(ids, tier.alive)
            there = positions != MISSING_ID
            found[there] = tier.entries.versions[positions[there]]
        return found

    def search(self, queries: NDArray[np.float32], k: int, only: Filter | None) -> list[ScoredIds]:
        """Return the best k of every tier; see `Tier.search`. Queries are float32 `(nq, dim)` of length 1."""
        return [hits for tier in self.tiers if (hits := tier.search(queries, k, only)) is not None]

    def live_entries(self) -> list[Entries]:
        """Return the entries that are alive, tier by tier."""
        return [tier.live_entries() for tier in self.tiers]

    @property
    def digest(self) -> Digest:
        """Return the digest of the entries that are alive."""
        return sum((Digest.of(part.ids, part.versions) for part in self.live_entries()), Digest(0, 0, 0))

    @property
    def memory(self) -> int:
        """Return the bytes of the codes and the arrays."""
        return sum(int(tier.index.codes.size()) + tier.entries.memory for tier in self.tiers)

    def _without_ids(self, tier: Tier, ids: Ids) -> Tier:
        positions = tier.entries.positions_of(ids, tier.alive)
        positions = positions[positions != MISSING_ID]
        if not len(positions):
            return tier
        left = tier.without(positions)
        # a tier with mostly deleted vectors would be scanned for nothing until it is merged
        return _tier(self.dimensions, [left]) if 0 < 2 * left.count < len(left.entries) else left


def _level(size: int) -> int:
    level, holds = 0, SMALLEST_TIER
    while size >= holds:
        level, holds = level + 1, holds * TIER_RATIO
    return level


def _tier(dimensions: int, parts: Sequence[Tier], vectors: FeedVectors | None = None) -> Tier:
    """Build a new tier from the live vectors of other tiers and from more vectors after them."""
    index = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    entries = [part.live_entries() for part in parts]
    _add_codes(index, (part.codes() for part in parts))
    if vectors is not None:
        index.add(np.ascontiguousarray(vectors.rows, np.float32))
        entries.append(Entries.of(vectors))
    return Tier(index, Entries.concatenate(entries))


def _add_codes(index: Any, parts: Iterable[NDArray[np.uint8]]) -> None:
    """Copy the codes as they are: to decode and encode them again would cost more and round once more."""
    parts_with_rows = [part for part in parts if len(part)]
    if parts_with_rows:
        index.add_sa_codes(parts_with_rows[0] if len(parts_with_rows) == 1 else np.concatenate(parts_with_rows))
