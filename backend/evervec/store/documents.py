"""Documents and their chunks: found by URI, replaced in one transaction, moved, removed, counted."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from evervec.domain.documents.chunking import ChunkDraft
from evervec.domain.documents.document import IncomingDocument
from evervec.domain.documents.revision import Revision, StoredChunk, revise
from evervec.store import document_records
from evervec.store.database.session import ReadTx, Tx
from evervec.store.runs import RunCounts


@dataclass(frozen=True)
class StoredDocument:
    """A document as it is in the database. Without a `recipe` its chunks were not made by Evervec."""

    id: int
    uri: str
    title: str
    format: str
    stamp: str | None
    recipe: str | None
    content_hash: bytes | None
    chunk_count: int

    def says(self, document: IncomingDocument, recipe: str) -> bool:
        """Return whether this version already holds the chunks that a recipe makes of a document."""
        same = (self.title, self.format, self.recipe) == (document.title, document.format, recipe)
        return same and self.content_hash == digest(document.text)


@dataclass
class WriteResult:
    """The counts of a write, and the tokens of each chunk to embed, by its id; `batched` of them wait for batch jobs.

    A preview has their `texts` too.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    pending: dict[int, int] = field(default_factory=dict)
    batched: int = 0
    texts: list[str] = field(default_factory=list)


SELECT_DOCUMENTS = (
    "SELECT id, uri, title, format, stamp, recipe, content_hash, chunk_count FROM documents WHERE dataset_id = $1 AND "
)


def digest(text: str) -> bytes:
    """Return the SHA-256 of a document's text, which is the contents of its chunks joined."""
    return sha256(text.encode()).digest()


async def by_uri(tx: ReadTx, dataset_id: UUID, uris: Sequence[str]) -> dict[str, StoredDocument]:
    """Return the documents with these URIs, by URI."""
    rows = await tx.fetch(SELECT_DOCUMENTS + "uri = ANY($2)", dataset_id, list(uris))
    return {row["uri"]: StoredDocument(**row) for row in rows}


async def in_folders(tx: ReadTx, dataset_id: UUID, folders: Sequence[str]) -> list[StoredDocument]:
    """Return the documents whose URI lies below one of these folders."""
    return [
        StoredDocument(**row)
        for row in await tx.fetch(
            SELECT_DOCUMENTS + "EXISTS (SELECT FROM unnest($2::text[]) f WHERE starts_with(uri, f || '/'))",
            dataset_id,
            list(folders),
        )
    ]


async def by_digest(tx: ReadTx, dataset_id: UUID, digests: Iterable[bytes]) -> list[StoredDocument]:
    """Return the documents whose text has one of these digests; a document that was moved is among them."""
    return [
        StoredDocument(**row)
        for row in await tx.fetch(SELECT_DOCUMENTS + "content_hash = ANY($2)", dataset_id, list(digests))
    ]


# the project first, as in `datasets.ensure`: the same order everywhere prevents deadlocks
LOCK_LIVE_DATASET = """
SELECT true FROM datasets d JOIN projects p ON p.id = d.project_id
WHERE d.id = $1 AND d.deleted_at IS NULL AND p.deleted_at IS NULL FOR SHARE OF p, d
"""


async def lock_live_dataset(tx: Tx, dataset_id: UUID) -> bool:
    """Prevent the deletion of a dataset until the transaction ends; return False if it is already deleted."""
    return bool(await tx.fetchval(LOCK_LIVE_DATASET, dataset_id))


async def save_stamps(tx: Tx, stamps: Mapping[int, str | None]) -> None:
    """Save newer stamps of documents whose text did not change."""
    await tx.execute(
        "UPDATE documents d SET stamp = n.stamp FROM unnest($1::bigint[], $2::text[]) n (id, stamp) "
        "WHERE d.id = n.id AND d.id = ANY($1)",
        list(stamps),
        list(stamps.values()),
    )


async def move(tx: Tx, moves: Mapping[int, IncomingDocument]) -> None:
    """Give documents their new URI; chunks and vectors stay."""
    await tx.execute(
        "UPDATE documents d SET uri = n.uri, stamp = n.stamp FROM unnest($1::bigint[], $2::text[], $3::text[]) n "
        "(id, uri, stamp) WHERE d.id = n.id AND d.id = ANY($1)",
        list(moves),
        [document.uri for document in moves.values()],
        [document.stamp for document in moves.values()],
    )


