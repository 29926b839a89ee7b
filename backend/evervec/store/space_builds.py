"""What a build of a space leaves to others, or waits for: batch jobs, older transactions, other processes."""

from uuid import UUID

from evervec.store.database.session import ReadTx, Tx


async def marked(tx: Tx, dataset_id: UUID, space_id: int) -> None:
    """Remember that the rows of a space that batch jobs fill are marked for them."""
    await tx.execute(
        "UPDATE dataset_spaces SET marked_at = now() WHERE dataset_id = $1 AND space_id = $2", dataset_id, space_id
    )


WAIT_FOR_OTHERS = """
SELECT EXISTS (
    SELECT FROM dataset_spaces o JOIN datasets d ON d.id = o.dataset_id
    WHERE o.state <> 'dropped' AND d.deleted_at IS NULL
      AND (o.taken_in_at IS NULL OR (o.indexed_at IS NULL AND pg_snapshot_xmin(pg_current_snapshot()) < o.seen_xid))
) OR EXISTS (
    SELECT FROM embed_work w JOIN embeddings e USING (vector_id) JOIN dataset_spaces o USING (dataset_id, space_id)
    WHERE w.lease_until > now() AND NOT w.deferred
)
"""


async def wait_for_others(tx: ReadTx) -> bool:
    """Return whether a space can not be taken in yet, or rows of one are leased by a process that embeds them."""
    waits: bool = await tx.fetchval(WAIT_FOR_OTHERS)
    return waits
