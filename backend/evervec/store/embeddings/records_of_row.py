"""The records of one row in all spaces of its dataset, and the versions that it had."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import ATOM, Embeddable

ROW_RECORDS = """
SELECT e.vector_id, e.dataset_id, e.space_id, coalesce(s.provider, '') AS provider, coalesce(s.model, '') AS model,
       coalesce(s.dimensions, 0) AS dimensions, e.space_id = d.space_id AS searched,
       CASE WHEN e.content_hash IS NULL THEN 'empty' WHEN e.embedded_hash = e.content_hash THEN 'ready'
            WHEN e.failed_hash = e.content_hash THEN 'failed' ELSE 'pending' END AS state,
       encode(e.content_hash, 'hex') AS content_hash, e.embedded_at, e.windows,
       CASE WHEN e.embedded_hash IS DISTINCT FROM e.content_hash THEN w.last_error END AS reason
FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.deleted_at IS NULL
LEFT JOIN embedding_spaces s ON s.id = e.space_id LEFT JOIN embed_work w ON w.vector_id = e.vector_id
WHERE e.kind = $1 AND e.row_id = $2 ORDER BY searched DESC, e.space_id
"""
ROW_VERSIONS = (
    "SELECT version, title, content, confidence, created_at FROM atom_versions WHERE atom_id = $1 ORDER BY version DESC"
)


@dataclass(frozen=True)
class RowRecord:
    """The record of a row in a space: `state` is ready, pending, failed or empty, `reason` why it is not ready.

    `content_hash` is the SHA-256 of its text, None where there is nothing to embed; `windows` of how many parts of a long text
    the vector is made.
    """

    vector_id: int
    dataset_id: UUID
    space_id: int
    provider: str
    model: str
    dimensions: int
    searched: bool
    state: str
    content_hash: str | None
    embedded_at: datetime | None
    windows: int | None
    reason: str | None


@dataclass(frozen=True)
class RowVersion:
    """An atom as it was written once."""

    version: int
    title: str
    text: str
    confidence: float
    created_at: datetime


async def of_row(tx: ReadTx, embeddable: Embeddable, row_id: int) -> list[RowRecord]:
    """Return the records of a row of a live dataset, that of the space that is searched first; none if it is unknown."""
    return [RowRecord(**dict(row)) for row in await tx.fetch(ROW_RECORDS, embeddable.kind, row_id)]


async def versions(tx: ReadTx, embeddable: Embeddable, row_id: int) -> list[RowVersion]:
    """Return what an atom was, newest first; rows of other kinds keep no versions."""
    found: list[Any] = await tx.fetch(ROW_VERSIONS, row_id) if embeddable is ATOM else []
    return [RowVersion(*row) for row in found]
