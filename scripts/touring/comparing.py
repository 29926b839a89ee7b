"""What the tour compares: every row with its document and vector, and the rows that were embedded with those that changed."""

from datetime import datetime
from typing import Any

import numpy as np

from evervec.pipeline.resources import Resources
from scripts.touring.tables import TABLES, TourTable

SAMPLE = 500

DOCUMENTS = """
SELECT d.key::text AS key, string_agg(c.content, '' ORDER BY c.ordinal) AS text, count(*) AS chunks,
       bool_and(e.embedded_hash = e.content_hash AND e.content_hash = sha256(convert_to(c.vector_text, 'UTF8'))) AS embedded,
       min(c.vector_text) AS vector_text, min(e.embedding::text) AS vector, max(e.embedded_at) AS embedded_at
FROM evervec.documents d JOIN evervec.datasets s ON s.id = d.dataset_id JOIN evervec.sources o ON o.id = s.source_id
LEFT JOIN evervec.chunks c ON c.document_id = d.id LEFT JOIN evervec.embeddings e ON e.kind = 4 AND e.row_id = c.id
WHERE (o.name = $1 OR starts_with(o.name, $1 || ' at ')) AND s.deleted_at IS NULL GROUP BY d.id
"""


async def documents(connection: Any, table: TourTable) -> list[Any]:
    """Return the documents of a table."""
    found: list[Any] = await connection.fetch(DOCUMENTS, table.relation)
    return found


async def differences(resources: Resources, connection: Any, tables: Any) -> list[str]:
    """Return what is wrong between our database and that of the tables: a row without its document, a document without its row, a text or vector of another version."""
    wrong = []
    for table in TABLES:
        rows = dict(await tables.fetch(f"SELECT {table.key_json}, {table.text} FROM {table.relation}"))
        found = await documents(connection, table)
        held = {row["key"]: row["text"] for row in found}
        if len(held) != len(found):
            wrong.append(f"{table.relation}: {len(found) - len(held)} rows have two documents")
        wrong += [f"{table.relation} {key}: no document" for key in rows.keys() - held.keys()]
        wrong += [f"{table.relation} {key}: a document without its row" for key in held.keys() - rows.keys()]
        wrong += [f"{table.relation} {key}: {held[key]!r}, not {rows[key]!r}" for key in rows.keys() & held.keys()
                  if held[key] != rows[key]]  # fmt: skip
        wrong += [f"{table.relation} {row['key']}: not embedded" for row in found if not row["embedded"]]
        wrong += await _other_vectors(resources, table, [row for row in found if row["chunks"] == 1][:SAMPLE])
    return wrong


async def _other_vectors(resources: Resources, table: TourTable, some: list[Any]) -> list[str]:
    """Embed some texts again, and compare."""
    embedder = resources.clients.embedder(await resources.provider())
    vectors = await embedder.embed([row["vector_text"] for row in some])
    stored = np.array([np.fromstring(row["vector"].strip("[]"), sep=",") for row in some if row["vector"]])
    if len(stored) != len(some):
        return []  # said already
    near = (np.asarray(vectors) * stored).sum(axis=1) / (
        np.linalg.norm(vectors, axis=1) * np.linalg.norm(stored, axis=1)
    )
    return [f"{table.relation} {row['key']}: the vector of another text" for row, score in zip(some, near, strict=True)
            if score < 0.999]  # fmt: skip


async def embedded_since(connection: Any, moment: datetime) -> set[tuple[str, str]]:
    """Return the rows whose vectors were written after a moment, by table and key."""
    return {
        (table.name, row["key"])
        for table in TABLES
        for row in await documents(connection, table)
        if row["embedded_at"] is not None and row["embedded_at"] > moment
    }
