"""The way to a slow or a limited provider: how near the drain comes to what the limit allows, and what batching is worth."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from time import perf_counter

import httpx

from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import embed_waiting
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows as pending_rows
from evervec.store.providers import ProviderDraft
from scripts.bench import texts
from scripts.bench.report import Line, at_least, at_most
from scripts.bench.stack import Bench, copy_messages, dataset, without_hnsw

LIMITED_ROWS, A_MINUTE = 1000, 3
MINUTE = 2.0
"""Seconds that stand for a minute, so that eleven of them are over soon."""
SWEEP = 3.0 * MINUTE / 60
"""The seconds between two sweeps, on the same scale."""

DELAY, BATCHED_ROWS, SINGLE_TEXTS = 0.02, 4000, 200
STARTS_IN = 60.0


async def run(bench: Bench) -> list[Line]:
    """Drain 1,000 rows at three requests a minute; embed 4,000 rows at 20 ms a request, and 200 texts one a call."""
    async with fake_provider() as url:
        return [await _limited(bench, url), await _batched(bench, url)]


@asynccontextmanager
async def fake_provider(dimensions: int = 64) -> AsyncIterator[str]:
    """Start the fake provider of the tests in a process of its own; stop it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes", "--dims", str(dimensions), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), STARTS_IN)).decode().strip()
        if not url:
            raise RuntimeError("the fake provider did not start: `python -m tests.fakes` says why")
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _paced(url: str, **pace: object) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.post(f"{url}/_pace", json=pace)).raise_for_status()


async def _waiting(resources: Resources, url: str, count: int) -> DatasetRef:
    """Put rows into an empty database whose provider is the fake."""
    await providers.add(resources, ProviderDraft("fake", "ollama", base_url=url, model="embedder"))
    target = await dataset(resources)
    await copy_messages(resources, target, texts.messages(count))
    return target


async def _limited(bench: Bench, url: str) -> Line:
    count = bench.rows(LIMITED_ROWS)
    async with bench.resources("limited") as resources:
        target = await _waiting(resources, url, count)
        requests = ceil(count / resources.clients.embedder(await resources.provider()).limits.texts)
        await _paced(url, most=A_MINUTE, seconds=MINUTE)
        started = perf_counter()
        while await _pending(resources, target):
            await embed_waiting(resources)
            await asyncio.sleep(SWEEP)
        taken = perf_counter() - started
        await _paced(url)
    allowed = max(1, ceil(requests / A_MINUTE) - 1) * MINUTE
    return Line(
        f"{count:,} rows at {A_MINUTE} requests a minute, what the limit allows",
        taken,
        allowed,
        "s",
        taken / allowed,
        at_most(1.2),
        f"{requests} requests of 32 texts; a minute is {MINUTE:g} s here, and the pause between two sweeps is scaled alike",
    )


async def _pending(resources: Resources, target: DatasetRef) -> int:
    async with resources.database.read() as tx:
        return (await pending_rows.waiting(tx, target.id, target.space_id))[1]


async def _batched(bench: Bench, url: str) -> Line:
    count = bench.rows(BATCHED_ROWS)
    async with bench.resources("batched") as resources:
        target = await _waiting(resources, url, count)
        await without_hnsw(resources)
        await _paced(url, delay=DELAY)
        embedder = resources.clients.embedder(await resources.provider())
        started = perf_counter()
        for text in texts.messages(SINGLE_TEXTS, seed=2):
            await embedder.embed([text])
        single = SINGLE_TEXTS / (perf_counter() - started)
        started = perf_counter()
        counts = await embed_dataset(resources, target.id)
        ours = count / (perf_counter() - started)
        if counts.success != count:
            raise RuntimeError(f"{count} rows, {counts.success} of them embedded")
        await _paced(url)
    return Line(
        f"{count:,} rows through Ollama's API at {DELAY * 1000:g} ms a request, one text a call",
        ours,
        single,
        "rows/s",
        ours / single,
        at_least(20),
        "claimed, embedded, checked and written without an HNSW index, against the calls alone",
    )