UPSERT_DOCUMENTS = """
INSERT INTO documents AS d (dataset_id, uri, title, format, stamp, content_hash, chunk_count, key, fields, metadata, recipe)
SELECT $1, n.*, $2 FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::int[], $9::jsonb[], $10::jsonb[], $11::jsonb[]) n
ON CONFLICT (dataset_id, uri) DO UPDATE SET
    title = EXCLUDED.title, format = EXCLUDED.format, stamp = EXCLUDED.stamp, content_hash = EXCLUDED.content_hash,
    recipe = EXCLUDED.recipe, chunk_count = EXCLUDED.chunk_count, version = d.version + 1, updated_at = now(), content = NULL,
    -- whoever chunks a row again does not know them
    key = coalesce(EXCLUDED.key, d.key), fields = coalesce(EXCLUDED.fields, d.fields)
RETURNING id, uri, version
"""


async def replace(
    tx: Tx,
    dataset_id: UUID,
    chunked: Sequence[tuple[IncomingDocument, Sequence[ChunkDraft]]],
    recipe: str,
    space_id: int,
) -> WriteResult:
    """Replace documents and their chunks for a space by exactly these. A chunk whose text is equal keeps its row.

    `chunked` has each URI once at most. For the other spaces of the dataset the documents wait to be chunked.
    """
    written = WriteResult()
    if not chunked:
        return written
    ordered = sorted(chunked, key=lambda pair: pair[0].uri)  # the same order everywhere prevents deadlocks
    rows = await tx.fetch(
        UPSERT_DOCUMENTS,
        dataset_id,
        recipe,
        [document.uri for document, _ in ordered],
        [document.title for document, _ in ordered],
        [document.format for document, _ in ordered],
        [document.stamp for document, _ in ordered],
        [digest(document.text) for document, _ in ordered],
        [len(chunks) for _, chunks in ordered],
        [_json(document.key) for document, _ in ordered],
        [_json(document.fields) for document, _ in ordered],
        [_json(document.metadata or {}) for document, _ in ordered],
    )
    # of a document that is there, what was said before stays unless this one says something
    await document_records.save_metadata(tx, dataset_id, [document for document, _ in ordered])
    ids = {row["uri"]: row["id"] for row in rows}
    await _done(tx, list(ids.values()), space_id)
    await tx.execute(DUE_NOW, dataset_id, list(ids.values()), space_id)
    written.counts.documents_new = sum(row["version"] == 1 for row in rows)
    written.counts.documents_changed = len(rows) - written.counts.documents_new
    stored = await _stored(tx, [row["id"] for row in rows if row["version"] > 1], space_id)
    await tx.execute(
        "UPDATE chunks SET space_id = $2 WHERE document_id = ANY($1) AND space_id = 0", list(stored), space_id
    )
    revisions = {ids[document.uri]: revise(stored.get(ids[document.uri], []), chunks) for document, chunks in ordered}
    await _apply(tx, dataset_id, space_id, revisions, written)
    return written


async def replace_chunks(
    tx: Tx, dataset_id: UUID, space_id: int, chunked: Sequence[tuple[int, Sequence[ChunkDraft]]]
) -> None:
    """Replace the chunks that documents have for a space which is not the one that is searched; the documents stay."""
    ids = [document_id for document_id, _ in chunked]
    await _done(tx, ids, space_id)
    stored = await _stored(tx, ids, space_id)
    revisions = {document_id: revise(stored.get(document_id, []), chunks) for document_id, chunks in chunked}
    await _apply(tx, dataset_id, space_id, revisions, WriteResult())


# the dataset may be searched in another space by now than when its documents were chunked
DUE_NOW = """
INSERT INTO chunk_work (space_id, document_id)
SELECT d.space_id, n.id FROM datasets d CROSS JOIN unnest($2::bigint[]) n (id) WHERE d.id = $1 AND d.space_id <> $3
ON CONFLICT DO NOTHING
"""


async def _done(tx: Tx, document_ids: Sequence[int], space_id: int) -> None:
    await tx.execute(
        "DELETE FROM chunk_work WHERE space_id = $2 AND document_id = ANY($1)", list(document_ids), space_id
    )


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


