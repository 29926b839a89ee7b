"""A set of positions of one segment: what a search may answer. What costs something to know is found when asked for."""

from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evervec.mirror.threads import faiss

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]


class Allowed:
    """The positions at which a mask `(n,) bool` is true. Never changed; the mask belongs to it from then on."""

    def __init__(self, mask: Mask, count: int, before: "tuple[Allowed, Positions] | None" = None) -> None:
        self.mask = mask
        self.count = count
        self._before = before
        self._per_list: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None

    @classmethod
    def of(cls, mask: Mask) -> Self:
        """What a mask `(n,) bool` allows."""
        mask = np.ascontiguousarray(mask, dtype=np.bool_)
        return cls(mask, int(np.count_nonzero(mask)))

    @classmethod
    def all(cls, n: int) -> Self:
        """Every one of n positions."""
        return cls(np.ones(n, np.bool_), n)

    def __len__(self) -> int:
        """How many positions there are, allowed or not."""
        return len(self.mask)

    def without(self, positions: Positions) -> "Allowed":
        """The set with some positions taken out; those that were not in it are no error."""
        gone = np.unique(positions[self.mask[positions]])
        if not len(gone):
            return self
        mask = self.mask.copy()
        mask[gone] = False
        return Allowed(mask, self.count - len(gone), self._remembered(gone))

    def _remembered(self, gone: Positions) -> "tuple[Allowed, Positions] | None":
        """The last set that has counted its lists, and all that went since: never a chain of sets."""
        if self._per_list is not None:
            return self, gone
        before = self._before
        return None if before is None else (before[0], np.concatenate([before[1], gone]))

    def __and__(self, other: "Allowed | Mask") -> "Allowed":
        """What both allow."""
        return Allowed.of(self.mask & (other.mask if isinstance(other, Allowed) else other))

    @cached_property
    def positions(self) -> Positions:
        """The allowed positions, rising: `(count,) int64`."""
        return np.flatnonzero(self.mask)

    @cached_property
    def selector(self) -> Any:
        """The set as FAISS asks for it."""
        bits = np.packbits(self.mask, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        selector.bits = bits  # it only points into them
        return selector

    def per_list(self, lists: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        """How many are allowed in each of `count` inverted lists, `(count,)`, where position i is in `lists[i]`."""
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
