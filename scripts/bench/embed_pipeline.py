"""The embedding pipeline end to end, against the local embedder alone on the same texts in batches of the same size."""

from collections.abc import Sequence
from functools import partial
from time import perf_counter

from evervec.domain.protocols import Embedder
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from scripts.bench import clock, texts
from scripts.bench.report import Line, at_least, rate
from scripts.bench.stack import Bench, copy_messages, dataset, empty, without_hnsw

SIZES = (64, 256, 1024)


async def run(bench: Bench) -> list[Line]:
    """20,000 pending rows, one worker, no HNSW index; one line a batch size."""
    written = texts.messages(bench.rows(20_000))
    async with bench.resources("embed") as resources:
        await without_hnsw(resources)
        target = await dataset(resources)
        await resources.clients.local.embed(["The weights are loaded now."])
        return [await _line(resources, target, written, size) for size in SIZES]


async def _line(resources: Resources, target: DatasetRef, written: Sequence[str], size: int) -> Line:
    taken = await clock.rounds(
        4,
        {
            "alone": partial(_alone, resources.clients.local, written, size),
            "pipeline": partial(pipeline, resources, target, written, size),
        },
    )
    promised = at_least(0.6) if size == resources.settings.embed_batch else None
    note = texts.described(written) if promised else ""
    return rate(f"--batch-size {size}", len(written), taken["pipeline"], taken["alone"], promised, note)


async def _alone(embedder: Embedder, written: Sequence[str], size: int) -> float:
    started = perf_counter()
    for start in range(0, len(written), size):
        await embedder.embed(written[start : start + size])
    return perf_counter() - started


async def pipeline(resources: Resources, target: DatasetRef, written: Sequence[str], size: int) -> float:
    """Embed the texts as pending rows; return the seconds."""
    await empty(resources)
    await copy_messages(resources, target, written)
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE")
    started = perf_counter()
    counts = await embed_dataset(resources, target.id, batch=size)
    taken = perf_counter() - started
    if counts.success != len(written) or counts.sent != len(written):
        raise RuntimeError(f"the pipeline embedded {counts.success} of {len(written)} rows")
    return taken
