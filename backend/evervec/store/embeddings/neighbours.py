"""Search vectors: one by one or by HNSW, and the present state of what a mirror found."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.store import datasets
from evervec.store.conditions.compiling import CheckedCondition
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import vector_wire
from evervec.store.embeddings.hits import SearchHit, hit_of
from evervec.store.schema.embeddables import BY_KIND, EMBEDDABLES, Embeddable

WIDENING = 4
"""The factor by which more hits are requested when the rows of too many are lost."""


FILTERED_SPARE = 4
"""So many times k are requested of HNSW under a condition: its scan ends at the last hit, and nearer rows may lie behind it."""


def nearest_sql(
    embeddable: Embeddable, space_id: int, dimensions: int, *, exact: bool = False, only: str = "true"
) -> str:
    """Return the query that searches one kind in one space.

    `$1` is the query vector, `$2` dataset ids or NULL for all, `$3` the limit, `$4` dataset ids to leave out; `only` is a
    condition over the records `e`, with parameters from `$5` on. The inner query is all that an index sees; its hits are
    joined to their rows outside of it. A hit whose row or dataset is lost (it was deleted while triggers were off) comes
    without an id.
    """
    return f"""
        SELECT CASE WHEN d.id IS NOT NULL THEN r.{embeddable.key} END AS id, d.slug AS dataset, 1 - n.distance AS score, {embeddable.text} AS text, n.stale,
               {embeddable.place} AS place
        FROM ({_nearest(embeddable, space_id, dimensions, exact=exact, only=only)}) n
        LEFT JOIN {embeddable.table} r ON r.{embeddable.key} = n.row_id
        LEFT JOIN datasets d ON d.id = n.dataset_id
        ORDER BY n.distance, n.row_id
    """


def _nearest(embeddable: Embeddable, space_id: int, dimensions: int, *, exact: bool, only: str = "true") -> str:
    """Return the inner query. An exact search compares the full vectors, an expression that no index has."""
    half = f"::halfvec({dimensions:d})"
    distance = "e.embedding <=> $1::vector" if exact else f"e.embedding{half} <=> $1::vector{half}"
    return f"""
            SELECT e.vector_id, e.row_id, e.dataset_id, {distance} AS distance, e.embedded_hash IS DISTINCT FROM e.content_hash AS stale
            FROM embeddings e
            WHERE e.space_id = {space_id:d} AND e.kind = {embeddable.kind:d} AND e.embedding IS NOT NULL
              AND ($2::uuid[] IS NULL OR e.dataset_id = ANY($2)) AND e.dataset_id <> ALL ($4::uuid[]) AND {only}
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
WHERE e.vector_id = ANY($2::bigint[]) AND (e.embedding IS NOT NULL OR $5) AND e.dataset_id = ANY($3::uuid[]) AND e.kind = ANY($4::smallint[])
  AND {{only}}
ORDER BY score DESC NULLS LAST, e.kind, e.row_id
"""


async def rejoin(
    tx: ReadTx,
    query: NDArray[np.float32] | None,
    vector_ids: Sequence[int],
    *,
    dataset_ids: Sequence[UUID],
    kinds: Sequence[Embeddable],
    condition: CheckedCondition | None = None,
    without_vector: bool = False,
) -> list[SearchHit]:
    """Return the rows of vector ids that still exist, with their exact score for a `(dim,) float32` query, best first.

    Rows that do not fulfil the condition any more are left out, and rows that have no vector yet unless `without_vector` is
    asked for; those, and all without a query, have no similarity and come in no order.
    """
    listed = [embeddable.kind for embeddable in kinds]
    packed = None if query is None else vector_wire.pack_one(query)
    values: list[object] = [packed, list(vector_ids), list(dataset_ids), listed, without_vector]
    rows = await tx.fetch(REJOIN.replace("{only}", _of_record(condition, values, kinds)), *values)
    # a record without its row, left by a deletion while triggers were off, has no text
    return [hit_of(row, BY_KIND[row["kind"]]) for row in rows if row["text"] is not None]


def _of_record(condition: CheckedCondition | None, values: list[object], kinds: Sequence[Embeddable]) -> str:
    return "true" if condition is None else condition.of_record(values, kinds)


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


SETTINGS = """
SELECT set_config('hnsw.ef_search', $1, true), set_config('hnsw.iterative_scan', $2, true),
       set_config('enable_seqscan', $3, true), set_config('enable_bitmapscan', $3, true), set_config('enable_sort', $3, true)
"""


async def use_index(tx: ReadTx, *, k: int, filtered: bool = False) -> None:
    """Make PostgreSQL use HNSW in the rest of this transaction, and scan until the filters are satisfied.

    A search that is `filtered` keeps rows that come out of order, which the strict scan drops: with a filter whose rows lie
    far from the query that was one in twenty.
    """
    order = "relaxed_order" if filtered else "strict_order"
    await tx.fetchrow(SETTINGS, str(min(1000, max(200 if filtered else 100, 4 * k))), order, "off")


async def use_any_plan(tx: ReadTx) -> None:
    """Let PostgreSQL choose again how it reads, after `use_index`."""
    await tx.fetchrow(SETTINGS, "100", "strict_order", "on")


async def nearest(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    *,
    space_id: int,
    k: int,
    dataset_ids: Sequence[UUID] | None,
    exact: bool = False,
    condition: CheckedCondition | None = None,
    vector_ids: NDArray[np.int64] | None = None,
) -> list[SearchHit]:
    """Return the k rows of a kind nearest in a space to a `(dim,) float32` query, best first.

    Only rows that fulfil the condition are compared; or those of `vector_ids`, which were found to fulfil it in this transaction.
    """
    # deleted datasets are left out before the limit, or their rows would take places of others
    gone, wanted = await datasets.deleted(tx), k if condition is None else k * FILTERED_SPARE
    while True:
        values: list[object] = [
            vector_wire.pack_one(query),
            None if dataset_ids is None else list(dataset_ids),
            wanted,
            gone,
        ]
        if vector_ids is not None:
            only = f"e.vector_id = ANY(${len(values) + 1}::bigint[])"
            values.append(vector_ids.tolist())
        else:
            only = _of_record(condition, values, [embeddable])
        sql = nearest_sql(embeddable, space_id, query.shape[0], exact=exact, only=only)
        found = await tx.fetch(sql, *values)
        rows = [row for row in found if row["id"] is not None]
        if len(rows) >= k or len(found) < wanted:
            return [hit_of(row, embeddable) for row in rows[:k]]
        wanted *= WIDENING


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
