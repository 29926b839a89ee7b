"""The build of another space of 200,000 rows, whose index comes last, against writing rows while HNSW is live."""

from time import perf_counter

from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import progress, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.providers import ProviderDraft
from scripts.bench.providers import fake_provider
from scripts.bench.report import Line, at_least
from scripts.bench.stack import Bench, copy_messages, dataset, without_hnsw

DIMENSIONS = 256
LIVE_ROWS = 5_000
PROMISED = 4.0


async def run(bench: Bench) -> list[Line]:
    """200,000 rows of 256 numbers: 5,000 of them embedded again with HNSW live, then all for another space; and its drop."""
    count = bench.rows(200_000)
    async with fake_provider(DIMENSIONS) as url, bench.resources("build") as resources:
        # OpenAI's vectors cross the wire as bytes: as JSON, reading them would take as long as the rest
        for name in ("now", "next"):
            draft = ProviderDraft(name, "openai", base_url=f"{url}/v1", model=name, no_key=True)
            await providers.add(resources, draft, activate=name == "now")
        target = await dataset(resources)
        await without_hnsw(resources)
        await copy_messages(resources, target, [f"message number {number}" for number in range(count)])
        await embed_dataset(resources, target.id)
        await hnsw.build_indexes(resources.database, target.space_id, DIMENSIONS)
        live = await _live(resources, target, min(LIVE_ROWS, count // 4))
        built = await _built(resources, count)
        dropped = perf_counter()
        await removal.drop(resources)
        removed = await removal.purge(resources)
        dropped = perf_counter() - dropped
    name = f"{count:,} rows, {DIMENSIONS} dimensions: build with its index, writes with HNSW live"
    note = "both claimed, embedded by a server that answers at once, checked and written"
    removed_name = f"{count:,} rows: drop, build"
    return [
        Line(name, built, live, "rows/s", built / live, at_least(PROMISED), note),
        Line(removed_name, removed / dropped, built, "rows/s", removed / dropped / built),
    ]


async def _live(resources: Resources, target: DatasetRef, count: int) -> float:
    """Edit rows, and embed them while their index is there; return the rows a second."""
    async with resources.database.transaction() as tx:
        await tx.execute("UPDATE messages SET content = content || ', edited' WHERE id <= $1", count)
    started = perf_counter()
    counts = await embed_dataset(resources, target.id)
    taken = perf_counter() - started
    if counts.success != count:
        raise RuntimeError(f"{count} rows, {counts.success} of them embedded")
    return count / taken


async def _built(resources: Resources, count: int) -> float:
    """Build another space; return the rows a second, from the first record to the last index."""
    started = perf_counter()
    await start(resources, BuildOptions("next"))
    await fill(resources, whole=True)
    taken = perf_counter() - started
    (found,) = await progress.builds(resources)
    if not found.indexed or found.embedded != count:
        raise RuntimeError(f"the space is not built: {found}")
    return count / taken
