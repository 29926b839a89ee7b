"""The chunks of a dataset that wait for a vector, as a program reads them that embeds by itself; and the newest vector id."""

from dataclasses import dataclass
from uuid import UUID

from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import CHUNK
from evervec.store.schema.predicates import PENDING


@dataclass(frozen=True)
class WaitingChunk:
    """A chunk to embed: its id, its dataset, the id of its vector, the space that this is for, the text, and the text's digest."""

    id: int
    dataset_id: UUID
    vector_id: int
    space_id: int
    text: str
    content_hash: bytes


SELECT_WAITING = f"""
SELECT c.id, e.dataset_id, e.vector_id, e.space_id, c.vector_text AS text, e.content_hash
FROM embeddings e JOIN datasets s ON s.id = e.dataset_id AND s.space_id = e.space_id JOIN chunks c ON c.id = e.row_id
WHERE e.dataset_id = $1 AND e.kind = {CHUNK.kind} AND e.{PENDING} AND e.pending_id > $2 ORDER BY e.pending_id LIMIT $3
"""


async def in_dataset(tx: ReadTx, dataset_id: UUID, *, after: int, limit: int) -> list[WaitingChunk]:
    """Return up to `limit` chunks that wait, behind a vector id, by vector id."""
    return [WaitingChunk(**row) for row in await tx.fetch(SELECT_WAITING, dataset_id, after, limit)]


async def newest_vector_id(tx: ReadTx, dataset_id: UUID | None) -> int:
    """Return the highest vector id of a dataset, or of all; 0 where there is none."""
    found: int = await tx.fetchval(
        "SELECT coalesce(max(vector_id), 0) FROM embeddings WHERE $1::uuid IS NULL OR dataset_id = $1", dataset_id
    )
    return found
