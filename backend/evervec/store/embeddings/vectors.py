"""Vectors: written if the text is still the embedded one, copied between equal texts, searched exactly or by HNSW."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray

from evervec.store import datasets
from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import vector_wire
from evervec.store.embeddings.in_space import in_space
from evervec.store.schema.embeddables import BY_KIND, EMBEDDABLES, Embeddable

WRITE = """
WITH written AS (
    UPDATE embeddings e
    SET embedding = v.vector, embedded_hash = v.hash, embedded_at = now(), failed_hash = NULL, windows = v.windows,
        changed_xid = pg_current_xact_id()
    FROM unnest($1::bigint[], $2::bytea[], $3::vector[], $4::smallint[]) AS v (id, hash, vector, windows)
    -- compare and set: after an edit or a deletion, or into another space than the record's, this vector is not written
    WHERE e.vector_id = v.id AND e.content_hash = v.hash AND e.space_id = {space}
      -- redundant, but with the array the planner uses the primary key, where the join alone may scan the table
      AND e.vector_id = ANY($1)
    RETURNING e.vector_id
), done AS (
    DELETE FROM embed_work WHERE vector_id = ANY(ARRAY(SELECT vector_id FROM written))
)
-- one row to transfer instead of hundreds
SELECT array_agg(vector_id) FROM written
"""

# a template and a chunk's size make other texts, but of the same text the same vector
REUSE = """
WITH same AS MATERIALIZED (
    SELECT wanted.hash, found.embedding, found.windows FROM unnest($2::bytea[]) AS wanted (hash)
    -- one match is enough: a hundred thousand rows may have the same text, such as "ok"
    CROSS JOIN LATERAL (SELECT embedding, windows FROM embeddings WHERE embedded_hash = wanted.hash AND space_id = ANY(ARRAY(
        SELECT o.id FROM embedding_spaces s JOIN embedding_spaces o USING (provider, model, dimensions, metric) WHERE s.id = $3
    )) LIMIT 1) found
), written AS (
    UPDATE embeddings e
    SET embedding = same.embedding, embedded_hash = same.hash, embedded_at = now(), failed_hash = NULL,
        windows = same.windows, changed_xid = pg_current_xact_id()
    FROM same WHERE e.vector_id = ANY($1) AND e.content_hash = same.hash AND e.space_id = {space}
    RETURNING e.vector_id
), done AS (
    DELETE FROM embed_work w USING written WHERE w.vector_id = written.vector_id
)
SELECT vector_id FROM written
"""


PLACE_PARTS = 4
"""Values of a chunk's place; those that follow belong to the row of an attached table that its document is."""

WIDENING = 4
"""The factor by which more hits are requested when the rows of too many are lost."""


class HashedRow(Protocol):
    """A row and the digest of the text that its vector is made of."""

    @property
    def vector_id(self) -> int:
        """Return the id of the row's vector."""
        ...

    @property
    def content_hash(self) -> bytes:
        """Return the digest of its text when it was claimed."""
        ...


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk is: its document's URI, the heading or qualified name, the first and the last line, from 1."""

    document: str
    heading: str
    line_start: int | None
    line_end: int | None


@dataclass(frozen=True)
class SearchHit:
    """A row near a query. `score` is the cosine similarity, 1 for the same direction; only a chunk has a `place`.

    A chunk of a row of an attached table has that `table`, the values of its `key`, and those of the declared `fields`.
    """

    kind: str
    id: int
    dataset: str
    score: float
    text: str
    stale: bool
    place: ChunkPlace | None = None
    table: str | None = None
    key: list[Any] | None = None
    fields: dict[str, Any] | None = None


async def update_vectors_bulk(
    tx: Tx,
    space_id: int,
    rows: Sequence[HashedRow],
    vectors: NDArray[np.float32],
    windows: Sequence[int | None] | None = None,
) -> set[int]:
    """Write `(n, dim) float32` of n claimed rows in one statement; return the ids whose text still matched.

    `windows` says for each row of how many windows of a long text its vector is made, None for a text that was embedded whole.
    """
    ids, hashes = [row.vector_id for row in rows], [row.content_hash for row in rows]
    counts = [None] * len(rows) if windows is None else list(windows)
    return set(await tx.fetchval(in_space(WRITE, space_id), ids, hashes, vector_wire.pack(vectors), counts) or ())


async def reuse(tx: Tx, space_id: int, rows: Sequence[HashedRow]) -> set[int]:
    """Copy the vectors that the space's model made of equal texts; return the vector ids that got one."""
    ids, hashes = [row.vector_id for row in rows], list({row.content_hash for row in rows})
    return {row["vector_id"] for row in await tx.fetch(in_space(REUSE, space_id), ids, hashes, space_id)}


