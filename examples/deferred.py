"""Half the price for what can wait: 5,000 chunks of Python's documentation, embedded by a provider's batch API.

    .venv/bin/python examples/deferred.py

By itself this speaks to a pretended Gemini on this machine, and costs nothing. With GEMINI_API_KEY set it speaks to the
real one: it says what that would cost, and asks first. PostgreSQL is started for it and thrown away at the end.
"""

import ast
import asyncio
import os
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import groupby, islice
from pathlib import Path
from subprocess import PIPE
from sys import executable
from typing import Any

from rich.console import Console
from rich.table import Table

from evervec import BatchJob, Document, SemanticCore

ROOT = Path(__file__).resolve().parents[1]
STRINGS = 4_000
PRICE = 0.15
"""Dollars for a million tokens of gemini-embedding-001, online; a batch job takes half."""

terminal = Console(highlight=False)
say = terminal.print


async def main() -> None:
    """Queue, send, collect, search; then what it came to."""
    documents = list(documentation())
    key = os.environ.get("GEMINI_API_KEY")
    if key and not agreed(documents):
        return
    with tempfile.TemporaryDirectory(prefix="evervec-deferred-") as home:
        async with gemini(key) as provider, SemanticCore.open(home=home, database_url=None) as core:
            await core.add_provider("gemini", "gemini", model="gemini-embedding-001", price=PRICE, use=True, **provider)
            await embed(core, documents, pause=30 if key else 0.2)
            await search(core, real=bool(key))
            show(await core.batch_manager.list())


async def embed(core: SemanticCore, documents: list[Document], pause: float) -> None:
    """Run the example: write documents without a request, then embed them by batch jobs at half the price."""
    ingested = await core.ingest(documents, mode="async")
    say(f"1. {ingested.documents} documents are {ingested.chunks_new:,} chunks, and wait. Nothing was sent so far.")

    # once is enough; again and again, as here, it also sends what a full provider had no room for
    while True:
        flushed, synced = await core.batch_manager.process_queue(min_batch_size=100)
        for job in flushed.jobs:
            say(f"2. Job {str(job.id)[:13]} is sent: {job.stats['texts']:,} texts, ${job.cost_usd:.4f} at half price.")
        if synced.ready:
            say(f"3. {synced.ready:,} vectors are there, {synced.failed} texts failed.")
        for problem in synced.problems:
            say(f"   {problem}")
        if not synced.running and not flushed.jobs:
            return
        with terminal.status(f"{synced.running + len(flushed.jobs)} jobs run at the provider. A day at most."):
            await asyncio.sleep(pause)


async def search(core: SemanticCore, *, real: bool) -> None:
    """Ask for something. What the pretended provider answers has no meaning: it only knows its own texts again."""
    question = "run several coroutines at the same time"
    if not real:
        async with core.database.read() as tx:
            question = await tx.fetchval("SELECT vector_text FROM chunks ORDER BY id OFFSET 100 LIMIT 1")
    answer = await core.search(question, k=3)
    say(f"4. “{' '.join(question.split())[:60]}…” is nearest to:")
    for hit in answer.hits:
        say(f"   {hit.score:.2f}  {' '.join(hit.text.split())[:90]}", markup=False)


def show(jobs: list[BatchJob]) -> None:
    """Print what each job cost, and what it would have cost online."""
    table = Table("job", "status", title="What it came to", title_justify="left")
    for column in ("texts", "tokens", "online", "deferred", "saved"):
        table.add_column(column, justify="right")
    for job in reversed(jobs):
        table.add_row(str(job.id)[:13], job.status, *cells(job.stats["texts"], job.stats["tokens"], job.cost_usd or 0))
    table.add_section()
    texts, tokens = (sum(job.stats[name] for job in jobs) for name in ("texts", "tokens"))
    table.add_row("together", "", *cells(texts, tokens, sum(job.cost_usd or 0 for job in jobs)))
    say(table)


def cells(texts: int, tokens: int, deferred: float) -> list[str]:
    """One row of the table; online is twice as much."""
    return [f"{texts:,}", f"{tokens:,}", *(f"${usd:.4f}" for usd in (2 * deferred, deferred, deferred))]


def agreed(documents: list[Document]) -> bool:
    """Whether the person at the keyboard wants to pay for this."""
    usd = sum(len(document.text) for document in documents) / 4 * PRICE / 1_000_000
    say(f"With your GEMINI_API_KEY this would cost about ${usd / 2:.3f} (online: ${usd:.3f}). Jobs take up to a day.")
    try:
        return terminal.input("Go on? [y/N] ", markup=False).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def documentation() -> Iterator[Document]:
    """Python's own documentation: a Markdown document for each module, with a section for each of its strings."""
    for module, strings in groupby(islice(docstrings(), STRINGS), key=lambda found: found[0]):
        text = "\n\n".join(f"## {name}\n\n{string}" for _, name, string in strings)
        yield Document.from_text(f"python:{module}", text, title=module, format="markdown")


def docstrings() -> Iterator[tuple[str, str, str]]:
    """Yield `(module, name, documentation)` of what the standard library defines."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        if path.parent.name in ("site-packages", "test", "lib2to3"):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                string = ast.get_docstring(node)
                if string:
                    yield ".".join(path.relative_to(library).with_suffix("").parts), node.name, string


@asynccontextmanager
async def gemini(key: str | None) -> AsyncIterator[dict[str, Any]]:
    """Return the real provider if there is a key; else start a fake one in a process of its own."""
    if key:
        yield {"api_key": key}
        return
    fake = await asyncio.create_subprocess_exec(executable, "-m", "tests.fakes", cwd=ROOT, stdout=PIPE)
    assert fake.stdout is not None  # it was asked for
    try:
        yield {"api_key": "pretended", "base_url": (await fake.stdout.readline()).decode().strip()}
    finally:
        fake.terminate()
        await fake.wait()


if __name__ == "__main__":
    asyncio.run(main())
