"""The change feed of a dataset: vectors and tombstones that a reader has not seen, streamed as binary COPY into numpy.

A reader's watermark is the PostgreSQL snapshot it read last. The next read asks for what that snapshot did not see: no
commit is skipped however late it comes, none is sent twice, and a long transaction elsewhere holds nothing back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Changes, DatabaseIdentity, Digest, FeedVectors, Ids, Watermark
from evervec.errors import FeedError
from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import vector_wire
from evervec.store.embeddings.in_space import in_space

PARSE_BYTES = 1 << 17
"""Bytes that are parsed at a time: the event loop is blocked for less than a millisecond."""
FETCHED_CHANGES = 200
"""Up to this many changes are fetched as rows, more by COPY."""
HEADER = 19
TRAILER = b"\xff\xff"

UNSEEN = """
    {xid} >= pg_snapshot_xmin({mark}) AND {xid} < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot({xid}, {mark})
"""
WRITTEN = UNSEEN.format(xid="e.changed_xid", mark="$2::text::pg_snapshot")
DELETED = UNSEEN.format(xid="t.deleted_xid", mark="$2::text::pg_snapshot")

HAS_VECTOR = "e.dataset_id = $1 AND e.space_id = {space} AND e.embedding IS NOT NULL"
VECTOR_COLUMNS = "e.vector_id, e.changed_xid, e.kind, e.embedding"
ALL_VECTORS = f"SELECT {VECTOR_COLUMNS} FROM embeddings e WHERE {HAS_VECTOR}"
UPSERTS = f"SELECT {VECTOR_COLUMNS} FROM embeddings e WHERE {HAS_VECTOR} AND {WRITTEN}"
BY_IDS = f"SELECT {VECTOR_COLUMNS} FROM embeddings e WHERE e.vector_id = ANY($2::bigint[]) AND {HAS_VECTOR}"
# of every space: each record has an id of its own, and one that is not there is not removed either
TOMBSTONES = f"SELECT DISTINCT t.vector_id FROM vector_tombstones t WHERE t.dataset_id = $1 AND {DELETED}"
IDS_SINCE = f"SELECT e.vector_id FROM embeddings e WHERE {HAS_VECTOR} AND {WRITTEN} UNION {TOMBSTONES}"
VERSIONS = f"SELECT e.vector_id, e.changed_xid FROM embeddings e WHERE {HAS_VECTOR}"
COUNT = f"SELECT count(*) FROM embeddings e WHERE {HAS_VECTOR}"

HAS_UNSEEN = f"""(
    EXISTS (SELECT FROM embeddings e WHERE e.dataset_id = {{dataset}} AND e.space_id = {{space}} AND e.embedding IS NOT NULL
            AND {UNSEEN.format(xid="e.changed_xid", mark="{mark}")})
    OR EXISTS (SELECT FROM vector_tombstones t WHERE t.dataset_id = {{dataset}}
               AND {UNSEEN.format(xid="t.deleted_xid", mark="{mark}")})
)"""
WITH_UNSEEN = (
    "SELECT w.id, w.space FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS w (id, space, mark) WHERE "
    + HAS_UNSEEN.format(dataset="w.id", space="w.space", mark="w.mark::pg_snapshot")
)

# of a server that was promoted, the control file names the old timeline until its first checkpoint, minutes later
FEED_STATE = """
SELECT c.system_identifier::text AS cluster,
       CASE WHEN pg_is_in_recovery() THEN p.timeline_id
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END AS timeline, d.oid::bigint AS database, s.id AS space_id,
       s.dimensions, (SELECT version_num FROM alembic_version) AS schema, pg_current_snapshot() AS snapshot,
       of.feed_from, coalesce(of.recall_target, 0) AS recall_target, of.live