def nearest_sql(embeddable: Embeddable, space_id: int, dimensions: int, *, exact: bool = False) -> str:
    """Return the query that searches one kind in one space.

    `$1` is the query vector, `$2` dataset ids or NULL for all, `$3` the limit, `$4` dataset ids to leave out. The inner
    query is all that an index sees; its hits are joined to their rows outside of it. A hit whose row or dataset is lost
    (it was deleted while triggers were off) comes without an id.
    """
    return f"""
        SELECT CASE WHEN d.id IS NOT NULL THEN r.{embeddable.key} END AS id, d.slug AS dataset, 1 - n.distance AS score, {embeddable.text} AS text, n.stale,
               {embeddable.place} AS place
        FROM ({_nearest(embeddable, space_id, dimensions, exact=exact)}) n
        LEFT JOIN {embeddable.table} r ON r.{embeddable.key} = n.row_id
        LEFT JOIN datasets d ON d.id = n.dataset_id
        ORDER BY n.distance, n.row_id
    """


def _nearest(embeddable: Embeddable, space_id: int, dimensions: int, *, exact: bool) -> str:
    """Return the inner query. An exact search compares the full vectors, an expression that no index has."""
    half = f"::halfvec({dimensions:d})"
    distance = "embedding <=> $1::vector" if exact else f"embedding{half} <=> $1::vector{half}"
    return f"""
            SELECT vector_id, row_id, dataset_id, {distance} AS distance, embedded_hash IS DISTINCT FROM content_hash AS stale
            FROM embeddings
            WHERE space_id = {space_id:d} AND kind = {embeddable.kind:d} AND embedding IS NOT NULL
              AND ($2::uuid[] IS NULL OR dataset_id = ANY($2)) AND dataset_id <> ALL ($4::uuid[])
            ORDER BY {distance} LIMIT $3
    """


def _of_kind(column: str) -> str:
    """Return an expression of the embeddables as a CASE over the kind of the row in `e`."""
    cases = (
        f"WHEN {e.kind:d} THEN (SELECT {getattr(e, column)} FROM {e.table} r WHERE r.{e.key} = e.row_id)"
        for e in EMBEDDABLES
    )
    return f"CASE e.kind {' '.join(cases)} END"


# the present state of what a mirror found: deleted rows are left out, and the score is that of the present vector
REJOIN = f"""
SELECT e.kind, e.row_id AS id, d.slug AS dataset, 1 - (e.embedding <=> $1::vector) AS score, {_of_kind("text")} AS text,
       e.embedded_hash IS DISTINCT FROM e.content_hash AS stale, {_of_kind("place")} AS place
FROM embeddings e JOIN datasets d ON d.id = e.dataset_id
WHERE e.vector_id = ANY($2::bigint[]) AND e.embedding IS NOT NULL AND e.dataset_id = ANY($3::uuid[]) AND e.kind = ANY($4::smallint[])
ORDER BY score DESC, e.kind, e.row_id
"""


async def rejoin(
    tx: ReadTx,
    query: NDArray[np.float32],
    vector_ids: Sequence[int],
    *,
    dataset_ids: Sequence[UUID],
    kinds: Sequence[Embeddable],
) -> list[SearchHit]:
    """Return the rows of vector ids that still exist, with their exact score for a `(dim,) float32` query, best first."""
    packed = vector_wire.pack_one(query)
    listed = [embeddable.kind for embeddable in kinds]
    rows = await tx.fetch(REJOIN, packed, list(vector_ids), list(dataset_ids), listed)
    # a record without its row, left by a deletion while triggers were off, has no text
    return [_hit(row, BY_KIND[row["kind"]]) for row in rows if row["text"] is not None]


async def nearest_of(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    row_ids: Sequence[int],
    dataset_ids: Sequence[UUID],
    *,
    space_id: int,
    k: int,
) -> list[SearchHit]:
    """Return the k nearest of some rows of a kind in a space, compared one by one."""
    ids = await ids_of_rows(tx, embeddable, row_ids, space_id)
    return (await rejoin(tx, query, ids, dataset_ids=dataset_ids, kinds=[embeddable]))[:k]


async def ids_of_rows(tx: ReadTx, embeddable: Embeddable, row_ids: Sequence[int], space_id: int) -> list[int]:
    """Return the vector ids of some rows of a kind in a space."""
    rows = await tx.fetch(
        f"SELECT vector_id FROM embeddings WHERE kind = $1 AND row_id = ANY($2) AND space_id = {space_id:d}",
        embeddable.kind,
        list(row_ids),
    )
    return [row["vector_id"] for row in rows]


