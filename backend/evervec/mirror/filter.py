"""Which vectors a search may return, and a small cache of what was computed for the last filters."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from evervec.domain.feed import Ids

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Filter:
    """Which vectors a search may return: those of some kinds, those of some vector ids (int64, any order), or both.

    None is no restriction; an empty set lets nothing through. Two filters with the same content are equal.
    """

    kinds: frozenset[int] | None = None
    ids: Ids | None = None

    @cached_property
    def sorted_ids(self) -> Ids:
        """Return the ids in rising order, `(m,)`; empty where ids do not matter."""
        return np.empty(0, np.int64) if self.ids is None else np.sort(np.asarray(self.ids, np.int64).ravel())

    @cached_property
    def _hash(self) -> int:
        return hash((self.kinds, self.ids is None, self.sorted_ids[:4].tobytes(), len(self.sorted_ids)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Filter):
            return self is other
        alike = self.kinds == other.kinds and (self.ids is None) == (other.ids is None)
        return alike and np.array_equal(self.sorted_ids, other.sorted_ids)


class LruCache(Generic[_Key, _Value]):
    """The values of the `most` keys that were used last. Threads may share it; two may compute one value twice."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: _Key, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key, computed now if it is not cached. The lock is not held meanwhile."""
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
