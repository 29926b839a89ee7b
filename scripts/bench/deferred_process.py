"""One process of a batch benchmark: do one thing, and print on stdout what it took."""

import asyncio
import random
import sys
import sysconfig
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

import orjson
import typer
import uvloop

from evervec import log
from evervec.domain.batch import Line
from evervec.domain.documents.document import IncomingDocument
from evervec.library.core import SemanticCore
from evervec.pipeline import chunking
from evervec.pipeline.batch.collect import LINES
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.chunking import Chunker
from evervec.pipeline.ingest.documents import TOGETHER
from evervec.pipeline.resources import Resources
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.sources.files.readers.document import read_file
from evervec.store.batch import batch_jobs
from evervec.store.embeddings import vectors

MOST_BYTES = 20_000_000
PARTS = 5

BARE = (
    "CREATE TABLE bare_chunks (LIKE chunks INCLUDING DEFAULTS INCLUDING IDENTITY)",
    "ALTER TABLE bare_chunks ADD PRIMARY KEY (id)",
)
COLUMNS = (
    "dataset_id", "document_id", "ordinal", "heading", "line_start", "line_end", "content", "vector_text", "content_hash",
    "tokens",
)  # fmt: skip

command = typer.Typer(add_completion=False)


@command.command()
def flush() -> None:
    """Send everything that waits."""
    _run(_flush())


async def _flush() -> dict[str, Any]:
    async with _opened() as runtime:
        before, started = _megabytes("VmRSS"), perf_counter()
        flushed = await BatchManager(runtime.resources).flush_queue()
        seconds = perf_counter() - started
        sent = {"jobs": len(flushed.jobs), "rows": flushed.rows, "tokens": flushed.tokens}
        return {**sent, "seconds": seconds, **_memory(before)}


@command.command()
def send(file: Path) -> None:
    """Make the lines of a file of texts, bring them over and create their job: what a flush can not do without."""
    _run(_send(file.read_text().splitlines()))


async def _send(texts: Sequence[str]) -> dict[str, Any]:
    async with _opened() as runtime:
        client = runtime.resources.clients.batch_client(await runtime.resources.provider())
        intent, started = uuid4(), perf_counter()
        with TemporaryDirectory(prefix="evervec-bench-") as folder:
            path = Path(folder) / "input.jsonl"
            path.write_bytes(b"".join(client.line(Line(f"message:{n}", text)) for n, text in enumerate(texts)))
            await client.create_embedding_job(intent, await client.upload(intent, path))
            return {"seconds": perf_counter() - started, "bytes": path.stat().st_size}


@command.command()
def read() -> None:
    """Read the results of every open job, and let go of them."""
    _run(_read())


async def _read() -> dict[str, Any]:
    async with _opened() as runtime:
        provider = await runtime.resources.provider()
        client = runtime.resources.clients.batch_client(provider)
        async with runtime.resources.database.read() as tx:
            jobs = await batch_jobs.unfinished(tx)
        before, started, lines = _megabytes("VmRSS"), perf_counter(), 0
        for job in jobs:
            remote = await client.get_job_status(str(job.external_id))
            async for results in client.download_results(remote, lines=LINES, dimensions=provider.space.dimensions):
                lines += len(results.keys)
        return {"lines": lines, "seconds": perf_counter() - started, **_memory(before)}


@command.command()
def sync() -> None:
    """Take in what is done, and clean up."""
    _run(_sync())


async def _sync() -> dict[str, Any]:
    async with _opened() as runtime:
        written = _timed_writes()
        before, started = _megabytes("VmRSS"), perf_counter()
        synced = await BatchManager(runtime.resources).check_and_sync()
        seconds = perf_counter() - started
        reported = {"ready": synced.ready, "problems": synced.problems, "seconds": seconds, "write": sum(written)}
        return {**reported, **_memory(before)}


def _timed_writes() -> list[float]:
    """Seconds of each statement that writes vectors, from now on: with an HNSW index most of the time is PostgreSQL's."""
    taken: list[float] = []
    write = vectors.update_vectors_bulk

    async def timed(*given: Any) -> set[int]:
        started = perf_counter()
        written = await write(*given)
        taken.append(perf_counter() - started)
        return written

    vectors.update_vectors_bulk = timed  # type: ignore[assignment]  # this process does nothing else
    return taken


@command.command()
def ingest(share: float, alone: bool = False) -> None:
    """Documents for a batch job, part by part; unless `alone` each part bare as well, in every second part before that."""
    _run(_ingest(share, alone=alone))


