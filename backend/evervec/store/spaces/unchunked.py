"""Documents whose chunks must still be made: written as a text, chunked by another recipe, or without those of a space."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from evervec.domain.documents.document import IncomingDocument
from evervec.store.database.session import ReadTx, Tx


@dataclass(frozen=True)
class UnchunkedDocument:
    """A document whose chunks must still be made; `seen` is its row version, to detect a change made since."""

    id: int
    dataset_id: UUID
    seen: str
    document: IncomingDocument


# the text of a document: what is to be chunked, else what its chunks hold for the space that is searched; for another one
# where it waits for those, since it was flipped to a space before all documents were chunked for it. To a dropped space
# nothing is written any more; where a document waits for every space, since its dataset was moved, all hold its text
TEXT = """
SELECT d.id, d.dataset_id, d.xmin::text AS seen, d.uri, d.title, d.format, d.stamp, coalesce(d.content, (
    SELECT string_agg(c.content, '' ORDER BY c.ordinal) FROM chunks c WHERE c.document_id = d.id AND c.space_id = (
        SELECT o.space_id FROM chunks o WHERE o.document_id = d.id ORDER BY
            EXISTS (SELECT FROM chunk_work w WHERE w.document_id = d.id AND w.space_id = o.space_id),
            o.space_id IN (0, (SELECT s.space_id FROM datasets s WHERE s.id = $1)) DESC,
            EXISTS (SELECT FROM dataset_spaces x WHERE x.dataset_id = $1 AND x.space_id = o.space_id AND x.state = 'dropped')
        LIMIT 1)
), '') AS text
FROM documents d WHERE d.id IN (SELECT id FROM due) AND d.dataset_id = $1 ORDER BY d.id LIMIT $3
"""
# four queries, each by an index of its own: for an OR the planner would scan the table
SELECT_UNCHUNKED = f"""
WITH due AS (
    (SELECT id FROM documents WHERE dataset_id = $1 AND content IS NOT NULL ORDER BY id LIMIT $3)
    UNION (SELECT id FROM documents WHERE dataset_id = $1 AND recipe < $2 LIMIT $3)
    UNION (SELECT id FROM documents WHERE dataset_id = $1 AND recipe > $2 LIMIT $3)
    UNION (SELECT d.id FROM chunk_work w JOIN documents d ON d.id = w.document_id
           WHERE w.space_id = (SELECT s.space_id FROM datasets s WHERE s.id = $1) AND d.dataset_id = $1 LIMIT $3)
)
{TEXT}
"""
SELECT_DUE = f"""
WITH due AS (
    SELECT d.id FROM chunk_work w JOIN documents d ON d.id = w.document_id
    WHERE w.space_id = $2 AND d.dataset_id = $1 ORDER BY d.id LIMIT $3
)
{TEXT}
"""


async def in_dataset(tx: ReadTx, dataset_id: UUID, recipe: str, *, limit: int) -> list[UnchunkedDocument]:
    """Return documents that were written as a text, or chunked by another recipe; their chunks joined are their text."""
    return _unchunked(await tx.fetch(SELECT_UNCHUNKED, dataset_id, recipe, limit))


SELECT_EVERY = f"""
WITH due AS (
    SELECT id FROM documents WHERE dataset_id = $1 AND id > $2 AND (recipe IS NOT NULL OR content IS NOT NULL)
    ORDER BY id LIMIT $3
)
{TEXT}
"""


async def every(tx: ReadTx, dataset_id: UUID, *, after: int, limit: int) -> list[UnchunkedDocument]:
    """Return the next documents of a dataset that are chunked for every space, waiting or not, by id."""
    return _unchunked(await tx.fetch(SELECT_EVERY, dataset_id, after, limit))


async def for_space(tx: ReadTx, dataset_id: UUID, space_id: int, *, limit: int) -> list[UnchunkedDocument]:
    """Return documents whose chunks for a space, which is not the one that is searched, have to be made."""
    return _unchunked(await tx.fetch(SELECT_DUE, dataset_id, space_id, limit))


def _unchunked(rows: Iterable[Mapping[str, Any]]) -> list[UnchunkedDocument]:
    return [
        UnchunkedDocument(
            row["id"],
            row["dataset_id"],
            row["seen"],
            IncomingDocument(row["uri"], row["title"], row["text"], row["format"], row["stamp"]),
        )
        for row in rows
    ]


async def lock_unchanged(tx: Tx, read: Sequence[UnchunkedDocument]) -> set[int]:
    """Lock documents and return the ids of those that did not change since they were read."""
    rows = await tx.fetch(
        "SELECT d.id FROM documents d JOIN unnest($1::bigint[], $2::text[]) n (id, seen) ON n.id = d.id "
        "WHERE d.xmin::text = n.seen ORDER BY d.id FOR UPDATE OF d",
        [one.id for one in read],
        [one.seen for one in read],
    )
    return {row["id"] for row in rows}


# counted apart, each by an index of its own: most documents are of this recipe
COUNT_UNCHUNKED = """
SELECT (SELECT count(*) FROM documents WHERE dataset_id = $1 AND content IS NOT NULL)
     + (SELECT count(*) FROM documents WHERE dataset_id = $1 AND content IS NULL AND recipe < $2)
     + (SELECT count(*) FROM documents WHERE dataset_id = $1 AND content IS NULL AND recipe > $2)
     + (SELECT count(*) FROM chunk_work w JOIN documents d ON d.id = w.document_id JOIN datasets s ON s.id = d.dataset_id
        WHERE d.dataset_id = $1 AND w.space_id = s.space_id AND d.content IS NULL AND d.recipe = $2)
"""


async def count(tx: ReadTx, dataset_id: UUID, recipe: str) -> int:
    """Count the documents whose chunks must still be made: written as a text, or chunked by another recipe."""
    found: int = await tx.fetchval(COUNT_UNCHUNKED, dataset_id, recipe)
    return found
