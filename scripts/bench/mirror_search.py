"""Search in a main segment beside pgvector, hnswlib and usearch at the same recall, and with filters beside pgvector."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import perf_counter

import asyncpg
import faiss
import numpy as np
from numpy.typing import NDArray

from evervec.mirror.faiss_library import use_threads
from evervec.mirror.position_set import PositionSet
from evervec.mirror.segment import Segment
from scripts.bench import rivals, vectors
from scripts.bench.report import Line, Promise, at_least, at_most
from scripts.bench.rivals import EFS, Engine, Ids, K
from scripts.bench.stack import Bench
from scripts.bench.vectors import Made, Rows, Shape

ROWS, RECALL, ROUNDS, A_ROUND = 300_000, 0.99, 4, 100
NATIVE = 1.15  # how much faster a pgvector is that was compiled for its machine
JUDGED = 200  # queries by which the effort that an engine needs is looked for
PROMISED = {
    "clustered": {"pgvector p50": at_least(4.5), "hnswlib p50": at_most(1.2), "hnswlib p99": at_most(0.7)},
    "smooth": {"pgvector p50": at_least(15), "hnswlib p50": at_most(1 / 2.2)},
}
Times = NDArray[np.float64]
Ask = Callable[[Rows], Awaitable[Ids]]


async def run(bench: Bench) -> list[Line]:
    """300,000 × 384, clustered and smooth, 1,000 queries that are not stored."""
    lines: list[Line] = []
    folder = bench.home / "mirror_search"
    folder.mkdir()
    async with rivals.server(bench.home / "pgvector") as connection:
        for shape in ("clustered", "smooth"):
            lines += await _shape(shape, bench.rows(ROWS), connection, folder)
    return lines


async def _shape(shape: Shape, rows: int, connection: asyncpg.Connection, folder: Path) -> list[Line]:
    made = vectors.make(shape, rows)
    masks = _masks(made) if shape == "clustered" else {}
    engine, segment = await rivals.ours(made, folder)
    engines = [engine, await rivals.pgvector(connection, made, masks)]
    if rivals.libraries():
        engines += [rivals.hnswlib(made, folder), rivals.usearch(made, folder)]
    true = _true(made.rows, made.queries)
    recalls = {engine.name: await _reach(engine, made.queries, true) for engine in engines}
    times = await _measured({engine.name: engine.ask for engine in engines}, made.queries)
    lines = _single(shape, engines, times, recalls)
    lines += _threads(shape, engines, made.queries) + _sizes(shape, engines, rows)
    for name, mask in masks.items():
        lines.append(await _filtered(name, segment, mask, made, connection))
    return lines


def _true(rows: Rows, queries: Rows, mask: NDArray[np.bool_] | None = None) -> Ids:
    use_threads(rivals.THREADS)
    places = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    found: Ids = places[faiss.knn(queries, rows[places], K, metric=faiss.METRIC_INNER_PRODUCT)[1]]
    use_threads(1)
    return found


async def _recall(ask: Ask, queries: Rows, true: Ids) -> float:
    hits = [len(np.intersect1d(await ask(query), best)) for query, best in zip(queries, true, strict=True)]
    return sum(hits) / true.size


async def _reach(engine: Engine, queries: Rows, true: Ids) -> float:
    """Set the smallest effort that reaches the recall on all queries, found by halving on some; return that recall."""
    low, high = 0, len(engine.efforts) - 1
    while low < high:
        middle = (low + high) // 2
        await engine.effort(engine.efforts[middle])
        reached = await _recall(engine.ask, queries[:JUDGED], true[:JUDGED])
        low, high = (low, middle) if reached >= RECALL else (middle + 1, high)
    while True:
        await engine.effort(engine.efforts[low])
        recall = await _recall(engine.ask, queries, true)
        if recall >= RECALL or low == len(engine.efforts) - 1:
            return recall
        low += 1  # a few queries were easier than all of them


async def _measured(asks: dict[str, Ask], queries: Rows) -> dict[str, Times]:
    """Seconds of single queries; the engines take turns, the same queries to each."""
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(ROUNDS):
        part = queries[number * A_ROUND : (number + 1) * A_ROUND]
        for name, ask in list(asks.items())[:: 1 if number % 2 == 0 else -1]:
            for query in part[:5]:
                await ask(query)
            for query in part:
                started = perf_counter()
                await ask(query)
                taken[name].append(perf_counter() - started)
    return {name: np.array(seconds) * 1000 for name, seconds in taken.items()}


def _single(shape: str, engines: Sequence[Engine], times: dict[str, Times], recalls: dict[str, float]) -> list[Line]:
    lines = []
    for rival in engines[1:]:
        for percent in (50, 99):
            name = f"{rival.name} p{percent}"
            mine, its = (float(np.percentile(times[one], percent)) for one in ("ours", rival.name))
            ratio, note = mine / its, ""
            promise = PROMISED[shape].get(name)
            if rival.name == "pgvector":
                ratio = its / mine / NATIVE
                note = f"{its / mine:.1f} × as measured, {NATIVE} off for a native pgvector."
            elif promise is None:
                promise = at_most(1.0) if rival.name == "usearch" else None
            if percent == 50:
                note = f"recall@10 {recalls['ours']:.4f} and {recalls[rival.name]:.4f}. {note}".strip()
            lines.append(Line(f"{shape}, {name}", mine, its, "ms", ratio, promise, note))
    if len(engines) == 2:
        lines[-1] = replace(lines[-1], note=f"{lines[-1].note} {rivals.MISSING}")
    return lines


def _threads(shape: str, engines: Sequence[Engine], queries: Rows) -> list[Line]:
    """Two Python threads, each asking one query after the other."""
    rates = {engine.name: _per_second(engine.plain, queries) for engine in engines if engine.plain is not None}
    return [
        Line(f"{shape}, two threads, {name}", rates["ours"], its, "queries/s", rates["ours"] / its)
        for name, its in rates.items()
        if name != "ours"
    ]


def _per_second(plain: Callable[[Rows], Ids], queries: Rows) -> float:
    def asking() -> None:
        for query in queries:
            plain(query)

    best = np.inf
    for _ in range(3):
        threads = [Thread(target=asking) for _ in range(2)]
        started = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, perf_counter() - started)
    return 2 * len(queries) / best


def _sizes(shape: str, engines: Sequence[Engine], rows: int) -> list[Line]:
    mine, lines = engines[0], []
    for rival in engines[1:]:
        promise: Promise | None = at_least(4) if rival.name == "hnswlib" else None
        ratio = rival.seconds / mine.seconds
        lines.append(Line(f"{shape}, build, {rival.name}", mine.seconds, rival.seconds, "s", ratio, promise))
        for what, own, its in (("memory", mine.memory, rival.memory), ("file", mine.file, rival.file)):
            lines.append(Line(f"{shape}, {what}, {rival.name}", own / rows, its / rows, "B/vector", own / its))
    return lines


def _masks(made: Made) -> dict[str, NDArray[np.bool_]]:
    """Random shares, a few whole clusters, and all but a third of the clusters."""
    chance, n = np.random.default_rng(5), len(made.rows)
    masks = {f"random_{name}": chance.random(n) < share for name, share in (("50", 0.5), ("5", 0.05), ("05", 0.005))}
    order = chance.permutation(vectors.CLUSTERS)
    before = np.cumsum(np.bincount(made.clusters, minlength=vectors.CLUSTERS)[order]) / n
    masks["clusters_5"] = np.isin(made.clusters, order[before <= 0.05])
    masks["clusters_70"] = ~np.isin(made.clusters, order[before <= 0.3])
    return masks


async def _filtered(
    name: str, segment: Segment, mask: NDArray[np.bool_], made: Made, connection: asyncpg.Connection
) -> Line:
    """Ours against the quickest plan of pgvector that reaches the recall, or the exact one."""
    allowed, queries = PositionSet.of(mask[segment.ids]), made.queries[:JUDGED]
    true = _true(made.rows, queries, mask)

    async def ours(query: Rows) -> Ids:
        found: Ids = segment.ids[segment.search(query[None], K, allowed).positions[0]]
        return found

    statement = f"SELECT id FROM items WHERE {name} ORDER BY e <#> $1 LIMIT {K}"
    plan = await _best_plan(statement, connection, queries, true)
    its = await _prepared(statement, connection)
    reached = await _recall(ours, queries, true), await _recall(its, queries, true)
    times = await _measured({"ours": ours, "pgvector": its}, np.tile(queries, (2, 1)))
    mine, other = (float(np.median(times[one])) for one in ("ours", "pgvector"))
    note = f"recall@10 {reached[0]:.4f} and {reached[1]:.4f}; pgvector's best plan: {plan}; {allowed.count:,} pass."
    await connection.execute("RESET enable_indexscan; RESET hnsw.iterative_scan; RESET enable_sort")
    return Line(f"filter {name}, p50", mine, other, "ms", other / mine / NATIVE, at_least(5), note)


async def _prepared(statement: str, connection: asyncpg.Connection) -> Ask:
    """With a plan of its own: a statement keeps the plan that was best under former settings."""
    prepared = await connection.prepare(statement)

    async def ask(query: Rows) -> Ids:
        return np.fromiter((row[0] for row in await prepared.fetch(rivals.half(query))), np.int64)

    return ask


INDEX = "SET enable_sort = off; SET enable_indexscan = on; SET hnsw.iterative_scan = relaxed_order"
EXACT = "SET enable_sort = on; SET enable_indexscan = off"


async def _best_plan(statement: str, connection: asyncpg.Connection, queries: Rows, true: Ids) -> str:
    """Try the index with iterative scans, then the exact plan; leaves the quicker one that is right set and names it."""
    queries, true = queries[:40], true[:40]
    quickest, ef = np.inf, 0
    await connection.execute(f"{INDEX}; SET hnsw.max_scan_tuples = 200000")
    ask = await _prepared(statement, connection)
    for ef in EFS[7::3]:
        await connection.execute(f"SET hnsw.ef_search = {ef}")
        if await _recall(ask, queries, true) >= RECALL:
            quickest = await _seconds(ask, queries)
            break
    await connection.execute(EXACT)
    if await _seconds(await _prepared(statement, connection), queries) < quickest:
        return "exact"
    await connection.execute(INDEX)
    return f"HNSW, ef {ef}"


async def _seconds(ask: Ask, queries: Rows) -> float:
    started = perf_counter()
    for query in queries:
        await ask(query)
    return perf_counter() - started
