"""Pairs of rows that say the same: compared one by one where there are few, by HNSW where there are many."""

from collections.abc import Sequence
from uuid import UUID

from evervec.store import datasets
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import neighbours
from evervec.store.schema.embeddables import Embeddable

COMPARED_BELOW = 1_000
"""Fewer rows than this are all compared with each other: half a million pairs, in less than a second."""

NEIGHBOURS = 10


async def find(
    tx: ReadTx,
    embeddable: Embeddable,
    space_id: int,
    dimensions: int,
    dataset_ids: Sequence[UUID],
    *,
    threshold: float,
    most: int,
    exact: bool | None = None,
) -> list[tuple[int, int, float]]:
    """Return pairs `(row id, later row id, cosine)` of a kind in a space at or above a similarity, nearest pairs first.

    Rows of deleted datasets are in no pair. `exact` compares all rows; without a value it does where they are few.
    """
    gone = set(await datasets.deleted(tx))
    scope = [one for one in dataset_ids if one not in gone]
    if exact is None:
        exact = (
            await neighbours.count_in_scope(tx, embeddable, scope, space_id=space_id, most=COMPARED_BELOW)
            < COMPARED_BELOW
        )
    if not exact:
        await neighbours.use_index(tx, k=NEIGHBOURS)
        # rows of other datasets may lie between a row and its neighbours, however many they are
        await tx.execute("SET LOCAL hnsw.max_scan_tuples = 2147483647")
        await tx.execute("SET LOCAL hnsw.scan_mem_multiplier = 16")
    sql = (compared_sql if exact else neighbours_sql)(embeddable, space_id, dimensions)
    return [(row["one"], row["other"], row["score"]) for row in await tx.fetch(sql, scope, threshold, most)]


def compared_sql(embeddable: Embeddable, space_id: int, dimensions: int) -> str:
    """Return the query that compares all rows: `$1` dataset ids, `$2` the least similarity, `$3` the limit."""
    return f"""
        WITH compared AS MATERIALIZED (
            SELECT row_id, embedded_hash, embedding::halfvec({dimensions:d}) AS half
            FROM embeddings WHERE {_in_scope(embeddable, space_id)}
        )
        SELECT a.row_id AS one, b.row_id AS other, 1 - d.distance AS score
        FROM compared a JOIN compared b ON b.row_id > a.row_id CROSS JOIN LATERAL (
            -- equal texts mean the same, whatever the rounding says
            SELECT CASE WHEN b.embedded_hash = a.embedded_hash THEN 0 ELSE a.half <=> b.half END AS distance
        ) d
        WHERE d.distance <= 1 - $2::float8 ORDER BY d.distance, one, other LIMIT $3
    """


def neighbours_sql(embeddable: Embeddable, space_id: int, dimensions: int) -> str:
    """Return the query that asks HNSW for each text's ten nearest rows of other texts; parameters as in `compared_sql`.

    The work grows with the rows, not with their square. Equal texts are found by their digest: a hundred of them would
    be each other's ten nearest, and hide every text that is only similar. Of two similar texts the first copies are a pair.
    """
    half = f"embedding::halfvec({dimensions:d})"
    return f"""
        WITH scope AS MATERIALIZED (
            SELECT vector_id, row_id, embedded_hash, row_number() OVER (PARTITION BY embedded_hash ORDER BY row_id) AS copy
            FROM embeddings WHERE {_in_scope(embeddable, space_id)}
        ), equal AS (
            SELECT a.row_id AS one, b.row_id AS other, 0::float8 AS distance
            FROM scope a JOIN scope b ON b.embedded_hash = a.embedded_hash AND b.copy > a.copy
            -- so many copies of a text make $3 pairs
            WHERE (b.copy - 1) * (b.copy - 2) / 2 < $3
        ), near AS (
            SELECT least(first.row_id, o.row_id) AS one, greatest(first.row_id, o.row_id) AS other,
                   min(n.distance) AS distance
            FROM scope first JOIN embeddings e USING (vector_id) CROSS JOIN LATERAL (
                SELECT embedded_hash, {half} <=> e.{half} AS distance
                FROM embeddings WHERE {_in_scope(embeddable, space_id)} AND embedded_hash <> e.embedded_hash
                ORDER BY {half} <=> e.{half} LIMIT {NEIGHBOURS}
            ) n
            LEFT JOIN scope o ON o.embedded_hash = n.embedded_hash AND o.copy = 1
            WHERE first.copy = 1 AND n.distance <= 1 - $2::float8
            GROUP BY 1, 2
        )
        SELECT one, other, 1 - distance AS score FROM (TABLE equal UNION ALL TABLE near) found
        ORDER BY distance, one, other LIMIT $3
    """


def _in_scope(embeddable: Embeddable, space_id: int) -> str:
    return f"space_id = {space_id:d} AND kind = {embeddable.kind:d} AND embedding IS NOT NULL AND dataset_id = ANY($1)"