async def _ingest(share: float, *, alone: bool) -> dict[str, Any]:
    parts, counted = await asyncio.to_thread(_parts, share), 0
    async with _opened() as runtime:
        sides = await _Sides.over(runtime)
        reported: dict[str, list[float]] = {"ours": [], "bare": [], "rows": [], "megabytes": []}
        for number, paths in enumerate(parts):
            documents = await asyncio.to_thread(_read_files, paths)
            counted += len(documents)
            turn = [("ours", sides.ours), ("bare", sides.bare)][: 1 if alone else 2]
            for name, side in turn if number % 2 == 0 else reversed(turn):
                started = perf_counter()
                await side(documents)
                reported[name].append(perf_counter() - started)
            reported["rows"].append(sides.rows)
            del documents  # what the benchmark holds is not what is measured
            reported["megabytes"].append(_megabytes("VmRSS"))
        counts = {"documents": counted, "deferred": sides.deferred, "copied": sides.copied}
        return {**reported, **counts, "chunking": sides.chunking, "peak": _megabytes("VmHWM")}


class _Sides:
    """The same documents taken in as a caller does it, and chunked and copied with nothing else."""

    def __init__(self, resources: Resources, core: SemanticCore, chunker: Chunker, dataset_id: object) -> None:
        self._database, self._core, self._chunker, self._dataset_id = resources.database, core, chunker, dataset_id
        self.rows = self.deferred = self.copied = 0
        self.chunking = 0.0

    @classmethod
    async def over(cls, runtime: Runtime) -> "_Sides":
        """Both sides, with everything that is loaded once a process loaded."""
        core, chunker = (
            SemanticCore.over(runtime.resources, project="bench", dataset="ours"),
            await chunking.default(runtime.resources),
        )
        async with runtime.resources.database.transaction() as tx:
            for statement in BARE:
                await tx.execute(statement)
        await core.ingest(IncomingDocument("warm", "", "def warm():\n    return 1\n", "python"), mode="async")
        async with runtime.resources.database.read() as tx:
            dataset_id = await tx.fetchval("SELECT dataset_id FROM documents WHERE uri = 'warm'")
        return cls(runtime.resources, core, chunker, dataset_id)

    async def ours(self, documents: Sequence[IncomingDocument]) -> None:
        """As a caller does it."""
        ingested = await self._core.ingest(documents, mode="async")
        self.rows += ingested.chunks_new
        self.deferred += ingested.deferred

    async def bare(self, documents: Sequence[IncomingDocument]) -> None:
        """Chunked as many at a time, and copied into a table with nothing but its key."""
        for start in range(0, len(documents), TOGETHER):
            begun = perf_counter()
            chunked = await asyncio.to_thread(self._chunker.chunk, documents[start : start + TOGETHER])
            self.chunking += perf_counter() - begun
            records = [
                (self._dataset_id, place, c.ordinal, c.heading, c.line_start, c.line_end, c.content, c.vector_text,
                 c.digest, c.tokens)
                for place, (_, chunks) in enumerate(chunked, start)
                for c in chunks
            ]  # fmt: skip
            async with self._database.transaction() as tx:
                self.copied += await tx.copy("bare_chunks", COLUMNS, records)


def _parts(share: float) -> list[list[Path]]:
    """Return a random share of the files of Python's standard library, in parts of about equal size. Blocking."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    random.Random(1).shuffle(paths)
    sizes = [path.stat().st_size for path in paths]
    total, reached = sum(sizes) * share, 0
    parts: list[list[Path]] = [[] for _ in range(PARTS)]
    for path, size in zip(paths, sizes, strict=True):
        if reached < total:
            parts[int(reached * PARTS / total)].append(path)
        reached += size
    return parts


def _read_files(paths: Sequence[Path]) -> list[IncomingDocument]:
    """Read files as documents, without those that are none. Blocking."""
    found = [read_file(path, most_bytes=MOST_BYTES) for path in paths]
    return [one for one in found if isinstance(one, IncomingDocument)]


@asynccontextmanager
async def _opened() -> AsyncIterator[Runtime]:
    """Everything open, and the provider's library loaded, which takes seconds once a process."""
    async with open_runtime(Settings(), queue=False, migrate=False) as runtime:
        provider = await runtime.resources.provider()
        runtime.resources.clients.embedder(provider)
        runtime.resources.clients.batch_client(provider)
        yield runtime


def _memory(before: float) -> dict[str, float]:
    return {"before": before, "peak": _megabytes("VmHWM")}


def _megabytes(field: str) -> float:
    """Of this process: `VmRSS` is what it has in memory, `VmHWM` the most it ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> None:
    log.configure("ERROR")
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(work)))


if __name__ == "__main__":
    command()