FROM pg_control_system() c, pg_control_checkpoint() p, pg_database d, embedding_spaces s
LEFT JOIN (
    SELECT w.feed_from, w.recall_target, w.deleted_at IS NULL AND pr.deleted_at IS NULL AS live
    FROM datasets w JOIN projects pr ON pr.id = w.project_id WHERE w.id = $1
) of ON true
WHERE d.datname = current_database() AND s.id = $2
"""


@dataclass(frozen=True)
class FeedState:
    """What is true of a dataset's feed in one transaction: which database, which snapshot, how far back it is complete.

    Tombstones are complete from transaction `feed_from` on. `live` tells whether the dataset exists and is not deleted,
    `recall_target` is the one that was set for it, or None.
    """

    identity: DatabaseIdentity
    watermark: Watermark
    feed_from: int
    recall_target: float | None
    live: bool


async def feed_state(tx: ReadTx, dataset_id: UUID, space_id: int) -> FeedState | None:
    """Return the state of a dataset's feed of a space in this transaction; None if there is no such space."""
    row = await tx.fetchrow(FEED_STATE, dataset_id, space_id)
    if row is None:
        return None
    identity = DatabaseIdentity(
        *(row[name] for name in ("cluster", "timeline", "database", "space_id", "dimensions", "schema"))
    )
    return FeedState(
        identity, _watermark(row["snapshot"]), row["feed_from"] or 0, row["recall_target"] or None, bool(row["live"])
    )


async def watermark(tx: ReadTx) -> Watermark:
    """Return the snapshot of this transaction."""
    return _watermark(await tx.fetchval("SELECT pg_current_snapshot()"))


def _watermark(snapshot: tuple[int, int, Sequence[int]]) -> Watermark:
    xmin, xmax, in_progress = snapshot
    return Watermark(xmin, xmax, tuple(in_progress))


async def is_open(tx: ReadTx, xid: int) -> bool:
    """Return whether a transaction has begun and not ended; a snapshot does not list the newest ones."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND transactionid = $1::text::xid8::xid)",
        str(xid),
    )
    return found


async def with_unseen(tx: ReadTx, watermarks: Mapping[tuple[UUID, int], Watermark]) -> set[tuple[UUID, int]]:
    """Return the `(dataset, space)` with changes that their watermark has not seen."""
    ids, spaces = zip(*watermarks, strict=True) if watermarks else ((), ())
    rows = await tx.fetch(WITH_UNSEEN, list(ids), list(spaces), [str(mark) for mark in watermarks.values()])
    return {(row["id"], row["space"]) for row in rows}


async def since(tx: ReadTx, dataset_id: UUID, space_id: int, seen: Watermark, dimensions: int) -> Changes:
    """Return the changes of a dataset in a space that `seen` has not seen. Raises `FeedError` for vectors of another width."""
    mark = str(seen)
    # for a few, a prepared query takes a third of the time that a COPY takes to start
    written = await tx.fetch(f"{in_space(UPSERTS, space_id)} LIMIT {FETCHED_CHANGES + 1}", dataset_id, mark)
    if len(written) <= FETCHED_CHANGES:
        upserts = _of_records(written, dimensions)
    else:
        copied = _Rows(dimensions)
        await tx.copy_out(in_space(UPSERTS, space_id), dataset_id, mark, to=copied)
        upserts = copied.read()
    fetched = await tx.fetch(f"{TOMBSTONES} LIMIT {FETCHED_CHANGES + 1}", dataset_id, mark)
    if len(fetched) <= FETCHED_CHANGES:
        deleted = np.array([row["vector_id"] for row in fetched], np.int64)
    else:
        ids = _Ids()
        await tx.copy_out(TOMBSTONES, dataset_id, mark, to=ids)
        deleted = ids.read()
    return Changes(await watermark(tx), upserts, deleted)


async def ids_since(tx: ReadTx, dataset_id: UUID, space_id: int, seen: Watermark) -> Ids:
    """Return the vector ids in the changes that `seen` has not seen, each once."""
    ids = _Ids()
    await tx.copy_out(in_space(IDS_SINCE, space_id), dataset_id, str(seen), to=ids)
    return ids.read()


async def all_vectors(tx: ReadTx, dataset_id: UUID, space_id: int, dimensions: int) -> FeedVectors:
    """Return all vectors of a dataset in a space in this transaction's snapshot, read in one pass into arrays of the right size."""
    rows = _Rows(dimensions, expected=await tx.fetchval(in_space(COUNT, space_id), dataset_id))
    await tx.copy_out(in_space(ALL_VECTORS, space_id), dataset_id, to=rows)
    return rows.read()


