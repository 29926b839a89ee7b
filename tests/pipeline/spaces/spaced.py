"""What the tests of spaces share: rows of a dataset, what must hold of them in every space, and what a space leaves behind."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from evervec.domain.documents.document import IncomingDocument
from evervec.domain.extraction.message import IncomingMessage
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.ingest.documents import ingest_documents
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.upkeep.janitor import clean_up
from evervec.store import datasets, messages
from evervec.store.datasets import DatasetRef
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_vectors
from tests.pipeline.search.meaning import search

WIDE = 48
TEXT = "# Pages\n\nOne page about rivers.\n\n## Lakes\n\nAnother about lakes and ponds.\n"

# the records that there are, against those that there have to be: of each row one in each space of its dataset, with its hash
DIFFERING = """
WITH row AS (
    SELECT 1 AS kind, id, dataset_id, content AS text, 0 AS only FROM messages
    UNION ALL SELECT 4, id, dataset_id, vector_text, space_id FROM chunks
), place AS (
    SELECT id AS dataset_id, space_id FROM datasets
    UNION ALL SELECT dataset_id, space_id FROM dataset_spaces WHERE state <> 'dropped'
), wanted AS (
    SELECT r.kind, r.id AS row_id, p.space_id, r.dataset_id, sha256(convert_to(r.text, 'UTF8')) AS content_hash
    FROM row r JOIN place p USING (dataset_id) WHERE r.only IN (0, p.space_id)
), there AS (
    SELECT kind, row_id, space_id, dataset_id, content_hash FROM embeddings
)
SELECT 'missing' AS what, * FROM (SELECT * FROM wanted EXCEPT SELECT * FROM there) m
UNION ALL SELECT 'extra', * FROM (SELECT * FROM there EXCEPT SELECT * FROM wanted) e
"""
VECTORS = """
SELECT s.model, s.dimensions, r.text, e.embedding::text AS vector, e.pending_id FROM embeddings e
JOIN embedding_spaces s ON s.id = e.space_id
JOIN (SELECT 1 AS kind, id, content AS text FROM messages UNION ALL SELECT 4, id, vector_text FROM chunks) r
  ON r.kind = e.kind AND r.id = e.row_id
ORDER BY s.id, e.vector_id
"""
# a tombstone is for mirrors, what was spent stays in the ledger, breakers are of providers, and a space stays known by its number
KEPT = (
    "vector_tombstones",
    "embedding_spaces",
    "space_probes",
    "spend",
    "ledger",
    "provider_breakers",
    "leases",
    "mirrors",
)


async def write(resources: Resources, dataset: DatasetRef, *texts: str) -> None:
    """Write messages; the text is the id, too, so that the same text is the same message."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    incoming = [IncomingMessage("telegram:1", text, "dev", at, text) for text in texts]
    async with resources.database.transaction() as tx:
        await messages.upsert(tx, dataset.id, incoming)


async def page(resources: Resources, dataset: DatasetRef, text: str = TEXT, uri: str = "page") -> None:
    """Ingest a document, chunked and embedded."""

    async def pages() -> AsyncIterator[IncomingDocument]:
        yield IncomingDocument(uri, "Pages", text, "markdown")

    await ingest_documents(resources, pages(), project=dataset.project, dataset=dataset.slug, mode="sync")


async def filled(resources: Resources, dataset: DatasetRef) -> None:
    """Embed three messages and a document of two sections."""
    await write(resources, dataset, "one", "two", "three")
    await page(resources, dataset)
    await embed_dataset(resources, dataset.id)


async def another(resources: Resources, name: str = "other") -> DatasetRef:
    """Make another dataset of the same project."""
    async with resources.database.transaction() as tx:
        return await datasets.ensure(tx, "river", name)


async def built(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> None:
    """Build another space of a dataset, or of all, as far as it goes."""
    await start(resources, options, dataset=dataset)
    await fill(resources)


async def recovered(provider: FakeProvider, psql: Any) -> None:
    """Let a provider answer again, and nobody wait until it would be asked again."""
    provider.heal()
    await psql.execute("DELETE FROM provider_breakers")
    await psql.execute("UPDATE embed_work SET not_before = now()")


async def settled(resources: Resources, *of: DatasetRef) -> None:
    """Do all that waits: clean-up, rows that are searched, and those of other spaces."""
    for _ in range(3):
        await clean_up(resources)
        for dataset in of:
            await embed_dataset(resources, dataset.id)
        await fill(resources)


async def require_true(psql: Any) -> None:
    """Require a record of each row in each space of its dataset, no other, each with the vector that its model makes of its text."""
    differing = await psql.fetch(DIFFERING)
    assert not differing, [tuple(row)[:4] for row in differing]
    for row in await psql.fetch(VECTORS):
        assert row["vector"] is not None and row["pending_id"] is None, (row["model"], row["text"])
        stored = np.fromstring(row["vector"].strip("[]"), np.float32, sep=",")
        expected = expected_vectors(row["model"], [row["text"]], row["dimensions"])[0]
        np.testing.assert_allclose(stored, expected, atol=1e-5, err_msg=row["text"])


async def searched_width(resources: Resources, text: str) -> set[int]:
    """Return the widths of the vectors of the hits of a search, after the dataset's present space."""
    answer = await search(resources, text, k=10)
    async with resources.database.read() as tx:
        rows = await tx.fetch(
            "SELECT DISTINCT vector_dims(e.embedding) AS width FROM embeddings e JOIN datasets d ON d.id = e.dataset_id "
            "AND d.space_id = e.space_id WHERE e.row_id = ANY($1) AND e.kind = 1",
            [hit.id for hit in answer.hits if hit.kind == "message"],
        )
    return {row["width"] for row in rows}


async def traces(psql: Any) -> dict[str, Any]:
    """Return all that a space may leave: how many rows each table has, and the names of relations and constraints."""
    tables = [
        row[0]
        for row in await psql.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'evervec'::regnamespace AND relkind = 'r' ORDER BY 1"
        )
    ]
    counts = {name: await psql.fetchval(f"SELECT count(*) FROM evervec.{name}") for name in tables if name not in KEPT}
    names = await psql.fetch(
        "SELECT relname AS name FROM pg_class WHERE relnamespace = 'evervec'::regnamespace "
        "UNION ALL SELECT conname FROM pg_constraint WHERE connamespace = 'evervec'::regnamespace ORDER BY 1"
    )
    return counts | {"names": [row["name"] for row in names]}


def require_no_more(after: dict[str, Any], before: dict[str, Any]) -> None:
    """Require that nothing is there that was not there before."""
    more = {name: (before[name], count) for name, count in after.items() if name != "names" and count > before[name]}
    assert not more, more
    assert not set(after["names"]) - set(before["names"])
