"""The change feed as arrays: vectors with their versions, watermarks, digests and differences. No SQL here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Watermark:
    """The PostgreSQL snapshot that a reader has seen: exactly what was committed then, however late it commits.

    Transactions with an id below `xmin` had ended, those from `xmax` on had not begun, `in_progress` were open in between.
    """

    xmin: int
    xmax: int
    in_progress: tuple[int, ...] = ()

    def covers(self, xid: int) -> bool:
        """Return whether the reader has seen what this transaction committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)

    def common(self, other: "Watermark") -> "Watermark":
        """Return the watermark that covers exactly the transactions that both cover."""
        xmax = min(self.xmax, other.xmax)
        in_progress = sorted({xid for xid in self.in_progress + other.in_progress if xid < xmax})
        return Watermark(min(in_progress, default=xmax), xmax, tuple(in_progress))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.in_progress))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse PostgreSQL's own form, `xmin:xmax:xip,xip`. Raises `ValueError` for anything else."""
        xmin, xmax, in_progress = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(xid) for xid in in_progress.split(",") if xid))


@dataclass(frozen=True)
class DatabaseIdentity:
    """The database, and its state of history, that a watermark belongs to; in another one it means nothing.

    `cluster` is PostgreSQL's system identifier, `timeline` changes with every promotion of a standby and every
    point-in-time recovery, `space_id` and `dimensions` are the active embedding space, `schema` is the schema's revision.
    """

    cluster: str
    timeline: int
    database: int
    space_id: int
    dimensions: int
    schema: str

    def same_database(self, other: "DatabaseIdentity") -> bool:
        """Return whether it is the same database, whatever its timeline, space and schema."""
        return (self.cluster, self.database) == (other.cluster, other.database)

    def foreign(self, other: "DatabaseIdentity") -> str | None:
        """Return, in words, why no vector of `other` can be one of ours; None if its timeline and schema alone may differ."""
        return self.difference(replace(other, timeline=self.timeline, schema=self.schema))

    def difference(self, other: "DatabaseIdentity") -> str | None:
        """Return, in words, the first field that differs; None if the identities are equal."""
        mine, others = asdict(self), asdict(other)
        for name, value in mine.items():
            if others[name] != value:
                return f"{name.replace('_', ' ')} {others[name]}, not {value}"
        return None


@dataclass(frozen=True)
class FeedVectors:
    """n vectors of one dataset, as parallel arrays.

    `ids` int64 `(n,)` are vector ids of PostgreSQL, unique. `versions` int64 `(n,)` are the transaction ids that wrote
    the vectors: same id and same version is the same vector. `kinds` int16 `(n,)`. `rows` float32 `(n, dim)`, of length 1
    (cosine similarity depends on the direction alone).
    """

    ids: Ids
    versions: Ids
    kinds: NDArray[np.int16]
    rows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls, dimensions: int) -> Self:
        """Return no vectors, of that width."""
        whole = np.empty(0, np.int64)
        return cls(whole, whole, np.empty(0, np.int16), np.empty((0, dimensions), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["FeedVectors"], dimensions: int) -> Self:
        """Return parts one after the other."""
        if not parts:
            return cls.none(dimensions)
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.versions for part in parts]),
            np.concatenate([part.kinds for part in parts]),
            np.concatenate([part.rows for part in parts]),
        )

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "FeedVectors":
        """Return those at some positions, in a slice, or where a mask is true."""
        return FeedVectors(self.ids[places], self.versions[places], self.kinds[places], self.rows[places])


@dataclass(frozen=True)
class Changes:
    """The changes of a dataset between two watermarks: first remove `deleted`, then add `upserts`."""

    watermark: Watermark
    upserts: FeedVectors
    deleted: Ids

    def __len__(self) -> int:
        return len(self.upserts) + len(self.deleted)


@dataclass(frozen=True)
class Digest:
    """A set of `(vector id, version)` in three numbers: two sets with equal digests are equal.

    `xor` and `total` are of the same 64-bit hash, PostgreSQL's `hashint8extended(vector_id # hashint8extended(version, 0), 0)`:
    both sides compute it where their data is. `total` adds its upper 32 bits, and `count` is part of it, because a
    set that holds an id twice would cancel itself out of an xor.
    """

    count: int
    xor: int
    total: int

    @classmethod
    def of(cls, ids: Ids, versions: Ids) -> Self:
        """Return the digest of parallel int64 arrays."""
        if not len(ids):
            return cls(0, 0, 0)
        hashes = hash_int8(ids ^ hash_int8(versions))
        return cls(len(ids), int(np.bitwise_xor.reduce(hashes)), int((hashes >> 32).sum()))

    def __add__(self, other: "Digest") -> "Digest":
        """Return the digest of the union of two sets that share nothing."""
        return Digest(self.count + other.count, self.xor ^ other.xor, self.total + other.total)

    def __sub__(self, other: "Digest") -> "Digest":
        """Return the digest of a set without a part of it."""
        return Digest(self.count - other.count, self.xor ^ other.xor, self.total - other.total)


@dataclass(frozen=True)
class Difference:
    """Vector ids in which a mirror differs from the database: missing there, extra there, or of an older version."""

    missing: Ids
    extra: Ids
    stale: Ids

    def __len__(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.stale)


def compare(wanted: tuple[Ids, Ids], found: tuple[Ids, Ids]) -> Difference:
    """Return where `found` (ids, versions) of a mirror differs from `wanted` of the database; any order, ids unique."""
    ids, versions = _sorted(*wanted)
    mirrored, mirrored_versions = _sorted(*found)
    place = np.searchsorted(mirrored, ids)
    place[place == len(mirrored)] = 0
    there = mirrored[place] == ids if len(mirrored) else np.zeros(len(ids), bool)
    same = np.zeros(len(ids), bool)
    same[there] = mirrored_versions[place[there]] == versions[there]
    kept = np.zeros(len(mirrored), bool)
    kept[place[there]] = True
    return Difference(ids[~there], mirrored[~kept], ids[there & ~same])


def _sorted(ids: Ids, versions: Ids) -> tuple[Ids, Ids]:
    if len(ids) < 2 or bool((ids[1:] > ids[:-1]).all()):
        return ids, versions
    order = np.argsort(ids)
    return ids[order], versions[order]


def hash_int8(values: Ids) -> Ids:
    """Return PostgreSQL's `hashint8extended(value, 0)` of an array; hash partitioning fixes it for all versions.

    Bob Jenkins' lookup3, as in PostgreSQL's `hash_bytes_uint32_extended`.
    """
    low, high = values.astype(np.uint32), (values >> 32).astype(np.uint32)
    start = np.full(len(values), 0x9E3779B9 + 4 + 3923095, np.uint32)
    b, c = _final(start + (low ^ np.where(values >= 0, high, ~high)), start, start)
    return ((b.astype(np.uint64) << np.uint64(32)) | c).view(np.int64)


Words = NDArray[np.uint32]


def _turned(x: Words, bits: int) -> Words:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def _final(a: Words, b: Words, c: Words) -> tuple[Words, Words]:
    c = (c ^ b) - _turned(b, 14)
    a = (a ^ c) - _turned(c, 11)
    b = (b ^ a) - _turned(a, 25)
    c = (c ^ b) - _turned(b, 16)
    a = (a ^ c) - _turned(c, 4)
    b = (b ^ a) - _turned(a, 14)
    c = (c ^ b) - _turned(b, 24)
    return b, c
