"""What the tests of watching share: a watch that is told when to stop, who writes down what it says, what it kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.watch import watch
from evervec.pipeline.resources import Resources
from evervec.sources.files.file_uris import path_of
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord
from tests.e2e.waiting import eventually

KEPT = """
SELECT d.uri, coalesce(string_agg(c.content, '' ORDER BY c.ordinal), '') AS text
FROM documents d LEFT JOIN chunks c ON c.document_id = d.id GROUP BY d.id
"""
IDS = "SELECT id FROM documents ORDER BY id"


def section(name: str, words: int = 40) -> str:
    """Return a section of a Markdown file that becomes one chunk."""
    return f"## {name}\n\n" + " ".join(f"{name}{n}" for n in range(words)) + "\n\n"


async def embed(resources: Resources, psql: Any) -> None:
    """Embed what waits, as a worker does."""
    await embed_dataset(resources, await psql.fetchval("SELECT id FROM datasets"))


class Writer:
    """A teller that writes down what it is told."""

    def __init__(self) -> None:
        self.runs: list[RunRecord] = []
        self.notes: list[str] = []
        self.begun = asyncio.Event()
        self.ending: asyncio.Task[None] | None = None

    def indexed(self, run: RunRecord) -> None:
        self.runs.append(run)

    def note(self, text: str) -> None:
        self.notes.append(text)

    async def started(self, dataset: DatasetRef) -> None:
        self.begun.set()

    async def says(self, word: str) -> None:
        """Wait for a note with a word in it."""
        await eventually(f"{word!r} among {self.notes}", _answer(lambda: any(word in note for note in self.notes)))


@asynccontextmanager
async def watched(resources: Resources, *paths: Path, **options: Any) -> AsyncIterator[Writer]:
    """Start a watch of some paths, and yield when it has indexed everything once."""
    writer, finish, poll = Writer(), asyncio.Event(), options.pop("poll", None)
    files = FileSelection(list(paths), **options)
    watching = asyncio.create_task(watch(resources, "p", "docs", files, writer, finish, poll=poll))
    beginning = asyncio.create_task(writer.begun.wait())
    try:
        await asyncio.wait({watching, beginning}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        assert writer.begun.is_set()
        writer.ending = watching
        try:
            yield writer
        except AssertionError:
            if watching.done():
                watching.result()  # what ended it says more
            raise
        finish.set()
        await asyncio.wait_for(watching, 60)
    finally:
        beginning.cancel()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def kept(psql: Any) -> dict[str, str]:
    """Return the text of every document in the database, by the name of its file."""
    return {path_of(row["uri"]).name: row["text"] for row in await psql.fetch(KEPT)}


async def until_kept(psql: Any, **texts: str | None) -> float:
    """Wait until documents (`a` for a.md) have these texts, or are gone for None; how long that took."""

    async def same() -> bool:
        found = await kept(psql)
        return all(found.get(f"{name}.md") == text for name, text in texts.items())

    return await eventually(f"in the database: {texts}", same)


def _answer(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def answer() -> bool:
        return holds()

    return answer
