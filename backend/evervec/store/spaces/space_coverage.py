"""How much of a dataset is embedded in a space: counted over all of its rows, for people who look."""

from dataclasses import dataclass
from uuid import UUID

from evervec.store.database.session import ReadTx


@dataclass(frozen=True)
class SpaceCoverage:
    """The rows of a dataset in one space by state; `documents` still wait for their chunks.

    `lately` counts the rows that were embedded in the last minute, or would have been by now at the pace since the first.
    """

    rows: int
    embedded: int
    pending: int
    failed: int
    documents: int
    lately: int

    @property
    def waiting(self) -> int:
        """Return how many rows and documents are still to be done."""
        return self.pending + self.documents

    @property
    def missing(self) -> int:
        """Return how many rows, or documents without chunks, would not be found."""
        return self.pending + self.failed + self.documents


SPACE_COVERAGE = """
SELECT count(*) FILTER (WHERE content_hash IS NOT NULL) AS rows,
       count(*) FILTER (WHERE embedded_hash = content_hash) AS embedded,
       count(*) FILTER (WHERE pending_id IS NOT NULL) AS pending,
       count(*) FILTER (WHERE failed_hash = content_hash) AS failed,
       (SELECT count(*) FROM chunk_work w JOIN documents d ON d.id = w.document_id
        WHERE w.space_id = $2 AND d.dataset_id = $1) AS documents,
       (count(*) FILTER (WHERE embedded_at > now() - interval '1 minute')
        * 60 / greatest(least(extract(epoch FROM now() - min(embedded_at)), 60), 1))::bigint AS lately
FROM embeddings WHERE dataset_id = $1 AND space_id = $2
"""


async def coverage(tx: ReadTx, dataset_id: UUID, space_id: int) -> SpaceCoverage:
    """Return how much of a dataset is embedded in a space."""
    row = await tx.fetchrow(SPACE_COVERAGE, dataset_id, space_id)
    assert row is not None  # an aggregate always has a row
    return SpaceCoverage(**row)


async def documents_of(tx: ReadTx, dataset_id: UUID) -> int:
    """Count the documents of a dataset that are chunked for every space."""
    found: int = await tx.fetchval(
        "SELECT count(*) FROM documents WHERE dataset_id = $1 AND (recipe IS NOT NULL OR content IS NOT NULL)",
        dataset_id,
    )
    return found