async def preview(
    tx: ReadTx, dataset_id: UUID, chunked: Sequence[tuple[IncomingDocument, Sequence[ChunkDraft]]], space_id: int
) -> WriteResult:
    """Return what `replace` would do; chunks to embed have numbers in place of ids, since they have none yet."""
    there = await by_uri(tx, dataset_id, [document.uri for document, _ in chunked])
    stored = await _stored(tx, [one.id for one in there.values()], space_id)
    written = WriteResult(RunCounts(documents_new=len(chunked) - len(there), documents_changed=len(there)))
    for document, chunks in chunked:
        before = there.get(document.uri)
        revision = revise([] if before is None else stored.get(before.id, []), chunks)
        written.counts += _counts([revision])
        due = [*(chunk for _, chunk in revision.updated), *revision.new]
        start = len(written.pending)
        written.pending.update({start + n: chunk.tokens for n, chunk in enumerate(due) if chunk.vector_text})
        written.texts += [chunk.vector_text for chunk in due if chunk.vector_text]
    return written


def _counts(revisions: Iterable[Revision]) -> RunCounts:
    """Count what revisions do, in chunks."""
    counts = RunCounts()
    for revision in revisions:
        counts.chunks_new += len(revision.new)
        counts.chunks_updated += len(revision.updated)
        counts.chunks_skipped += revision.kept
        counts.chunks_deleted += len(revision.gone)
    return counts


async def _stored(tx: ReadTx, document_ids: Sequence[int], space_id: int) -> dict[int, list[StoredChunk]]:
    # a chunk that another program wrote is of every space, and may have no hash yet
    rows = await tx.fetch(
        "SELECT document_id, id, ordinal, content, heading, line_start, line_end, "
        "coalesce(content_hash, sha256(convert_to(vector_text, 'UTF8'))) AS digest "
        "FROM chunks WHERE document_id = ANY($1) AND space_id IN (0, $2) ORDER BY document_id, ordinal",
        list(document_ids),
        space_id,
    )
    stored: dict[int, list[StoredChunk]] = {}
    for document_id, *values in rows:
        stored.setdefault(document_id, []).append(StoredChunk(*values))
    return stored


async def _apply(
    tx: Tx, dataset_id: UUID, space_id: int, revisions: Mapping[int, Revision], written: WriteResult
) -> None:
    """Write revisions.

    A chunk with another text gets another row: an update would write the vector of the old text into the HNSW graph once
    more, only to replace it later, which costs as much as the new one.
    """
    every = revisions.values()
    gone = [row_id for revision in every for row_id in (*revision.gone, *(old for old, _ in revision.updated))]
    new = [
        (document_id, chunk)
        for document_id, revision in revisions.items()
        for chunk in (*revision.new, *(chunk for _, chunk in revision.updated))
    ]
    await tx.execute("DELETE FROM chunks WHERE id = ANY($1)", gone)
    await _move(tx, [pair for revision in every for pair in revision.moved])
    await _rewrite(tx, [pair for revision in every for pair in revision.reworded])
    written.pending = {
        row_id: chunk.tokens for row_id, chunk in await _insert(tx, dataset_id, space_id, new) if chunk.vector_text
    }
    written.counts += _counts(every)


async def _move(tx: Tx, moved: Sequence[tuple[int, ChunkDraft]]) -> None:
    if moved:
        await tx.execute(
            "UPDATE chunks c SET ordinal = n.ordinal, heading = n.heading, line_start = n.line_start, line_end = n.line_end "
            "FROM unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::int[]) n (id, ordinal, heading, line_start, "
            "line_end) WHERE c.id = n.id AND c.id = ANY($1)",
            [row_id for row_id, _ in moved],
            *_columns([chunk for _, chunk in moved])[:4],
        )


