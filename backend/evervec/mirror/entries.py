"""Which vector is at each position of one index, how an id is found, and which positions a filter lets through."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest, FeedVectors, Ids
from evervec.mirror.filter import Filter, LruCache
from evervec.mirror.position_set import Mask, PositionSet

MISSING_ID = -1


@dataclass(frozen=True, eq=False)
class Entries:
    """The vectors of one index: at position i is the vector `ids[i]` in version `versions[i]` of kind `kinds[i]`.

    The arrays are int64, int64, int16, each `(n,)`, ids unique, in any order, and never change; what is derived from
    them is computed once, when needed.
    """

    ids: Ids
    versions: Ids
    kinds: NDArray[np.int16]
    _passing: LruCache[Filter, PositionSet] = field(default_factory=lambda: LruCache(8), repr=False)

    @classmethod
    def of(cls, vectors: FeedVectors) -> "Entries":
        """Return the entries of vectors that are in an index in this order."""
        return cls(vectors.ids, vectors.versions, vectors.kinds)

    @classmethod
    def concatenate(cls, parts: list["Entries"]) -> "Entries":
        """Return the entries of several parts after each other."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.versions for part in parts]),
            np.concatenate([part.kinds for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, mask: Mask) -> "Entries":
        """Return the entries where a mask is true."""
        return Entries(self.ids[mask], self.versions[mask], self.kinds[mask])

    def positions_of(self, ids: Ids, alive: PositionSet | None = None) -> Ids:
        """Return the positions `(m,)` of ids `(m,)`; -1 for an id that is not here, or not alive."""
        order, sorted_ids = self._sorted
        if not len(sorted_ids):
            return np.full(len(ids), MISSING_ID, np.int64)
        at = np.searchsorted(sorted_ids, ids)
        at[at == len(sorted_ids)] = 0
        there = sorted_ids[at] == ids
        positions = at if order is None else order[at]
        if alive is not None:
            there &= alive.mask[positions]
        return np.where(there, positions, MISSING_ID)

    def versions_of(self, ids: Ids, alive: PositionSet | None = None) -> Ids:
        """Return the versions `(m,)` of ids `(m,)`; -1 for an id that is not here, or not alive."""
        if not len(self):
            return np.full(len(ids), MISSING_ID, np.int64)
        positions = self.positions_of(ids, alive)
        return np.where(positions != MISSING_ID, self.versions[positions], MISSING_ID)

    def ids_at(self, positions: Ids) -> Ids:
        """Return the ids at positions of any shape; -1 where the position is -1."""
        if not len(self.ids):
            return np.full(positions.shape, MISSING_ID, np.int64)
        found = self.ids[positions]
        found[positions == MISSING_ID] = MISSING_ID
        return found

    def allowed(self, alive: PositionSet | None, only: Filter | None) -> PositionSet | None:
        """Return the positions that are alive and that a filter lets through; None: all of them."""
        if only is None:
            return alive
        passing = self._passing.get(only, lambda: PositionSet.of(self._pass(only)))
        return passing if alive is None else alive & passing

    @cached_property
    def digest(self) -> Digest:
        """Return the digest of all entries."""
        return Digest.of(self.ids, self.versions)

    @property
    def memory(self) -> int:
        """Return the bytes of the arrays."""
        return int(self.ids.nbytes + self.versions.nbytes + self.kinds.nbytes)

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.intp] | None, Ids]:
        """Return the order that sorts the ids, and the sorted ids. Ids that rise already cost no time and no memory."""
        if bool((self.ids[1:] > self.ids[:-1]).all()):
            return None, self.ids
        order = np.argsort(self.ids)
        return order, self.ids[order]

    def _pass(self, only: Filter) -> Mask:
        mask = np.ones(len(self), bool)
        if only.kinds is not None:
            mask = np.isin(self.kinds, np.array(sorted(only.kinds), np.int64))
        if only.ids is not None:
            mask &= self._among(only.sorted_ids)
        return mask

    def _among(self, wanted: Ids) -> Mask:
        """Return which of the ids are wanted: the shorter list is looked up in the longer one."""
        if len(wanted) <= len(self):
            mask = np.zeros(len(self), bool)
            positions = self.positions_of(wanted)
            mask[positions[positions != MISSING_ID]] = True
            return mask
        at = np.searchsorted(wanted, self.ids)
        at[at == len(wanted)] = 0
        return np.asarray(wanted[at] == self.ids, bool)
