"""Repair of what no trigger saw.

That is rows of an older database or of a restore without triggers, texts changed while triggers were off, and chunks and
documents from before their hashes were stored.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from evervec.store.database.session import Database
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable
from evervec.store.schema.triggers import content_hash


@dataclass(frozen=True)
class Step:
    """A committed batch of `seen` rows; `reached` is the highest key, `taken` counts the records added or corrected."""

    kind: str
    reached: int
    taken: int
    removed: int
    seen: int = field(default=0, compare=False)


# as the triggers do it: a record for each space of the row's dataset, of a chunk for the space that it was made for
IN_SPACES = """
    SELECT b.row_id, b.dataset_id, b.content_hash, s.id AS space_id FROM {rows} b CROSS JOIN LATERAL (
        SELECT coalesce((SELECT d.space_id FROM datasets d WHERE d.id = b.dataset_id),
                        (SELECT a.id FROM embedding_spaces a WHERE a.state = 'active'), 0) AS id
        UNION ALL SELECT o.space_id FROM dataset_spaces o WHERE o.dataset_id = b.dataset_id AND o.state <> 'dropped'
    ) s WHERE b.only IN (0, s.id)
"""


def _take_in(embeddable: Embeddable) -> str:
    kind, table, key = embeddable.kind, embeddable.table, embeddable.key
    columns = (
        f"r.{key} AS row_id, r.{embeddable.dataset} AS dataset_id, {content_hash(embeddable)} AS content_hash, "
        f"{f'r.{embeddable.space}' if embeddable.space else '0'} AS only"
    )
    return f"""
    WITH batch AS MATERIALIZED (
        SELECT {columns}
        FROM {table} r WHERE r.{key} > $1 ORDER BY r.{key} LIMIT $2
    ), wanted AS MATERIALIZED ({IN_SPACES.format(rows="batch")}), wrong AS MATERIALIZED (
        SELECT w.row_id FROM wanted w
        LEFT JOIN embeddings e ON e.kind = {kind} AND e.row_id = w.row_id AND e.space_id = w.space_id
        WHERE e.vector_id IS NULL OR e.dataset_id <> w.dataset_id
           OR (e.content_hash IS DISTINCT FROM w.content_hash
               -- a discarded text: empty until it changes
               AND NOT (e.content_hash IS NULL AND e.failed_hash IS NOT DISTINCT FROM w.content_hash))
        UNION SELECT b.row_id FROM batch b JOIN embeddings e ON e.kind = {kind} AND e.row_id = b.row_id
        WHERE NOT EXISTS (SELECT FROM wanted w WHERE w.row_id = e.row_id AND w.space_id = e.space_id)
    ), locked AS MATERIALIZED (
        -- only what is wrong is locked, and read again as it is under the lock
        SELECT {columns}
        FROM {table} r WHERE r.{key} IN (SELECT row_id FROM wrong) FOR SHARE OF r
    ), right_ones AS MATERIALIZED ({IN_SPACES.format(rows="locked")}), removed AS (
        DELETE FROM embeddings e USING locked l WHERE e.kind = {kind} AND e.row_id = l.row_id
        AND NOT EXISTS (SELECT FROM right_ones o WHERE o.row_id = e.row_id AND o.space_id = e.space_id) RETURNING 1
    ), corrected AS (
        UPDATE embeddings e SET dataset_id = o.dataset_id, content_hash = o.content_hash
        FROM right_ones o WHERE e.kind = {kind} AND e.row_id = o.row_id AND e.space_id = o.space_id
        AND (e.dataset_id <> o.dataset_id OR e.content_hash IS DISTINCT FROM o.content_hash)
        RETURNING 1
    ), added AS (
        INSERT INTO embeddings (space_id, kind, row_id, dataset_id, content_hash)
        SELECT o.space_id, {kind}, o.row_id, o.dataset_id, o.content_hash FROM right_ones o
        ON CONFLICT (kind, row_id, space_id) DO NOTHING RETURNING 1
    )
    SELECT (SELECT max(row_id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen,
           (SELECT count(*) FROM corrected) + (SELECT count(*) FROM added) + (SELECT count(*) FROM removed) AS touched
    """


def _remove(embeddable: Embeddable) -> str:
    return f"""
    WITH batch AS MATERIALIZED (
        SELECT DISTINCT row_id FROM (
            SELECT row_id FROM embeddings WHERE kind = {embeddable.kind} AND row_id > $1 ORDER BY row_id LIMIT $2
        ) first
    ), gone AS (
        DELETE FROM embeddings e USING batch b WHERE e.kind = {embeddable.kind} AND e.row_id = b.row_id
        AND NOT EXISTS (SELECT FROM {embeddable.table} r WHERE r.{embeddable.key} = b.row_id) RETURNING 1
    )
    SELECT (SELECT max(row_id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen,
           (SELECT count(*) FROM gone) AS touched
    """


async def run(
    database: Database, embeddables: Sequence[Embeddable] = EMBEDDABLES, *, batch: int = 5000
) -> AsyncGenerator[Step, None]:
    """Compare every row with its record, and every record with its row, a short transaction a batch.

    It may be stopped at any point and run again: what is right is only read.
    """
    for embeddable in embeddables:
        async for reached, seen, touched in walk(database, _take_in(embeddable), batch):
            yield Step(embeddable.name, reached, touched, 0, seen)
        async for reached, seen, touched in walk(database, _remove(embeddable), batch):
            yield Step(embeddable.name, reached, 0, touched, seen)


HASH_CHUNKS = """
WITH batch AS MATERIALIZED (
    SELECT id, content_hash IS NULL AS due FROM chunks WHERE id > $1 ORDER BY id LIMIT $2
), filled AS (
    UPDATE chunks SET content_hash = sha256(convert_to(vector_text, 'UTF8'))
    WHERE id = ANY(ARRAY(SELECT id FROM batch WHERE due)) AND content_hash IS NULL RETURNING 1
)
SELECT (SELECT max(id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen, (SELECT count(*) FROM filled) AS touched
"""

# a document without a chunk has no text that could be hashed: it is empty, or not chunked yet
HASH_DOCUMENTS = """
WITH batch AS MATERIALIZED (
    SELECT id, content_hash IS NULL AND content IS NULL AS due FROM documents WHERE id > $1 ORDER BY id LIMIT $2
), hashed AS MATERIALIZED (
    SELECT document_id, sha256(convert_to(string_agg(content, '' ORDER BY ordinal), 'UTF8')) AS hash, count(*) AS held
    FROM chunks WHERE document_id = ANY(ARRAY(SELECT id FROM batch WHERE due)) AND space_id = 0 GROUP BY document_id
), filled AS (
    UPDATE documents d SET content_hash = h.hash, chunk_count = h.held FROM hashed h
    WHERE d.id = h.document_id AND d.content_hash IS NULL RETURNING 1
)
SELECT (SELECT max(id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen, (SELECT count(*) FROM filled) AS touched
"""


async def fill_hashes(database: Database, *, batch: int = 5000) -> AsyncGenerator[Step, None]:
    """Fill the missing hashes of chunks and documents, a short transaction a batch; may be stopped and run again."""
    for kind, sql in (("chunk hash", HASH_CHUNKS), ("document hash", HASH_DOCUMENTS)):
        async for reached, seen, touched in walk(database, sql, batch):
            yield Step(kind, reached, touched, 0, seen)


async def walk(database: Database, sql: str, batch: int) -> AsyncGenerator[tuple[int, int, int], None]:
    """Run a statement batch after batch along the keys and yield `(highest key, rows seen, rows touched)`.

    No transaction is open while the caller has the batch.
    """
    reached: int | None = -(2**63)
    while reached is not None:
        async with database.transaction() as tx:
            row = await tx.fetchrow(sql, reached, batch)
        reached = None if row is None else row["reached"]
        if row is not None and reached is not None:
            yield reached, row["seen"], row["touched"]
