"""What the tests of pictures and sounds share: files of each kind, a provider that describes them, and what came of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from evervec import Document
from evervec.pipeline.ingest.documents import IngestResult, ingest_documents
from evervec.pipeline.resources import Resources
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import add, batched

BEGINNINGS = {
    ".png": b"\x89PNG\r\n\x1a\n",
    ".jpg": b"\xff\xd8\xff\xe0",
    ".gif": b"GIF89a",
    ".webp": b"RIFF\x00\x00\x00\x00WEBP",
    ".wav": b"RIFF\x00\x00\x00\x00WAVE",
    ".mp3": b"ID3\x04",
    ".flac": b"fLaC",
}
CREATE = {"gemini": "POST :batchGenerateContent", "openai": "POST /v1/batches"}

STATE = """
SELECT d.title, m.described_hash IS NOT DISTINCT FROM m.content_hash AS described,
       m.failed_hash IS NOT DISTINCT FROM m.content_hash AS failed, m.error, m.job_id IS NOT NULL AS held, m.tries
FROM media m JOIN documents d ON d.id = m.document_id ORDER BY d.id
"""
TEXTS = "SELECT c.content FROM chunks c JOIN documents d ON d.id = c.document_id ORDER BY d.uri, c.ordinal"
VECTOR_TEXTS = "SELECT c.vector_text FROM chunks c ORDER BY c.id"


@asynccontextmanager
async def describing(bare: Resources, fake: FakeProvider, type_: str, **changed: Any) -> AsyncIterator[Resources]:
    """Add a provider of that type with a batch API and a chat model."""
    async with batched(bare, fake, type_, **changed) as resources:
        await add(resources, fake, type_, chat_model="describer")
        yield resources


def written(folder: Path, name: str, content: str = "") -> Path:
    """Write a file that begins as its ending says; its name and `content` make it different from all others."""
    path = folder / name
    path.write_bytes(bytes_of(name, content))
    return path


def bytes_of(name: str, content: str = "") -> bytes:
    """Return what `written` writes."""
    return BEGINNINGS[Path(name).suffix] + f"{name} {content}".encode()


async def ingest(resources: Resources, *paths: Path, mode: str = "async") -> IngestResult:
    """Take files in, into the dataset of the fixture."""
    return await ingest_as(resources, [Document.from_path(path) for path in paths], mode=mode)


async def ingest_as(resources: Resources, given: list[Document], mode: str = "async") -> IngestResult:
    """Ingest documents."""

    async def each() -> AsyncIterator[Document]:
        for one in given:
            yield one

    return await ingest_documents(resources, each(), project="river", dataset="log", mode=mode)


async def state(psql: Any) -> dict[str, tuple[Any, ...]]:
    """Return `(described, failed, error, held, tries)` of every file, by its title."""
    return {title: tuple(rest) for title, *rest in await psql.fetch(STATE)}


WAITING = (False, False, None, False, 0)
DESCRIBED = (True, False, None, False, 0)


async def texts(psql: Any) -> list[str]:
    """Return the text of every chunk."""
    return [row["content"] for row in await psql.fetch(TEXTS)]
