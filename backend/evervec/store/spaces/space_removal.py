"""The removal of what a dataset had in a space that was dropped, a short transaction a batch."""

from uuid import UUID

from evervec.store.database.session import Tx
from evervec.store.spaces.spaces import drop_unused, older_writers_ended

# the chunks of a document hold its text: they stay until it has those of the space that is searched
PURGE_CHUNKS = """
DELETE FROM chunks WHERE id = ANY(ARRAY(
    SELECT c.id FROM chunks c JOIN datasets d ON d.id = c.dataset_id
    WHERE c.dataset_id = $1 AND c.space_id = $2 AND NOT EXISTS (
        SELECT FROM chunk_work w WHERE w.document_id = c.document_id AND w.space_id = d.space_id) LIMIT $3))
"""
# by an index each; what has neither text nor vector is in none of them, and is looked for once, at the end
OF_DROPPED = "SELECT vector_id FROM embeddings WHERE dataset_id = $1 AND space_id = $2 AND"
PURGE_VECTORS = f"""
DELETE FROM embeddings WHERE space_id = $2 AND vector_id = ANY(ARRAY(
    ({OF_DROPPED} embedding IS NOT NULL LIMIT $3) UNION ALL ({OF_DROPPED} pending_id IS NOT NULL LIMIT $3)
    UNION ALL ({OF_DROPPED} failed_hash = content_hash LIMIT $3) LIMIT $3))
"""
PURGE_EMPTY = "DELETE FROM embeddings WHERE dataset_id = $1 AND space_id = $2"
FORGET_DROPPED = """
DELETE FROM dataset_spaces WHERE dataset_id = $1 AND space_id = $2 AND state = 'dropped' AND $3
AND NOT EXISTS (SELECT FROM chunks WHERE dataset_id = $1 AND space_id = $2)
"""


async def purge(tx: Tx, dataset_id: UUID, space_id: int, *, limit: int) -> int:
    """Remove up to `limit` chunks or vectors of a dropped space of a dataset; return how many.

    The space counts as dropped until every transaction has ended that may still write to it; with the last dataset its indexes
    and its constraint go.
    """
    ended = await older_writers_ended(tx, dataset_id, space_id)
    for sql in (PURGE_CHUNKS, PURGE_VECTORS):
        removed = int((await tx.execute(sql, dataset_id, space_id, limit)).rsplit(" ", 1)[-1])
        if removed:
            return removed
    await tx.execute(PURGE_EMPTY, dataset_id, space_id)
    await tx.execute(
        "DELETE FROM chunk_work w USING documents d WHERE w.space_id = $2 AND d.id = w.document_id AND d.dataset_id = $1",
        dataset_id,
        space_id,
    )
    await tx.execute(FORGET_DROPPED, dataset_id, space_id, ended)
    await drop_unused(tx, space_id)
    return 0
