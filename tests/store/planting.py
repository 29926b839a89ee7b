"""Rows for the tests of the store, put in as any other program would: by SQL, with no help from Evervec."""

from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.protocols import ModelProbe
from evervec.store import datasets, providers
from evervec.store.database.session import Database, ReadTx, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.providers import ProviderDraft, Space
from evervec.store.schema.embeddables import ATOM, CHUNK, MESSAGE, TOPIC, Embeddable
from evervec.store.spaces import spaces

INSERTS = {
    MESSAGE: "INSERT INTO messages (dataset_id, chat, external_id, author, content) "
    "VALUES ($1, 'chat', gen_random_uuid()::text, 'dev', $2) RETURNING id",
    TOPIC: "INSERT INTO topics (dataset_id, name) VALUES ($1, $2) RETURNING id",
    ATOM: "INSERT INTO atoms (dataset_id, type, title, content, confidence) "
    "VALUES ($1, 'insight', 'title', $2, 0.5) RETURNING id",
    CHUNK: "WITH d AS (INSERT INTO documents (dataset_id, uri) VALUES ($1, gen_random_uuid()::text) RETURNING id) "
    "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) "
    "SELECT $1, d.id, 0, 'part', $2 FROM d RETURNING id",
}
OTHER_COLUMN = {MESSAGE: "author", TOPIC: "updated_at", ATOM: "title", CHUNK: "content"}


async def plant(psql: Any, embeddable: Embeddable, dataset_id: UUID, text: str) -> int:
    """Insert one row with this vector text and return its id."""
    row_id: int = await psql.fetchval(INSERTS[embeddable], dataset_id, text)
    return row_id


async def edit(psql: Any, embeddable: Embeddable, row_id: int, text: str) -> None:
    """Give a row another vector text."""
    await psql.execute(f"UPDATE {embeddable.table} SET {embeddable.columns[0]} = $2 WHERE id = $1", row_id, text)


async def record(psql: Any, embeddable: Embeddable, row_id: int) -> Any:
    """Return the row's record in `embeddings`, with what PostgreSQL knows of that version of it; None if there is none."""
    return await psql.fetchrow(
        "SELECT *, xmin::text AS version, ctid::text AS place FROM embeddings WHERE kind = $1 AND row_id = $2",
        embeddable.kind,
        row_id,
    )


async def embed_all(psql: Any, *, vector: str = "[1,2,3]") -> None:
    """Give every pending row the same vector."""
    await psql.execute(
        "UPDATE embeddings SET embedding = $1::text::vector, embedded_hash = content_hash, "
        "embedded_at = now() WHERE content_hash IS NOT NULL AND embedded_hash IS DISTINCT FROM content_hash",
        vector,
    )


async def tombstones(psql: Any) -> list[tuple[int, UUID]]:
    """Return `(vector id, dataset id)` of every tombstone, in order."""
    return [tuple(row) for row in await psql.fetch("SELECT vector_id, dataset_id FROM vector_tombstones ORDER BY id")]


async def space(database: Database, dimensions: int, *, model: str = "model", indexed: bool = False) -> Space:
    """Make a space of that width the default, and the one of every dataset."""
    async with database.transaction() as tx:
        added = await providers.add(tx, ProviderDraft(model, "ollama", model=model), ModelProbe(dimensions))
        await search_all_in(tx, added.space)
    if indexed:
        await hnsw.build_indexes(database, added.space.id, dimensions)
    return added.space


async def space_of(tx: ReadTx, dataset: DatasetRef) -> int:
    """Return the space that a dataset is searched in now."""
    found: int = await tx.fetchval("SELECT space_id FROM datasets WHERE id = $1", dataset.id)
    return found


async def search_all_in(tx: Tx, chosen: Space) -> None:
    """Make a space the default, and the one of every dataset, none of which has a vector."""
    former = await spaces.default(tx)
    if former != chosen.id:
        await spaces.move(tx, [one.id for one in await datasets.live(tx)], former, chosen.id)
        await spaces.make_default(tx, chosen.id)


def unit(count: int, dimensions: int, *, seed: int = 7) -> NDArray[np.float32]:
    """Return `(count, dimensions) float32` random directions, the same for the same seed."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)
