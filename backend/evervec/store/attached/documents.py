"""The documents of an attachment's rows: found over all of its datasets, walked, given other fields, counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from evervec.domain.attachment import Key
from evervec.store import documents
from evervec.store.database.session import ReadTx, Tx
from evervec.store.documents import StoredDocument


@dataclass(frozen=True)
class PlacedDocument:
    """A document with the dataset that it is in: a row may have moved to another one."""

    dataset_id: UUID
    document: StoredDocument


# One look-up a URI, whatever the planner believes: while rows are taken in, its statistics say that there are no documents
# yet, and it would read all of the dataset for each batch.
OF_URIS = """
SELECT d.dataset_id, d.id, d.uri, d.title, d.format, d.stamp, d.recipe, d.content_hash, d.chunk_count
FROM unnest($2::text[]) AS u (uri)
CROSS JOIN LATERAL (SELECT * FROM documents o WHERE o.uri = u.uri AND o.key IS NOT NULL OFFSET 0) AS d
JOIN datasets s ON s.id = d.dataset_id
WHERE s.source_id = $1
"""


async def of_uris(tx: ReadTx, source_id: UUID, uris: Sequence[str]) -> dict[str, list[PlacedDocument]]:
    """Return the documents of an attachment with these URIs, by URI, in whatever dataset each is."""
    found: dict[str, list[PlacedDocument]] = {}
    for row in await tx.fetch(OF_URIS, source_id, list(uris)):
        dataset_id, *values = row
        found.setdefault(row["uri"], []).append(PlacedDocument(dataset_id, StoredDocument(*values)))
    return found


async def keys_after(tx: ReadTx, source_id: UUID, after: str, *, limit: int) -> list[tuple[int, str, Key]]:
    """Return `(id, uri, key)` of an attachment's documents after a URI, in the order of their URIs."""
    rows = await tx.fetch(
        "SELECT d.id, d.uri, d.key FROM documents d JOIN datasets s ON s.id = d.dataset_id "
        "WHERE d.uri > $2 AND d.key IS NOT NULL AND s.source_id = $1 ORDER BY d.uri LIMIT $3",
        source_id,
        after,
        limit,
    )
    return [(row["id"], row["uri"], tuple(orjson.loads(row["key"]))) for row in rows]


async def save_fields(tx: Tx, changed: Mapping[int, tuple[Mapping[str, object], str | None]]) -> None:
    """Save the fields, with their stamps, of documents whose text did not change."""
    await tx.execute(
        "UPDATE documents d SET fields = n.fields, stamp = n.stamp FROM unnest($1::bigint[], $2::jsonb[], $3::text[]) n "
        "(id, fields, stamp) WHERE d.id = n.id AND d.id = ANY($1)",
        list(changed),
        [orjson.dumps(fields).decode() for fields, _ in changed.values()],
        [stamp for _, stamp in changed.values()],
    )


HOLDS_OTHERS = """
SELECT EXISTS (SELECT FROM documents WHERE dataset_id = $1 AND (key IS NULL OR $2::text IS NULL OR NOT starts_with(uri, $2)))
    OR EXISTS (SELECT FROM messages WHERE dataset_id = $1) OR EXISTS (SELECT FROM topics WHERE dataset_id = $1)
    OR EXISTS (SELECT FROM atoms WHERE dataset_id = $1)
"""


async def holds_others(tx: ReadTx, dataset_id: UUID, prefix: str | None) -> bool:
    """Return whether a dataset holds anything but the documents of rows whose URIs begin with a prefix."""
    found: bool = await tx.fetchval(HOLDS_OTHERS, dataset_id, prefix)
    return found


async def has_strangers(tx: ReadTx, dataset_id: UUID) -> bool:
    """Return whether a dataset holds anything but the documents of attached rows."""
    return await holds_others(tx, dataset_id, "")


async def remove_some(tx: Tx, dataset_id: UUID, *, limit: int) -> int:
    """Delete some documents of attached rows of a dataset, with their chunks and vectors; return how many."""
    rows = await tx.fetch(
        "SELECT id FROM documents WHERE dataset_id = $1 AND key IS NOT NULL LIMIT $2 FOR UPDATE", dataset_id, limit
    )
    return (await documents.remove(tx, [row["id"] for row in rows])).documents_deleted if rows else 0
