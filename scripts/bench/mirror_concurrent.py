"""Many searches at a time through one process, and single ones while vectors are applied and the index is built anew."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Changes, FeedVectors, Watermark
from evervec.mirror.build import build
from evervec.mirror.index import DatasetIndex
from evervec.mirror.searcher import Searcher
from evervec.mirror.segment import Segment
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors.executors import Executors
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from scripts.bench import mirror_process, mirror_rows, vectors
from scripts.bench.mirror_rows import Rows
from scripts.bench.report import Line, at_least, at_most
from scripts.bench.stack import Bench, dataset
from scripts.bench.vectors import Made

TOGETHER, ROUNDS = 50, 3
SEARCHES_A_SECOND = 8_000
RATE, SIZE = 1000, 10
PAUSE = 0.001

Row = NDArray[np.float32]
Search = Callable[[Row], Awaitable[None]]


async def run(bench: Bench) -> list[Line]:
    """300,000 clustered vectors of 384 numbers, recall@10 as the mirror is tuned by itself."""
    async with bench.resources("concurrent", queue=True) as resources:
        made = vectors.make("clustered", bench.rows(300_000))
        space = await mirror_rows.space(resources, made.rows.shape[1])
        target = await dataset(resources)
        await mirror_rows.fill(resources, target, space, made.rows)
        await mirror_rows.settled(resources)
        async with mirror_rows.following(resources) as mirrors:
            await mirror_rows.ready(mirrors, target)
            together = await _together(mirrors, target, made.queries, 2.0 if bench.quick else 5.0)
            busy = await _while_busy(resources, target, made.queries, 10.0 if bench.quick else 30.0)
            main = _snapshot(mirrors, target).main
    made_in_order = replace(made, rows=made.rows[main.ids - main.ids.min()])
    return [together, *busy, await _at_hand(main, made_in_order, 3.0 if bench.quick else 10.0)]


async def _together(mirrors: Mirrors, target: DatasetRef, queries: Rows, seconds: float) -> Line:
    best = max([await _searches(mirrors, target, queries, seconds) for _ in range(ROUNDS)])
    name = f"{TOGETHER} searches at a time, promised"
    ratio = best / SEARCHES_A_SECOND
    return Line(name, best, SEARCHES_A_SECOND, "a second", ratio, at_least(1), f"best of {ROUNDS} rounds")


async def _searches(mirrors: Mirrors, target: DatasetRef, queries: Rows, seconds: float) -> float:
    """So many were answered a second: each who asks waits for the answer before asking again."""
    ends, counts = perf_counter() + seconds, [0] * TOGETHER

    async def asking(number: int) -> None:
        for query in islice(cycle(queries), number * 17, None):
            if perf_counter() >= ends:
                return
            await mirrors.searcher.search(_snapshot(mirrors, target), query, 10)
            counts[number] += 1

    started = perf_counter()
    await asyncio.gather(*map(asking, range(TOGETHER)))
    return sum(counts) / (perf_counter() - started)


async def _while_busy(resources: Resources, target: DatasetRef, queries: Rows, seconds: float) -> list[Line]:
    """Single searches: alone, while another process writes, and while the main segment is built anew as well."""
    mirrors = resources.mirrors

    async def search(query: Row) -> None:
        await mirrors.searcher.search(_snapshot(mirrors, target), query, 10)

    idle = await _singles(search, queries, seconds / 3)
    arguments = ["write", target.slug, "--rate", str(RATE), "--size", str(SIZE), "--seconds", str(seconds)]
    writer = await mirror_process.started(resources, *arguments)
    await _moving(mirrors, target)
    writing = await _singles(search, queries, seconds / 3)
    compaction = asyncio.create_task(mirrors.rebuild(target, "measured"))
    building = await _singles(search, queries, seconds / 3, compaction)
    await compaction
    await mirror_process.answer(writer)
    return [
        _line(f"single searches while {RATE:,} vectors/s are applied, idle", writing, idle),
        _line("the same while a compaction runs as well, idle", building, idle, promised=True),
    ]


async def _at_hand(main: Segment, made: Made, seconds: float) -> Line:
    """Measure the same alone on the machine: no writer, no database, changes and vectors in memory."""
    index, executors = DatasetIndex(main), Executors()
    async with Searcher() as searcher:

        async def search(query: Row) -> None:
            await searcher.search(index.snapshot, query, 10)

        idle = await _singles(search, made.queries, seconds)
        applying = asyncio.create_task(_applying(index, executors, made.rows))
        whole = FeedVectors(main.ids, main.versions, main.kinds, made.rows)
        compaction = asyncio.create_task(executors.slow(build, whole, main.identity, main.watermark))
        busy = await _singles(search, made.queries, seconds, compaction)
        await compaction
        applying.cancel()
    await asyncio.to_thread(executors.close)
    return _line("both in a process with the machine to itself, idle", busy, idle)


async def _applying(index: DatasetIndex, executors: Executors, rows: Rows) -> None:
    """Write new vectors for old ids until cancelled."""
    mark = index.snapshot.watermark
    for turn in count(1):
        ids = index.snapshot.main.ids[(turn * SIZE + np.arange(SIZE)) % len(index.snapshot.main)]
        versions = np.full(SIZE, mark.xmax + turn)
        vectors = FeedVectors(ids, versions, np.ones(SIZE, np.int16), rows[turn % len(rows) :][:SIZE])
        now = Watermark(mark.xmin + turn, mark.xmax + turn)
        await executors.quick(index.apply, Changes(now, vectors, np.empty(0, np.int64)))
        await asyncio.sleep(SIZE / RATE)


async def _moving(mirrors: Mirrors, target: DatasetRef) -> None:
    """Wait until what the writer writes is applied."""
    before = _snapshot(mirrors, target)
    await mirror_rows.until(lambda: _snapshot(mirrors, target).delta.stored > before.delta.stored, 30, every=PAUSE)


async def _singles(
    search: Search, queries: Rows, seconds: float, until: "asyncio.Task[Any] | None" = None
) -> Sequence[float]:
    """Milliseconds of searches one after the other, for some seconds, or for as long as something takes."""
    taken, ends = [], perf_counter() + seconds
    for query in cycle(queries):
        if until.done() if until is not None else perf_counter() >= ends:
            break
        started = perf_counter()
        await search(query)
        taken.append((perf_counter() - started) * 1000)
        await asyncio.sleep(PAUSE)
    return taken


def _snapshot(mirrors: Mirrors, target: DatasetRef) -> Snapshot:
    found = mirrors.mirror(target).snapshot()
    if found is None:
        raise RuntimeError(mirrors.mirror(target).reason)
    return found


def _line(name: str, busy: Sequence[float], idle: Sequence[float], *, promised: bool = False) -> Line:
    ours, against = (float(np.percentile(taken, 99)) for taken in (busy, idle))
    medians = f"medians {np.median(busy):.2f} and {np.median(idle):.2f} ms, {len(busy):,} and {len(idle):,} searches"
    return Line(f"p99 of {name}", ours, against, "ms", ours / against, at_most(2) if promised else None, medians)
