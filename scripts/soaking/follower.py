"""A process of the soak: follows the feed, searches without a pause, embeds if it is a worker, compares when asked.

It is asked on stdin and answers on stdout, one JSON document a line.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import typer
import uvloop

from evervec import log
from evervec.errors import EvervecError
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.worker.main import work
from scripts.soaking import comparing
from scripts.soaking.texts import text

LOOK, PATIENCE = 0.05, 90.0
SEARCHES = 3
PAUSE = (0.0, 0.04)
NAMED = 10


class Searches:
    """Asks for random texts, in one dataset or in all, and counts the answers."""

    def __init__(self, resources: Resources, seed: int) -> None:
        self.engines: Counter[str] = Counter()
        self.failed: list[str] = []
        self._resources, self._chance = resources, random.Random(seed)
        self._taken: list[float] = []

    async def ask(self, finish: asyncio.Event) -> None:
        """Search until the end; record whatever a search raises, and go on."""
        while not finish.is_set():
            started = perf_counter()
            try:
                await self._one()
            except Exception as error:
                self.failed.append(repr(error))
            self._taken.append((perf_counter() - started) * 1000)
            await asyncio.sleep(self._chance.uniform(*PAUSE))

    async def _one(self) -> None:
        dataset = self._chance.choice(["soak/large", "soak/small", None])
        k = self._chance.choice([1, 10, 10, 50])
        answer = await search(self._resources, text(self._chance), dataset=dataset, k=k)
        self.engines[answer.engine] += 1
        scores = [hit.score for hit in answer.hits]
        if len(scores) != k or scores != sorted(scores, reverse=True):
            raise AssertionError(f"{len(scores)} of {k} hits from {answer.engine}, in order: {scores}")

    def report(self) -> dict[str, Any]:
        """Return what was asked and answered so far."""
        slow = [round(float(np.percentile(self._taken, q)), 2) for q in (50, 99)] if self._taken else [0.0, 0.0]
        return {
            "searches": len(self._taken),
            "failed": len(self.failed),
            "examples": self.failed[:NAMED],
            "engines": dict(self.engines),
            "p50_ms": slow[0],
            "p99_ms": slow[1],
        }


class Watch:
    """Looks at the mirrors now and then: new main segments, and checks of the product that were not in sync."""

    def __init__(self, resources: Resources) -> None:
        self.builds: list[str] = []
        self.checks = 0
        self.not_in_sync: list[str] = []
        self._resources = resources
        self._main: dict[UUID, Segment] = {}
        self._check: dict[UUID, MirrorDifference] = {}

    async def look(self, finish: asyncio.Event) -> None:
        """Look until the end."""
        while not finish.is_set():
            async with self._resources.database.read() as tx:
                live = await datasets.live(tx)
            for dataset in live:
                self._note(dataset)
            with suppress(TimeoutError):
                await asyncio.wait_for(finish.wait(), LOOK * 4)

    def _note(self, dataset: DatasetRef) -> None:
        mirror = self._resources.mirrors.mirror(dataset)
        if mirror.index is not None and mirror.index.snapshot.main is not self._main.get(dataset.id):
            self._main[dataset.id] = main = mirror.index.snapshot.main
            self.builds.append(f"{dataset.slug} {main.factory} {len(main)}")
        if mirror.last_check is not None and mirror.last_check is not self._check.get(dataset.id):
            self._check[dataset.id] = mirror.last_check
            self.checks += 1
            if not mirror.last_check.in_sync:
                self.not_in_sync.append(f"{dataset.slug} {mirror.last_check}")

    def report(self) -> dict[str, Any]:
        """Return what was seen so far."""
        return {"builds": self.builds, "checks": self.checks, "not_in_sync": self.not_in_sync}


async def compare(resources: Resources, seen: int) -> dict[str, Any]:
    """Compare every dataset, once what that transaction committed is in its mirror; run the product's deep check beside it."""
    async with resources.database.read() as tx:
        live = await datasets.live(tx)
    return {dataset.slug: await _compared(resources, dataset, seen) for dataset in live}


async def _compared(resources: Resources, dataset: DatasetRef, seen: int) -> dict[str, Any]:
    started = perf_counter()
    async with asyncio.timeout(PATIENCE):
        snapshot = await _brought_to(resources, dataset, seen)
    waited = perf_counter() - started
    wanted = await comparing.expected(resources.database, dataset, snapshot.dimensions)
    verdict = await asyncio.to_thread(comparing.compared, wanted, snapshot)
    check = await resources.mirrors.check(dataset, deep=True, repair=False)
    return verdict.answer() | {"waited_ms": round(waited * 1000), "check": check.in_sync, "said": str(check)}


async def _brought_to(resources: Resources, dataset: DatasetRef, seen: int) -> Snapshot:
    """Return what is searched once following has brought all that a transaction committed; do not help it.

    Where nothing happened since, following has nothing to do, and a search with a `min_watermark` moves the mark itself.
    """
    mirror = resources.mirrors.mirror(dataset)
    while True:
        if mirror.index is not None:
            snapshot = mirror.index.snapshot
            if snapshot.watermark.covers(seen):
                return snapshot
            async with resources.database.read() as tx:
                if not await changes.with_unseen(tx, {(dataset.id, dataset.space_id): snapshot.watermark}):
                    await resources.mirrors.snapshots([dataset], seen=seen)
        await asyncio.sleep(LOOK)


async def _questions() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield orjson.loads(line)


async def _answer(questions: AsyncIterator[dict[str, Any]], asked: dict[str, Callable[..., Awaitable[Any]]]) -> None:
    async for question in questions:
        what = question.pop("ask")
        try:
            answer = await asked[what](**question)
        except (EvervecError, TimeoutError) as error:
            answer = {"error": repr(error)}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


async def _live(runtime: Runtime, seed: int, *, worker: bool) -> None:
    """Answer until stdin ends."""
    resources, finish = runtime.resources, asyncio.Event()
    searches, watch = Searches(resources, seed), Watch(resources)
    following = work(runtime, finish) if worker else follow(resources.mirrors, resources.doorbell, finish)

    async def report() -> dict[str, Any]:
        return searches.report() | watch.report()

    async def compared(seen: int) -> dict[str, Any]:
        return await compare(resources, seen)

    async with asyncio.TaskGroup() as group:
        group.create_task(following)
        group.create_task(watch.look(finish))
        for _ in range(SEARCHES):
            group.create_task(searches.ask(finish))
        await _answer(_questions(), {"report": report, "compare": compared})
        finish.set()


async def _run(seed: int, worker: bool) -> None:
    settings = Settings()
    async with open_runtime(settings, worker=worker) as runtime:
        await _live(runtime, seed, worker=worker)


def main(seed: int, worker: bool = False) -> None:
    """Run until stdin ends."""
    log.configure("WARNING", as_json=True)
    uvloop.run(_run(seed, worker))


if __name__ == "__main__":
    typer.run(main)
