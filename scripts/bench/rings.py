"""From a commit to the vector: rung by LISTEN and NOTIFY of PostgreSQL, beside rung over NATS, in turns."""

import asyncio
import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import perf_counter

import numpy as np

from evervec.domain.extraction.message import IncomingMessage
from evervec.pipeline.ingest import telegram
from evervec.pipeline.resources import Resources
from evervec.queue.names import Lane
from evervec.runtime import Runtime
from evervec.store import messages
from evervec.store.datasets import DatasetRef
from evervec.worker.main import work
from scripts.bench import texts
from scripts.bench.report import Line
from scripts.bench.stack import Bench, dataset

LOOK = 0.002
PATIENCE = 20.0
PAUSE = (0.01, 0.05)
KINDS = ("postgres", "nats")
EMBEDDED = "SELECT embedding IS NOT NULL FROM embeddings WHERE kind = 1 AND row_id = $1"


async def run(bench: Bench) -> list[Line]:
    """Save messages one after the other, each embedded before the next, with a worker for either kind of ring."""
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    written = texts.messages(bench.rows(400))
    finish = asyncio.Event()
    async with AsyncExitStack() as closing:
        opened, workers = {}, []
        for kind in KINDS:
            # without the sweep: what a ring does not bring is not embedded
            runtime = await closing.enter_async_context(
                bench.runtime(f"rings_{kind}", queue=True, worker=True, changed={"queue": kind, "sweep_seconds": 600})
            )
            opened[kind] = (runtime, await dataset(runtime.resources))
            workers.append(asyncio.create_task(work(runtime, finish)))
        try:
            for kind in KINDS:
                await _saved(*opened[kind], "the first one opens the model", 0)
            for number, text in enumerate(written, 1):
                for kind in KINDS if number % 2 else reversed(KINDS):
                    await asyncio.sleep(random.uniform(*PAUSE))
                    taken[kind].append(await _saved(*opened[kind], text, number))
        finally:
            finish.set()
            await asyncio.gather(*workers)
    lines = []
    for percentile in (50, 99):
        ours, against = (float(np.percentile(taken[kind], percentile)) for kind in KINDS)
        note = f"{len(written):,} commits each, in turns; looked for every {LOOK * 1000:g} ms"
        lines.append(
            Line(
                f"commit to vector, rung by PostgreSQL, by NATS, p{percentile}",
                ours,
                against,
                "ms",
                ours / against,
                None,
                note,
            )
        )
    return lines


async def _saved(runtime: Runtime, target: DatasetRef, text: str, number: int) -> float:
    """Return the milliseconds from the commit of one message until its vector is in the database."""
    resources = runtime.resources
    message = IncomingMessage("bench", str(number), "ada", datetime.now(UTC), text)
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, target.id, [message])
    committed = perf_counter()
    await telegram.announce(resources, target.id, saved.created, lane=Lane.INTERACTIVE)
    async with asyncio.timeout(PATIENCE):
        await _embedded(resources, saved.created[0])
    return (perf_counter() - committed) * 1000


async def _embedded(resources: Resources, row_id: int) -> None:
    while True:
        async with resources.database.read() as tx:
            if await tx.fetchval(EMBEDDED, row_id):
                return
        await asyncio.sleep(LOOK)
