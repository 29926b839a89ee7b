"""From a commit to the moment it is searchable in a process that follows: vectors when idle and under load, and texts."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

import numpy as np

from evervec.domain.extraction.message import IncomingMessage
from evervec.domain.feed import Ids, Watermark
from evervec.pipeline.ingest import telegram
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.queue.names import Lane
from evervec.store import messages
from evervec.store.datasets import DatasetRef
from evervec.worker.main import work
from scripts.bench import mirror_process, mirror_rows, texts, vectors
from scripts.bench.report import Line, at_most, below, percentiles
from scripts.bench.stack import Bench, dataset

VECTOR_ID = "SELECT vector_id FROM embeddings WHERE row_id = $1 AND kind = 1"
RATE = 1000
PATIENCE = 10.0
LOOK = 0.0003
"""How often the mirror is polled for a new state."""
PAUSE = (0.01, 0.05)


async def run(bench: Bench) -> list[Line]:
    """Measure a mirror of 20,000 x 384 that follows a writer; then texts with the local embedder and a worker."""
    return [*await _vectors(bench), *await _texts(bench)]


@dataclass
class Seen:
    """When which watermark could be searched, in the order of time."""

    marks: list[Watermark] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def when(self, xid: int, committed: float) -> float:
        """Return when a transaction's vectors became searchable. Raises `RuntimeError` if they never did."""
        # nothing that stood before the commit has it, and it was in every state since it first was
        at = bisect_left(self.marks, True, lo=0, key=lambda mark: mark.covers(xid))
        if at == len(self.marks):
            raise RuntimeError(f"transaction {xid} was never searchable")
        return max(self.times[at], committed)

    async def watch(self, mirrors: Mirrors, target: DatasetRef) -> None:
        """Note every new state, until cancelled."""
        last = None
        while True:
            index = mirrors.mirror(target).index
            if index is not None and index.snapshot is not last:
                last = index.snapshot
                self.marks.append(last.watermark)
                self.times.append(perf_counter())
            await asyncio.sleep(LOOK)


async def _vectors(bench: Bench) -> list[Line]:
    async with bench.resources("fresh", queue=True) as resources:
        made = vectors.make("clustered", bench.rows(20_000)).rows
        space = await mirror_rows.space(resources, made.shape[1])
        target = await dataset(resources)
        await mirror_rows.fill(resources, target, space, made)
        await mirror_rows.settled(resources)
        async with mirror_rows.following(resources) as mirrors:
            await mirror_rows.ready(mirrors, target)
            idle = await _written(resources, target, rate=20, seconds=5 if bench.quick else 30)
            lines = percentiles("commit of a vector, idle", idle, at_most, p50=5, p99=20)
            for size in (1, 10):
                found = await _written(resources, target, rate=RATE, size=size, seconds=5 if bench.quick else 20)
                name = f"commit of a vector, {RATE:,} writes/s, {size} a transaction"
                lines += percentiles(name, found, at_most, p99=250)
            await _true(resources, target)
    return lines


async def _written(
    resources: Resources, target: DatasetRef, *, rate: int, seconds: int, size: int = 1
) -> Sequence[float]:
    """Another process writes and rings; return the milliseconds from each commit until it is searchable here."""
    seen = Seen()
    watching = asyncio.create_task(seen.watch(resources.mirrors, target))
    arguments = ["write", target.slug, "--rate", str(rate), "--seconds", str(seconds), "--size", str(size)]
    try:
        reported = await mirror_process.run_child(resources, *arguments, "--connections", "1" if rate < 100 else "4")
        await mirror_rows.until(
            lambda: bool(seen.marks) and all(seen.marks[-1].covers(xid) for xid in reported["xids"]),
            PATIENCE,
            every=LOOK,
        )
    finally:
        watching.cancel()
    if len(reported["xids"]) * size < 0.9 * rate * seconds:
        raise RuntimeError(f"only {len(reported['xids']) * size / seconds:.0f} of {rate} vectors a second were written")
    pairs = zip(reported["xids"], reported["times"], strict=True)
    return [(seen.when(xid, committed) - committed) * 1000 for xid, committed in pairs]


async def _true(resources: Resources, target: DatasetRef) -> None:
    """Check that what counts as searchable is equal to the database."""
    found = await resources.mirrors.check(target, repair=False)
    if not found.in_sync:
        raise RuntimeError(f"the mirror is not in sync: {found}")


async def _texts(bench: Bench) -> list[Line]:
    """One after the other: saved as any import saves them, embedded by the worker, followed by its mirrors."""
    async with bench.runtime("texts", queue=True, worker=True) as runtime:
        resources, finish = runtime.resources, asyncio.Event()
        target = await dataset(resources)
        working = asyncio.create_task(work(runtime, finish))
        try:
            await _saved(resources, target, "the first one opens the model", 0)
            await mirror_rows.ready(resources.mirrors, target)
            taken = []
            for number, text in enumerate(texts.messages(60 if bench.quick else 400), 1):
                await asyncio.sleep(random.uniform(*PAUSE))
                taken.append(await _saved(resources, target, text, number))
            await _true(resources, target)
        finally:
            finish.set()
            await working
    return percentiles("commit of a text, local embedder", taken, below, p50=100, p99=500)


async def _saved(resources: Resources, target: DatasetRef, text: str, number: int) -> float:
    """Milliseconds from the commit of one message until its vector is in the mirror."""
    message = IncomingMessage("bench", str(number), "ada", datetime.now(UTC), text)
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, target.id, [message])
        vector_id = await tx.fetchval(VECTOR_ID, saved.created[0])
    committed = perf_counter()
    ringing = asyncio.create_task(telegram.announce(resources, target.id, saved.created, lane=Lane.INTERACTIVE))
    ids = np.array([vector_id], np.int64)
    await mirror_rows.until(lambda: _there(resources.mirrors, target, ids), PATIENCE, every=LOOK)
    taken = (perf_counter() - committed) * 1000
    await ringing
    return taken


def _there(mirrors: Mirrors, target: DatasetRef, ids: Ids) -> bool:
    index = mirrors.mirror(target).index
    return index is not None and bool((index.snapshot.versions_of(ids) >= 0).all())
