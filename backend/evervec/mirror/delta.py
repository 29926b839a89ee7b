"""The delta: vectors that came after the main segment was built, in small flat fp16 indexes that are scanned whole.

FAISS crashes when one thread adds to an index while another searches it. So an index is never added to once it can be
searched: the smallest tier is copied on every change, and copied together with the next one as it fills.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest, FeedVectors, Ids
from evervec.mirror import scan
from evervec.mirror.allowed import Allowed
from evervec.mirror.places import NOWHERE, Filter, Places
from evervec.mirror.threads import faiss

OPEN = 1_000
"""What the smallest tier holds at most: all that one small change copies."""
RATIO = 8
"""How much more the next tier holds. A vector is copied a few times in all, and 10,000 vectors lie in three tiers."""

Scores = NDArray[np.float32]
Hits = tuple[Scores, Ids]


@dataclass(frozen=True, eq=False)
class Tier:
    """A flat fp16 index, what stands in it, and which positions are alive (None: all)."""

    index: Any
    places: Places
    alive: Allowed | None = None

    @property
    def count(self) -> int:
        """How many are alive."""
        return len(self.places) if self.alive is None else self.alive.count

    def search(self, queries: NDArray[np.float32], k: int, only: Filter | None) -> Hits | None:
        """Scores float32 and ids int64 of the best k, each `(nq, min(k, allowed))`; None when nothing is allowed."""
        allowed = self.places.allowed(self.alive, only)
        count = len(self.places) if allowed is None else allowed.count
        if not count:
            return None
        chosen = None if allowed is None else faiss.SearchParameters(sel=allowed.selector)
        scores, positions = self.index.search(queries, min(k, count), params=chosen)
        return scores, self.places.ids_at(positions)

    def without(self, positions: Ids) -> "Tier":
        """The same with positions dead."""
        return replace(self, alive=(self.alive or Allowed.all(len(self.places))).without(positions))

    def vectors(self, positions: Ids) -> NDArray[np.float32]:
        """The vectors at some positions, `(m, dim)` float32."""
        return scan.halves(self.index)[positions].astype(np.float32)

    def living(self) -> Places:
        """What stands here alive."""
        return self.places if self.alive is None else self.places.take(self.alive.mask)

    def codes(self) -> NDArray[np.uint8]:
        """The fp16 codes of what is alive, `(count, 2 * dim)`."""
        rows = scan.halves(self.index).view(np.uint8)
        return rows if self.alive is None else rows[self.alive.mask]


@dataclass(frozen=True, eq=False)
class Delta:
    """Tiers from the biggest to the smallest. Never changed: an edit answers the next delta. An id is alive once at most."""

    dimensions: int
    tiers: tuple[Tier, ...] = ()

    def __len__(self) -> int:
        return sum(tier.count for tier in self.tiers)

    @property
    def stored(self) -> int:
        """How many vectors a search scans: those alive and the dead that are not dropped yet."""
        return sum(len(tier.places) for tier in self.tiers)

    def plus(self, vectors: FeedVectors) -> "Delta":
        """With vectors that are not alive here yet (see `without`); their ids are unique."""
        if not len(vectors):
            return self
        tiers = list(self.tiers)
        joined, coming = [], len(vectors)
        while tiers and _level(len(tiers[-1].places)) <= _level(coming):
            coming += tiers[-1].count
            joined.append(tiers.pop())
        return replace(self, tiers=(*tiers, _tier(self.dimensions, joined[::-1], vectors)))

    def without(self, ids: Ids) -> "Delta":
        """With those ids dead, `(m,)` in any order. Ids that are not here do no harm."""
        tiers = [self._bury(tier, ids) for tier in self.tiers]
        if all(left is tier for left, tier in zip(tiers, self.tiers, strict=True)):
            return self
        return replace(self, tiers=tuple(tier for tier in tiers if tier.count))

    def find(self, ids: Ids) -> Ids:
        """The versions `(m,)` in which ids are alive here; -1 where they are not."""
        found = np.full(len(ids), NOWHERE, np.int64)
        for tier in self.tiers:
            positions = tier.places.find(ids, tier.alive)
            there = positions != NOWHERE
            found[there] = tier.places.versions[positions[there]]
        return found

    def search(self, queries: NDArray[np.float32], k: int, only: Filter | None) -> list[Hits]:
        """The best k of every tier; see `Tier.search`. Queries are float32 `(nq, dim)` of length 1."""
        return [hits for tier in self.tiers if (hits := tier.search(queries, k, only)) is not None]

    def living(self) -> list[Places]:
        """What is alive, tier by tier."""
        return [tier.living() for tier in self.tiers]

    @property
    def digest(self) -> Digest:
        """Of what is alive."""
        return sum((Digest.of(held.ids, held.versions) for held in self.living()), Digest(0, 0, 0))

    @property
    def memory(self) -> int:
        """Bytes of the codes and the arrays."""
        return sum(int(tier.index.codes.size()) + tier.places.memory for tier in self.tiers)

    def _bury(self, tier: Tier, ids: Ids) -> Tier:
        positions = tier.places.find(ids, tier.alive)
        positions = positions[positions != NOWHERE]
        if not len(positions):
            return tier
        left = tier.without(positions)
        # a tier that is mostly dead would be scanned for nothing until it is merged
        return _tier(self.dimensions, [left]) if 0 < 2 * left.count < len(left.places) else left


def _level(size: int) -> int:
    level, holds = 0, OPEN
    while size >= holds:
        level, holds = level + 1, holds * RATIO
    return level


def _tier(dimensions: int, parts: Sequence[Tier], vectors: FeedVectors | None = None) -> Tier:
    """A new tier of what is alive in others and of vectors after it."""
    index = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    places = [part.living() for part in parts]
    _add_codes(index, (part.codes() for part in parts))
    if vectors is not None:
        index.add(np.ascontiguousarray(vectors.rows, np.float32))
        places.append(Places.of(vectors))
    return Tier(index, Places.joined(places))


def _add_codes(index: Any, parts: Iterable[NDArray[np.uint8]]) -> None:
    """The codes go over as they are: encoding them again would cost more and round once more."""
    held = [part for part in parts if len(part)]
    if held:
        index.add_sa_codes(held[0] if len(held) == 1 else np.concatenate(held))
