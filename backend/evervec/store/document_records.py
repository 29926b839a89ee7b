"""Documents as whoever gave them sees them: with their text and metadata; got, listed, described anew without a new text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from evervec.domain.documents.document import IncomingDocument
from evervec.store.database.session import ReadTx, Tx


@dataclass(frozen=True)
class DocumentEntry:
    """A document of a dataset without its text. `chunks` are those that are searched, `pending` of them wait for a vector."""

    id: int
    dataset: str
    uri: str
    title: str
    format: str
    metadata: dict[str, Any]
    version: int
    chunks: int
    pending: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class DocumentRecord(DocumentEntry):
    """A document with its text, which is that of its chunks joined, or what still waits to be chunked."""

    text: str


# a chunk of space 0 was written by another program, and is of every space
CHUNKS_SEARCHED = "c.document_id = d.id AND c.space_id IN (0, s.space_id)"

ENTRIES = f"""
SELECT d.id, p.slug || '/' || s.slug AS dataset, d.uri, d.title, d.format, d.metadata::text AS metadata, d.version,
    n.chunks, n.pending, d.created_at, d.updated_at
FROM documents d
JOIN datasets s ON s.id = d.dataset_id
JOIN projects p ON p.id = s.project_id
CROSS JOIN LATERAL (
    SELECT count(*) AS chunks, count(*) FILTER (WHERE e.embedded_hash IS DISTINCT FROM e.content_hash) AS pending
    FROM chunks c LEFT JOIN embeddings e ON e.kind = 4 AND e.row_id = c.id AND e.space_id = s.space_id
    WHERE {CHUNKS_SEARCHED}
) n
WHERE d.dataset_id = $1
"""

PAGE_OF_ENTRIES = (
    ENTRIES + "AND d.uri > $2 AND starts_with(d.uri, $3) AND d.metadata @> $5::jsonb ORDER BY d.uri LIMIT $4"
)

TEXTS_OF = f"""
SELECT d.id, coalesce(d.content, string_agg(c.content, '' ORDER BY c.ordinal), '')
FROM documents d JOIN datasets s ON s.id = d.dataset_id LEFT JOIN chunks c ON {CHUNKS_SEARCHED}
WHERE d.id = ANY($1) GROUP BY d.id
"""


async def get(tx: ReadTx, dataset_id: UUID, uris: Sequence[str]) -> list[DocumentRecord]:
    """Return the documents of a dataset that have one of these uris, by uri."""
    rows = await tx.fetch(ENTRIES + "AND d.uri = ANY($2) ORDER BY d.uri", dataset_id, list(uris))
    texts = dict(await tx.fetch(TEXTS_OF, [row["id"] for row in rows]))
    return [DocumentRecord(**_values(row), text=texts[row["id"]]) for row in rows]


async def page(
    tx: ReadTx, dataset_id: UUID, *, prefix: str, after: str, limit: int, metadata: Mapping[str, Any]
) -> list[DocumentEntry]:
    """Return up to `limit` documents whose uri begins with `prefix` and comes behind `after`, and that have this metadata."""
    rows = await tx.fetch(PAGE_OF_ENTRIES, dataset_id, after, prefix, limit, _json(metadata))
    return [DocumentEntry(**_values(row)) for row in rows]


REPLACE_METADATA = """
UPDATE documents d SET metadata = n.metadata, updated_at = now() FROM unnest($2::text[], $3::jsonb[]) n (uri, metadata)
WHERE d.dataset_id = $1 AND d.uri = n.uri AND d.metadata <> n.metadata
"""


async def save_metadata(tx: Tx, dataset_id: UUID, documents: Sequence[IncomingDocument]) -> None:
    """Save the metadata of the documents that bring some; no text is touched, so nothing is embedded."""
    given = sorted((one.uri, _json(one.metadata)) for one in documents if one.metadata is not None)
    if given:
        await tx.execute(REPLACE_METADATA, dataset_id, [uri for uri, _ in given], [metadata for _, metadata in given])


# as text, since the connection of a caller may read JSON otherwise than ours
CHANGE_METADATA = """
UPDATE documents SET metadata = CASE WHEN $5 THEN $3::jsonb ELSE (metadata || $3::jsonb) - $4::text[] END, updated_at = now()
WHERE dataset_id = $1 AND uri = $2 RETURNING metadata::text
"""


async def change_metadata(
    tx: Tx, dataset_id: UUID, uri: str, change: Mapping[str, Any], *, replace: bool
) -> dict[str, Any] | None:
    """Change the metadata of a document and return all of it; None if there is no such document.

    Names that are not in the change stay unless it replaces all; a name whose value is None is removed.
    """
    kept = {name: value for name, value in change.items() if value is not None}
    gone = [name for name, value in change.items() if value is None]
    found = await tx.fetchval(CHANGE_METADATA, dataset_id, uri, _json(kept), gone, replace)
    return None if found is None else orjson.loads(found)


def _values(row: Any) -> dict[str, Any]:
    return {**row, "metadata": orjson.loads(row["metadata"])}


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