async def _rewrite(tx: Tx, pairs: Sequence[tuple[int, ChunkDraft]]) -> None:
    if pairs:
        await tx.execute(
            "UPDATE chunks c SET ordinal = n.ordinal, heading = n.heading, line_start = n.line_start, "
            "line_end = n.line_end, content = n.content, vector_text = n.vector_text, content_hash = n.content_hash, "
            "tokens = n.tokens FROM unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::int[], $6::text[], "
            "$7::text[], $8::bytea[], $9::int[]) n (id, ordinal, heading, line_start, line_end, content, vector_text, "
            "content_hash, tokens) WHERE c.id = n.id AND c.id = ANY($1)",
            [row_id for row_id, _ in pairs],
            *_columns([chunk for _, chunk in pairs]),
        )


async def _insert(
    tx: Tx, dataset_id: UUID, space_id: int, new: Sequence[tuple[int, ChunkDraft]]
) -> list[tuple[int, ChunkDraft]]:
    if not new:
        return []
    rows = await tx.fetch(
        "INSERT INTO chunks (dataset_id, space_id, document_id, ordinal, heading, line_start, line_end, content, "
        "vector_text, content_hash, tokens) SELECT $1, $2, n.* FROM unnest($3::bigint[], $4::int[], $5::text[], $6::int[], "
        "$7::int[], $8::text[], $9::text[], $10::bytea[], $11::int[]) n RETURNING id, document_id, ordinal",
        dataset_id,
        space_id,
        [document_id for document_id, _ in new],
        *_columns([chunk for _, chunk in new]),
    )
    ids = {(row["document_id"], row["ordinal"]): row["id"] for row in rows}
    return [(ids[document_id, chunk.ordinal], chunk) for document_id, chunk in new]


def _columns(chunks: Sequence[ChunkDraft]) -> list[list[Any]]:
    names = ("ordinal", "heading", "line_start", "line_end", "content", "vector_text", "digest", "tokens")
    return [[getattr(chunk, name) for chunk in chunks] for name in names]


async def remove(tx: Tx, document_ids: Sequence[int]) -> RunCounts:
    """Delete documents with their chunks, and return the counts."""
    gone = await tx.fetchrow(
        "WITH d AS (DELETE FROM documents WHERE id = ANY($1) RETURNING id) "
        "SELECT (SELECT count(*) FROM d) AS documents, (SELECT count(*) FROM chunks c JOIN datasets s ON s.id = c.dataset_id "
        "WHERE c.document_id = ANY($1) AND c.space_id IN (0, s.space_id)) AS chunks",
        list(document_ids),
    )
    assert gone is not None  # an aggregate always has a row
    return RunCounts(documents_deleted=gone["documents"], chunks_deleted=gone["chunks"])


async def every(tx: ReadTx, dataset_id: UUID, *, batch: int = 5000) -> AsyncIterator[list[tuple[int, str]]]:
    """Yield `(id, uri)` of every text document of a dataset, in batches ordered by URI."""
    reached = ""
    while rows := await tx.fetch(
        # no listing has images and sounds: whoever added them removes them
        "SELECT id, uri FROM documents d WHERE dataset_id = $1 AND uri > $2 "
        "AND NOT EXISTS (SELECT FROM media m WHERE m.document_id = d.id) ORDER BY uri LIMIT $3",
        dataset_id,
        reached,
        batch,
    ):
        yield [(row["id"], row["uri"]) for row in rows]
        reached = rows[-1]["uri"]


@dataclass(frozen=True)
class DatasetTotals:
    """The size of a dataset; `tokens` is what embedding all of it would take."""

    documents: int
    chunks: int
    tokens: int


TOTALS = """
SELECT (SELECT count(*) FROM documents WHERE dataset_id = $1), count(*), coalesce(sum(tokens), 0)::bigint
FROM chunks WHERE dataset_id = $1 AND space_id IN (0, $2)
"""


async def totals(tx: ReadTx, dataset_id: UUID, space_id: int) -> DatasetTotals:
    """Return documents, chunks for a space and their tokens of a dataset, counted from indexes alone."""
    row = await tx.fetchrow(TOTALS, dataset_id, space_id)
    assert row is not None  # an aggregate always has a row
    return DatasetTotals(*row)


async def tokens_of(tx: ReadTx, chunk_ids: Sequence[int]) -> int:
    """Return the sum of the tokens of some chunks."""
    tokens: int = await tx.fetchval(
        "SELECT coalesce(sum(tokens), 0)::bigint FROM chunks WHERE id = ANY($1)", list(chunk_ids)
    )
    return tokens
