"""Vectors: written if the text is still the embedded one, copied between equal texts, searched exactly or by HNSW."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import vector_wire
from evervec.store.embeddings.in_space import in_space
from evervec.store.schema.embeddables import Embeddable

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


async def vector_of(tx: ReadTx, embeddable: Embeddable, row_id: int) -> tuple[int, NDArray[np.float32]] | None:
    """Return the space in which a row is searched and its vector there, `(dim,) float32`; None if it has none."""
    row = await tx.fetchrow(
        "SELECT e.space_id, e.embedding FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id "
        "WHERE e.kind = $1 AND e.row_id = $2 AND e.embedding IS NOT NULL",
        embeddable.kind,
        row_id,
    )
    return None if row is None else (row["space_id"], vector_wire.unpack_one(row["embedding"]))
