"""What stands at the positions of one index, how an id is found there, and which positions a filter lets through."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Digest, FeedVectors, Ids
from evervec.mirror.allowed import Allowed, Mask

NOWHERE = -1

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Filter:
    """Which vectors a search may answer with: those of some kinds, those of some vector ids (int64, any order), or both.

    None is no restriction; an empty set lets nothing through. Two filters that say the same are equal.
    """

    kinds: frozenset[int] | None = None
    ids: Ids | None = None

    @cached_property
    def wanted(self) -> Ids:
        """The ids in rising order, `(m,)`; empty where ids do not matter."""
        return np.empty(0, np.int64) if self.ids is None else np.sort(np.asarray(self.ids, np.int64).ravel())

    @cached_property
    def _hash(self) -> int:
        return hash((self.kinds, self.ids is None, self.wanted[:4].tobytes(), len(self.wanted)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Filter):
            return self is other
        alike = self.kinds == other.kinds and (self.ids is None) == (other.ids is None)
        return alike and np.array_equal(self.wanted, other.wanted)


class Recent(Generic[Key, Value]):
    """The values made for the `most` keys that were asked for last. Threads may share it; two may make one value twice."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of that key, made now if it is not kept. The lock is not held while it is made."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value


@dataclass(frozen=True, eq=False)
class Places:
    """At position i of an index is the vector `ids[i]` in version `versions[i]` of kind `kinds[i]`: int64, int64, int16.

    The arrays are `(n,)`, ids unique, in any order, and never change; what is derived from them is made once, when needed.
    """

    ids: Ids
    versions: Ids
    kinds: NDArray[np.int16]
    _passing: Recent[Filter, Allowed] = field(default_factory=lambda: Recent(8), repr=False)

    @classmethod
    def of(cls, vectors: FeedVectors) -> "Places":
        """Of vectors that stand in an index in this order."""
        return cls(vectors.ids, vectors.versions, vectors.kinds)

    @classmethod
    def joined(cls, parts: list["Places"]) -> "Places":
        """Parts after each other."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.versions for part in parts]),
            np.concatenate([part.kinds for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, mask: Mask) -> "Places":
        """Those where a mask is true."""
        return Places(self.ids[mask], self.versions[mask], self.kinds[mask])

    def find(self, ids: Ids, alive: Allowed | None = None) -> Ids:
        """The positions `(m,)` of ids `(m,)`; -1 for one that is nowhere here, or not alive."""
        order, held = self._sorted
        if not len(held):
            return np.full(len(ids), NOWHERE, np.int64)
        at = np.searchsorted(held, ids)
        at[at == len(held)] = 0
        there = held[at] == ids
        positions = at if order is None else order[at]
        if alive is not None:
            there &= alive.mask[positions]
        return np.where(there, positions, NOWHERE)

    def ids_at(self, positions: Ids) -> Ids:
        """The ids at positions, of any shape; -1 where the position is -1."""
        if not len(self.ids):
            return np.full(positions.shape, NOWHERE, np.int64)
        found = self.ids[positions]
        found[positions == NOWHERE] = NOWHERE
        return found

    def allowed(self, alive: Allowed | None, only: Filter | None) -> Allowed | None:
        """The positions that are alive and that a filter lets through; None: all of them."""
        if only is None:
            return alive
        passing = self._passing.get(only, lambda: Allowed.of(self._pass(only)))
        return passing if alive is None else alive & passing

    @cached_property
    def digest(self) -> Digest:
        """Of all that stands here."""
        return Digest.of(self.ids, self.versions)

    @property
    def memory(self) -> int:
        """Bytes of the arrays."""
        return int(self.ids.nbytes + self.versions.nbytes + self.kinds.nbytes)

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.intp] | None, Ids]:
        """The order that sorts the ids, and the ids in it. Ids that rise already need neither the time nor the memory."""
        if bool((self.ids[1:] > self.ids[:-1]).all()):
            return None, self.ids
        order = np.argsort(self.ids)
        return order, self.ids[order]

    def _pass(self, only: Filter) -> Mask:
        mask = np.ones(len(self), bool)
        if only.kinds is not None:
            mask = np.isin(self.kinds, np.array(sorted(only.kinds), np.int64))
        if only.ids is not None:
            mask &= self._among(only.wanted)
        return mask

    def _among(self, wanted: Ids) -> Mask:
        """Which of the ids are wanted: the shorter list is looked up in the longer."""
        if len(wanted) <= len(self):
            mask = np.zeros(len(self), bool)
            positions = self.find(wanted)
            mask[positions[positions != NOWHERE]] = True
            return mask
        at = np.searchsorted(wanted, self.ids)
        at[at == len(wanted)] = 0
        return np.asarray(wanted[at] == self.ids, bool)
