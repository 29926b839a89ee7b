"""The rows that wait to be embedded, read as a claim would read them, and nothing leased: for plans."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from evervec.store.database.session import ReadTx
from evervec.store.providers import Space
from evervec.store.schema.embeddables import BY_KIND, CHUNK

WAITING = """
SELECT e.pending_id AS place, e.kind, e.row_id, e.content_hash
FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id
WHERE e.dataset_id = $1 AND e.pending_id > $2 AND ($3::smallint IS NULL OR e.kind = $3) ORDER BY e.pending_id LIMIT $4
"""


@dataclass(frozen=True)
class WaitingTexts:
    """A page of waiting rows: the texts of those that can be read, and where the next page begins (None: there is none)."""

    texts: Sequence[str]
    after: int | None


async def waiting(tx: ReadTx, dataset_id: UUID, *, after: int = 0, kind: int | None = None, limit: int) -> WaitingTexts:
    """Return the texts of the next waiting rows of a dataset, oldest first, as claims take them."""
    return await _read(tx, await tx.fetch(WAITING, dataset_id, after, kind, limit), limit)


# chunks are made anew for another space, but those of every space
OF_EVERY_SPACE = f"""
SELECT e.vector_id AS place, e.kind, e.row_id, e.content_hash
FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id
WHERE e.dataset_id = $1 AND e.vector_id > $2 AND e.content_hash IS NOT NULL
  AND (e.kind <> {CHUNK.kind} OR EXISTS (SELECT FROM chunks c WHERE c.id = e.row_id AND c.space_id = 0))
ORDER BY e.vector_id LIMIT $3
"""


async def of_every_space(tx: ReadTx, dataset_id: UUID, *, after: int = 0, limit: int) -> WaitingTexts:
    """Return the texts of the next rows of a dataset that a build of another space takes in as they are."""
    return await _read(tx, await tx.fetch(OF_EVERY_SPACE, dataset_id, after, limit), limit)


async def _read(tx: ReadTx, found: Sequence[Mapping[str, Any]], limit: int) -> WaitingTexts:
    texts: dict[tuple[int, int], str] = {}
    for number in {row["kind"] for row in found}:
        one = BY_KIND[number]
        ids = [row["row_id"] for row in found if row["kind"] == number]
        read = await tx.fetch(f"SELECT r.{one.key}, {one.text} FROM {one.table} r WHERE r.{one.key} = ANY($1)", ids)
        texts.update({(number, row[0]): row[1] for row in read})
    ordered = [(row["content_hash"], texts.get((row["kind"], row["row_id"]))) for row in found]
    readable = [text for digest, text in ordered if text is not None and sha256(text.encode()).digest() == digest]
    return WaitingTexts(readable, found[-1]["place"] if len(found) == limit else None)


async def embedded(tx: ReadTx, space: Space, hashes: Collection[bytes]) -> set[bytes]:
    """Return those digests of texts that have a vector of a space's model: rows of these texts are not sent."""
    rows = await tx.fetch(
        "SELECT DISTINCT embedded_hash FROM embeddings WHERE embedded_hash = ANY($1) AND space_id = ANY(ARRAY("
        "SELECT id FROM embedding_spaces WHERE (provider, model, dimensions) = ($2, $3, $4)))",
        list(hashes),
        space.provider,
        space.model,
        space.dimensions,
    )
    return {row["embedded_hash"] for row in rows}
