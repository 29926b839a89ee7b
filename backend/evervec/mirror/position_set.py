"""A set of positions of one segment: the positions that a search may return. Derived values are computed on demand."""

from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evervec.mirror.faiss_library import faiss

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]


class PositionSet:
    """The positions at which a mask `(n,) bool` is true. Immutable; it owns the mask that it is given."""

    def __init__(self, mask: Mask, count: int, before: "tuple[PositionSet, Positions] | None" = None) -> None:
        self.mask = mask
        self.count = count
        self._before = before
        self._per_list: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None

    @classmethod
    def of(cls, mask: Mask) -> Self:
        """Return the set of the positions at which a mask `(n,) bool` is true."""
        mask = np.ascontiguousarray(mask, dtype=np.bool_)
        return cls(mask, int(np.count_nonzero(mask)))

    @classmethod
    def all(cls, n: int) -> Self:
        """Return the set of all n positions."""
        return cls(np.ones(n, np.bool_), n)

    def __len__(self) -> int:
        """Return how many positions there are, in the set or not."""
        return len(self.mask)

    def without(self, positions: Positions) -> "PositionSet":
        """Return the set without some positions; those that are not in it are ignored."""
        gone = np.unique(positions[self.mask[positions]])
        if not len(gone):
            return self
        mask = self.mask.copy()
        mask[gone] = False
        return PositionSet(mask, self.count - len(gone), self._counted_set_before(gone))

    def _counted_set_before(self, gone: Positions) -> "tuple[PositionSet, Positions] | None":
        """Return the last set that has counted its lists, and all positions removed since: never a chain of sets."""
        if self._per_list is not None:
            return self, gone
        before = self._before
        return None if before is None else (before[0], np.concatenate([before[1], gone]))

    def __and__(self, other: "PositionSet | Mask") -> "PositionSet":
        """Return the intersection with another set or mask."""
        return PositionSet.of(self.mask & (other.mask if isinstance(other, PositionSet) else other))

    @cached_property
    def positions(self) -> Positions:
        """Return the positions in rising order: `(count,) int64`."""
        return np.flatnonzero(self.mask)

    @cached_property
    def selector(self) -> Any:
        """Return the set as a FAISS ID selector."""
        bits = np.packbits(self.mask, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        selector.bits = bits  # the selector keeps only a pointer to the bits
        return selector

    def per_list(self, lists: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        """Return how many positions of the set are in each of `count` inverted lists, `(count,)`.

        Position i is in list `lists[i]`.
        """
        known = self._per_list
        if known is None or known[1] is not lists:
            known = self._per_list = (self._counted(lists, count), lists)
            self._before = None
        return known[0]

    def _counted(self, lists: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        before = self._before
        known = before[0]._per_list if before is not None else None
        if before is not None and known is not None and known[1] is lists:
            return known[0] - np.bincount(lists[before[1]], minlength=count)
        return np.bincount(lists[self.mask], minlength=count)
