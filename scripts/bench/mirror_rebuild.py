"""A mirror made anew from PostgreSQL: how fast it is read, how long it takes until it answers, what memory it costs."""

from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg

from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from scripts.bench import clock, mirror_process, mirror_rows, vectors
from scripts.bench.report import Line, at_least, at_most, rate
from scripts.bench.stack import Bench, dataset

ROWS_A_SECOND = 35_000


async def run(bench: Bench) -> list[Line]:
    """300,000 clustered vectors of 384 numbers."""
    async with bench.resources("rebuild") as resources:
        made = vectors.make("clustered", bench.rows(300_000)).rows
        space = await mirror_rows.space(resources, made.shape[1])
        target = await dataset(resources)
        await mirror_rows.fill(resources, target, space, made)
        await mirror_rows.settled(resources)
        read = await _read(resources, target, len(made), made.shape[1])
        reported = [await mirror_process.run_child(resources, "rebuild", target.slug) for _ in range(3)]
    return [read, *_whole(reported, made.nbytes)]


async def _read(resources: Resources, target: DatasetRef, count: int, dimensions: int) -> Line:
    taken = await clock.rounds(
        6,
        {"raw": partial(_raw, resources, target), "read": partial(_everything, resources, target, count, dimensions)},
    )
    name = f"read {count:,} x {dimensions}, the same COPY thrown away"
    return rate(name, count, taken["read"], taken["raw"], at_least(0.8), "best of 6 rounds each")


async def _everything(resources: Resources, target: DatasetRef, count: int, dimensions: int) -> float:
    started = perf_counter()
    async with resources.database.read() as tx:
        found = await changes.all_vectors(tx, target.id, target.space_id, dimensions)
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} vectors were read")
    return perf_counter() - started


async def _raw(resources: Resources, target: DatasetRef) -> float:
    """Discard what asyncpg returns, piece by piece."""
    connection = await asyncpg.connect(resources.database.url)
    try:
        started = perf_counter()
        await connection.copy_from_query(changes.ALL_VECTORS, target.id, output=_thrown_away, format="binary")
        return perf_counter() - started
    finally:
        await connection.close()


async def _thrown_away(_: bytes) -> None:
    return


def _whole(reported: list[dict[str, Any]], vectors_bytes: int) -> list[Line]:
    count, first = reported[0]["vectors"], reported[0]
    speeds = sorted(count / one["seconds"] for one in reported)
    peak = median(one["peak_bytes"] for one in reported)
    note = (
        f"{first['factory']}, recall@10 {first['recall']:.3f}; of three: {speeds[0]:,.0f} to {speeds[-1]:,.0f} rows/s"
    )
    megabyte = 1 << 20
    return [
        Line(
            "read, build, save, open, first answer; promised",
            median(speeds),
            ROWS_A_SECOND,
            "rows/s",
            median(speeds) / ROWS_A_SECOND,
            at_least(1),
            note,
        ),
        Line(
            "peak memory of it, the vectors",
            peak / megabyte,
            vectors_bytes / megabyte,
            "MB",
            peak / vectors_bytes,
            at_most(2.5),
            "resident, with what is mapped of the new file",
        ),
        _bytes("memory of a vector, its numbers", first["held_bytes"], vectors_bytes, count),
        _bytes("file of a vector, its numbers", first["file_bytes"], vectors_bytes, count),
    ]


def _bytes(name: str, ours: int, numbers: int, count: int) -> Line:
    return Line(name, ours / count, numbers / count, "bytes", ours / numbers)