async def nearest_ids(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    *,
    space_id: int,
    k: int,
    dataset_id: UUID,
    exact: bool,
) -> list[int]:
    """Return the vector ids of the k rows of a kind in a dataset nearest to a `(dim,) float32` query, best first."""
    sql = f"SELECT vector_id FROM ({_nearest(embeddable, space_id, query.shape[0], exact=exact)}) n ORDER BY distance"
    rows = await tx.fetch(sql, vector_wire.pack_one(query), [dataset_id], k, [])
    return [row["vector_id"] for row in rows]


async def use_index(tx: ReadTx, *, k: int) -> None:
    """Make PostgreSQL use HNSW in the rest of this transaction, and scan until the filters are satisfied."""
    await tx.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(100, 4 * k)):d}")
    await tx.execute("SET LOCAL hnsw.iterative_scan = strict_order")
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        await tx.execute(f"SET LOCAL {setting} = off")


async def nearest(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    *,
    space_id: int,
    k: int,
    dataset_ids: Sequence[UUID] | None,
    exact: bool = False,
) -> list[SearchHit]:
    """Return the k rows of a kind nearest in a space to a `(dim,) float32` query, best first."""
    sql = nearest_sql(embeddable, space_id, query.shape[0], exact=exact)
    packed = vector_wire.pack_one(query)
    scope = None if dataset_ids is None else list(dataset_ids)
    # deleted datasets are left out before the limit, or their rows would take places of others
    gone, wanted = await datasets.deleted(tx), k
    while True:
        found = await tx.fetch(sql, packed, scope, wanted, gone)
        rows = [row for row in found if row["id"] is not None]
        if len(rows) >= k or len(found) < wanted:
            return [_hit(row, embeddable) for row in rows[:k]]
        wanted *= WIDENING


def _hit(row: Any, embeddable: Embeddable) -> SearchHit:
    hit = SearchHit(embeddable.name, row["id"], row["dataset"], row["score"], row["text"], row["stale"], _place(row))
    key, fields = row["place"][PLACE_PARTS:] if row["place"] is not None else (None, None)
    if hit.place is None or key is None:
        return hit
    table = unquote(hit.place.document.partition("/")[0])
    return replace(hit, table=table, key=orjson.loads(key), fields=orjson.loads(fields or "{}"))


def _place(row: Any) -> ChunkPlace | None:
    return None if row["place"] is None else ChunkPlace(*row["place"][:PLACE_PARTS])


async def explain(tx: ReadTx, embeddable: Embeddable, query: NDArray[np.float32], *, space_id: int, k: int) -> str:
    """Return PostgreSQL's plan of a search."""
    sql = nearest_sql(embeddable, space_id, query.shape[0])
    rows = await tx.fetch(f"EXPLAIN {sql}", vector_wire.pack_one(query), None, k, [])
    return "\n".join(row[0] for row in rows)


async def count_in_scope(
    tx: ReadTx, embeddable: Embeddable, dataset_ids: Sequence[UUID], *, space_id: int, most: int
) -> int:
    """Count the rows embedded in a space that a filter keeps, up to `most`."""
    counted: int = await tx.fetchval(
        f"SELECT count(*) FROM (SELECT FROM embeddings WHERE dataset_id = ANY($1) AND space_id = {space_id:d} AND kind = $2 "
        "AND embedding IS NOT NULL LIMIT $3) s",
        list(dataset_ids),
        embeddable.kind,
        most,
    )
    return counted


async def vector_of(tx: ReadTx, embeddable: Embeddable, row_id: int) -> tuple[int, NDArray[np.float32]] | None:
    """Return the space in which a row is searched and its vector there, `(dim,) float32`; None if it has none."""
    row = await tx.fetchrow(
        "SELECT e.space_id, e.embedding FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id "
        "WHERE e.kind = $1 AND e.row_id = $2 AND e.embedding IS NOT NULL",
        embeddable.kind,
        row_id,
    )
    return None if row is None else (row["space_id"], vector_wire.unpack_one(row["embedding"]))


async def texts_of(
    tx: ReadTx, embeddable: Embeddable, row_ids: Collection[int]
) -> dict[int, tuple[str, ChunkPlace | None]]:
    """Return the texts and places of some rows of a kind, by row id; rows that do not exist are left out."""
    rows = await tx.fetch(
        f"SELECT r.{embeddable.key} AS id, {embeddable.text} AS text, {embeddable.place} AS place "
        f"FROM {embeddable.table} r WHERE r.{embeddable.key} = ANY($1)",
        list(row_ids),
    )
    return {row["id"]: (row["text"], _place(row)) for row in rows}