async def by_ids(tx: ReadTx, dataset_id: UUID, space_id: int, ids: Sequence[int] | Ids, dimensions: int) -> FeedVectors:
    """Return those vectors of a dataset whose vector ids are given."""
    rows = _Rows(dimensions, expected=len(ids))
    await tx.copy_out(in_space(BY_IDS, space_id), dataset_id, [int(vector_id) for vector_id in ids], to=rows)
    return rows.read()


async def versions(tx: ReadTx, dataset_id: UUID, space_id: int) -> tuple[Ids, Ids]:
    """Return `(ids, versions)` of every vector of a dataset in a space, read from the index alone."""
    pairs = _Pairs()
    await tx.copy_out(in_space(VERSIONS, space_id), dataset_id, to=pairs)
    return pairs.read()


async def digest(tx: ReadTx, dataset_id: UUID, space_id: int) -> Digest:
    """Return the digest of a dataset's vectors in a space, computed inside PostgreSQL from the index alone."""
    row = await tx.fetchrow(digest_sql(space_id, tx.server_version), dataset_id)
    return Digest(*row) if row is not None else Digest(0, 0, 0)


def digest_sql(space_id: int, server_version: int) -> str:
    """Return the SQL of the digest.

    Before PostgreSQL 18 the type xid8 has no hash function; the hash of its number is the same.
    """
    version = "hashxid8extended(e.changed_xid, 0)"
    if server_version < 18:
        version = "hashint8extended(e.changed_xid::text::bigint, 0)"
    return f"""
        SELECT count(*), coalesce(bit_xor(h), 0), coalesce(sum((h >> 32)::int), 0)
        FROM (SELECT hashint8extended(e.vector_id # {version}, 0) AS h FROM embeddings e WHERE {in_space(HAS_VECTOR, space_id)}) hashed
    """


PRUNE = """
WITH pruned AS (
    DELETE FROM vector_tombstones WHERE dataset_id = $1 AND deleted_xid < $2::text::xid8 RETURNING 1
), kept AS (
    UPDATE datasets SET feed_from = $2::text::xid8 WHERE id = $1 AND EXISTS (SELECT FROM pruned)
)
SELECT count(*) FROM pruned
"""


async def prune(tx: Tx, dataset_id: UUID, below: int) -> int:
    """Delete tombstones of transactions below an id and return how many.

    A mirror that had not seen them compares itself with the database instead of following the feed.
    """
    pruned: int = await tx.fetchval(PRUNE, dataset_id, str(below))
    return pruned


class _Copied:
    """Takes a binary COPY in pieces and passes on its rows, which all have the same size."""

    def __init__(self, row: np.dtype[np.void]) -> None:
        self._row = row
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._begun = False

    async def __call__(self, data: bytes) -> None:
        """Take the bytes that arrived."""
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes >= PARSE_BYTES:
            self._parse()

    def _parse(self, *, last: bool = False) -> None:
        whole = b"".join(self._pieces)
        start = 0 if self._begun else HEADER
        count, left = divmod(len(whole) - start, self._row.itemsize)
        if last and whole[len(whole) - left :] != TRAILER:
            raise FeedError(reason="a row has another size than the rest: its vector is not of the space's width")
        if count:
            self._take(np.frombuffer(whole, self._row, count, start))
        self._begun = True
        self._pieces = [whole[len(whole) - left :]]
        self._bytes = left

    def _take(self, rows: NDArray[np.void]) -> None:
        raise NotImplementedError

    def _checked(self, rows: NDArray[np.void], **constants: int) -> None:
        for name, constant in constants.items():
            if not (rows[name] == constant).all():
                raise FeedError(reason=f"a row's {name} is not {constant}: its vector is not of the space's width")


