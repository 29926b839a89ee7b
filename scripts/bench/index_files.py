"""Five thousand files, indexed and indexed again unchanged; and Python's standard library, chunked alone and embedded too."""

import os
import sysconfig
import tempfile
from pathlib import Path
from time import perf_counter

from evervec.domain.documents.document import IncomingDocument
from evervec.pipeline import chunking
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.resources import Resources
from evervec.sources.files.readers.document import read_file
from evervec.store.runs import RunRecord
from scripts.bench import texts
from scripts.bench.report import Line, at_least, at_most
from scripts.bench.stack import Bench

FILES = 5_000
SECTIONS = 4
OLD = 1_700_000_000
MEGABYTE = 1_000_000


async def run(bench: Bench) -> list[Line]:
    """Compare the second run over the same files with the first, and measure the share of chunking in a run."""
    async with bench.resources("index_files") as resources:
        with tempfile.TemporaryDirectory(prefix="evervec-bench-files-") as folder:
            lines = await _again(resources, Path(folder), bench.rows(FILES))
    async with bench.resources("index_stdlib") as resources:
        return [*lines, *await _stdlib(resources, quick=bench.quick)]


async def _again(resources: Resources, folder: Path, count: int) -> list[Line]:
    _write(folder, count)
    first = await _ingest(resources, folder)
    versions = await _versions(resources)
    again = [await _ingest(resources, folder) for _ in range(3)]
    written = len(set(await _versions(resources)) ^ set(versions))
    best = min(one.seconds.total for one in again)
    return [
        Line(
            f"{count:,} files: first run against an unchanged one",
            first.seconds.total,
            best,
            "s",
            first.seconds.total / best,
            at_least(20),
            f"{first.counts.chunks_new:,} chunks",
        ),
        Line("unchanged: texts sent", sum(one.counts.texts_sent for one in again), 1, "texts", 0.0, at_most(0)),
        Line("unchanged: rows written", written, 1, "rows", float(written), at_most(0)),
    ]


def _write(folder: Path, count: int) -> None:
    some = texts.messages(count * SECTIONS, seed=7)
    for number in range(count):
        parts = some[number * SECTIONS : (number + 1) * SECTIONS]
        path = folder / f"{number // 100:02}" / f"page{number}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# Page {number}\n\n" + "".join(f"## Part {n}\n\n{text}\n\n" for n, text in enumerate(parts)))
        os.utime(path, (OLD, OLD))  # unchanged for years, so that its stamp is trusted


async def _ingest(resources: Resources, *paths: Path) -> RunRecord:
    return await ingest_files(resources, "bench", "files", FileSelection(list(paths)), RunOptions())


async def _versions(resources: Resources) -> list[tuple[str, int, str]]:
    async with resources.database.read() as tx:
        return [
            (table, *row)
            for table, key in (("documents", "id"), ("chunks", "id"), ("embeddings", "vector_id"))
            for row in await tx.fetch(f"SELECT {key}, xmin::text FROM {table}")
        ]


def _library() -> list[Path]:
    folder = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)


async def _stdlib(resources: Resources, *, quick: bool) -> list[Line]:
    """Chunking by itself in MB/s, and as a share of a whole run over the same files."""
    paths = _library()[: 200 if quick else None]
    read = [read_file(path, most_bytes=20 * MEGABYTE) for path in paths]
    documents = [one for one in read if isinstance(one, IncomingDocument)]
    size = sum(len(one.text.encode()) for one in documents) / MEGABYTE
    chunker = await chunking.default(resources)
    chunker.chunk(documents[:10])  # grammar and tokenizer are loaded once a process
    started = perf_counter()
    chunked = chunker.chunk(documents)
    seconds = perf_counter() - started
    whole = await _ingest(resources, *paths)
    return [
        Line(
            f"standard library, {size:.1f} MB: chunked against embedded",
            size / seconds,
            size / whole.seconds.embed,
            "MB/s",
            whole.seconds.embed / seconds,
            note=f"{sum(len(chunks) for _, chunks in chunked):,} chunks of {len(documents):,} files",
        ),
        Line(
            "standard library: chunking as a share of the whole run",
            whole.seconds.chunk,
            whole.seconds.total,
            "s",
            whole.seconds.chunk / whole.seconds.total,
        ),
    ]
