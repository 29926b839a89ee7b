"""What the tests of indexing share: a folder as a dataset, what is in the database, and what the provider was sent."""

import os
from pathlib import Path
from typing import Any

from evervec.embedders.vectors import PROBE_TEXTS
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.resources import Resources
from evervec.store.runs import RunRecord
from tests.fakes.server import FakeProvider

OLD = 1_700_000_000

CHUNKS = """
SELECT d.uri, c.ordinal, c.heading, c.line_start, c.line_end, c.content, c.vector_text, c.content_hash,
       e.embedding::text AS vector, e.embedded_hash
FROM chunks c JOIN documents d ON d.id = c.document_id JOIN datasets s ON s.id = d.dataset_id
LEFT JOIN embeddings e ON e.kind = 4 AND e.row_id = c.id AND e.space_id = s.space_id
WHERE c.space_id IN (0, s.space_id) ORDER BY d.uri, c.ordinal
"""


def put(path: Path, text: str) -> Path:
    """Write a file with an old modification time: its stamp can be trusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    seconds = OLD + len(text) + sum(text.encode()) % 1000
    os.utime(path, (seconds, seconds))
    return path


async def ingest(
    resources: Resources, *paths: Path, dataset: str = "docs", project: str = "p", **options: Any
) -> RunRecord:
    """Index folders and files into a dataset."""
    embeds = options.pop("embeds", True)
    chosen = {name: options.pop(name) for name in ("include", "exclude", "most_bytes") if name in options}
    return await ingest_files(
        resources, project, dataset, FileSelection(list(paths), **chosen), RunOptions(**options), embeds=embeds
    )


async def chunks(psql: Any) -> list[tuple[Any, ...]]:
    """Every chunk with its place and its vector, in order."""
    return [tuple(row) for row in await psql.fetch(CHUNKS)]


async def versions(psql: Any) -> list[tuple[Any, ...]]:
    """Return the version of every row of documents, chunks and embeddings: equal ones mean that nothing was written."""
    found: list[tuple[Any, ...]] = []
    for table, key in (("documents", "id"), ("chunks", "id"), ("embeddings", "vector_id")):
        rows = await psql.fetch(f"SELECT {key}, xmin::text, ctid::text FROM {table} ORDER BY {key}")
        found += [(table, *row) for row in rows]
    return found


NOBODYS = {*PROBE_TEXTS, *HEALTH_TEXTS}
"""Texts of no row: they only test whether a provider answers."""


def sent(fake: FakeProvider) -> int:
    """How many texts the provider was sent so far, without those that only test whether it answers."""
    return sum(count for text, count in fake.texts_sent().items() if text not in NOBODYS)