class _Pairs(_Copied):
    """Rows of two 8-byte numbers."""

    def __init__(self) -> None:
        super().__init__(
            np.dtype([("fields", ">i2"), ("one", ">i4"), ("id", ">i8"), ("two", ">i4"), ("version", ">i8")])
        )
        self._found: list[tuple[Ids, Ids]] = []

    def _take(self, rows: NDArray[np.void]) -> None:
        self._found.append((rows["id"].astype(np.int64), rows["version"].astype(np.int64)))

    def read(self) -> tuple[Ids, Ids]:
        """Return all of them."""
        self._parse(last=True)
        none = np.empty(0, np.int64)
        ids, versions = zip(*self._found, strict=True) if self._found else ((none,), (none,))
        return np.concatenate(ids), np.concatenate(versions)


class _Ids(_Copied):
    """Rows of one 8-byte number."""

    def __init__(self) -> None:
        super().__init__(np.dtype([("fields", ">i2"), ("one", ">i4"), ("id", ">i8")]))
        self._found: list[Ids] = []

    def _take(self, rows: NDArray[np.void]) -> None:
        self._found.append(rows["id"].astype(np.int64))

    def read(self) -> Ids:
        """Return all of them."""
        self._parse(last=True)
        return np.concatenate(self._found) if self._found else np.empty(0, np.int64)


class _Rows(_Copied):
    """Rows of a vector id, a version, a kind and a vector. Its arrays grow only if there are more rows than expected."""

    def __init__(self, dimensions: int, *, expected: int = 0) -> None:
        super().__init__(
            np.dtype(
                [
                    *(
                        ("fields", ">i2"),
                        ("id_bytes", ">i4"),
                        ("id", ">i8"),
                        ("version_bytes", ">i4"),
                        ("version", ">i8"),
                    ),
                    *(("kind_bytes", ">i4"), ("kind", ">i2"), ("vector_bytes", ">i4")),
                    *vector_wire.fields(dimensions),
                ]
            )
        )
        self._dimensions = dimensions
        self._count = 0
        self._arrays = _arrays(max(expected, 1024), dimensions)

    def _take(self, rows: NDArray[np.void]) -> None:
        self._checked(rows, fields=4, vector_bytes=4 + 4 * self._dimensions, dimensions=self._dimensions)
        end = self._count + len(rows)
        if end > len(self._arrays):
            larger = _arrays(max(end, 2 * len(self._arrays)), self._dimensions)
            for old, new in zip(_parts(self._arrays), _parts(larger), strict=True):
                new[: self._count] = old[: self._count]
            self._arrays = larger
        for name, array in zip(("id", "version", "kind", "vector"), _parts(self._arrays), strict=True):
            array[self._count : end] = rows[name]
        _to_length_1(self._arrays.rows[self._count : end])
        self._count = end

    def read(self) -> FeedVectors:
        """Return all of them."""
        self._parse(last=True)
        return self._arrays.take(slice(self._count))


def _of_records(records: Sequence[Mapping[str, Any]], dimensions: int) -> FeedVectors:
    """Return the vectors of rows that were fetched."""
    vectors = vector_wire.unpack([record["embedding"] for record in records], dimensions)
    _to_length_1(vectors)
    numbers = np.array([(record["vector_id"], record["changed_xid"], record["kind"]) for record in records], np.int64)
    ids, versions, kinds = numbers.reshape(-1, 3).T.copy()
    return FeedVectors(ids, versions, kinds.astype(np.int16), vectors)


def _to_length_1(vectors: NDArray[np.float32]) -> None:
    vectors /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), np.finfo(np.float32).tiny)[:, None]


def _arrays(count: int, dimensions: int) -> FeedVectors:
    whole = np.empty(count, np.int64)
    return FeedVectors(whole, whole.copy(), np.empty(count, np.int16), np.empty((count, dimensions), np.float32))


def _parts(vectors: FeedVectors) -> tuple[NDArray[Any], ...]:
    return vectors.ids, vectors.versions, vectors.kinds, vectors.rows
