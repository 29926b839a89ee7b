"""A flip of a million rows to another space and back: how long it takes, and how long others wait for it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

import asyncpg
import numpy as np

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.pipeline.spaces import flip
from evervec.pipeline.spaces.build import BuildOptions, start
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.providers import ProviderDraft
from evervec.store.schema import triggers
from scripts.bench.providers import fake_provider
from scripts.bench.report import Line, below
from scripts.bench.stack import Bench, dataset, without_hnsw

DIMENSIONS, FLIPS, LOOPS = 8, 6, 2
PROMISED_SECONDS = 1.0
QUIET_SECONDS, AROUND_SECONDS = 10.0, 1.0

# without the triggers, which would only make the preparation longer
TABLES = ("messages", "embeddings")
MESSAGES = """
INSERT INTO messages (dataset_id, chat, external_id, author, content, signal, score, score_factors, scored_revision)
SELECT $1, 'bench', n, 'ada', 'message number ' || n, 'noise', 0, '{}', 1 FROM generate_series(1, $2::int) n
"""
RECORDS = """
INSERT INTO embeddings (kind, row_id, dataset_id, space_id, content_hash, embedding, embedded_hash, embedded_at)
SELECT 1, m.id, m.dataset_id, $2::int, h.hash, (SELECT array_agg(random()::real - 0.5 + 0 * (m.id + n)) FROM generate_series(1, $3::int) n)::real[]::vector,
       h.hash, now()
FROM messages m CROSS JOIN LATERAL (SELECT sha256(convert_to(m.content, 'UTF8')) AS hash) h WHERE m.dataset_id = $1
"""
WRITE = """
INSERT INTO evervec.messages (dataset_id, chat, external_id, author, content, signal, score, score_factors, scored_revision)
VALUES ($1, 'bench', $2, 'ada', $2, 'noise', 0, '{}', 1)
"""


@dataclass
class Load:
    """What others do meanwhile, one after the other in each loop: when each began, and the milliseconds that it took."""

    began: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)

    async def repeat(self, work: Callable[[int], Awaitable[object]]) -> None:
        """Do something again and again until cancelled."""
        number = 0
        while True:
            number += 1
            self.began.append(perf_counter())
            self.taken.append(0.0)
            place = len(self.taken) - 1
            await work(number)
            self.taken[place] = 1000 * (perf_counter() - self.began[place])

    def within(self, spans: Sequence[tuple[float, float]]) -> list[float]:
        """Return what was taken by those that ran, at least in part, inside some spans of time."""
        return [
            taken
            for began, taken in zip(self.began, self.taken, strict=True)
            if any(began <= until and began + taken / 1000 >= since for since, until in spans)
        ]


async def run(bench: Bench) -> list[Line]:
    """1,000,000 rows of 8 numbers in each of two spaces, with HNSW, flipped six times while others search and write."""
    count = bench.rows(1_000_000)
    async with fake_provider(DIMENSIONS) as url, bench.resources("flip") as resources:
        await providers.add(resources, ProviderDraft("now", "ollama", base_url=url, model="now"))
        await providers.add(resources, ProviderDraft("next", "ollama", base_url=url, model="next"), activate=False)
        await without_hnsw(resources)
        target = await dataset(resources)
        await _fill(resources, target, count)
        searches, writes = Load(), Load()
        flips = await _flipped(resources, target, searches, writes)
    taken = [until - since for since, until in flips]
    around = [(since, until + AROUND_SECONDS) for since, until in flips]
    quiet = [(searches.began[0], flips[0][0])]
    return [
        Line(
            f"flip of {count:,} rows; promised",
            max(taken),
            PROMISED_SECONDS,
            "s",
            max(taken) / PROMISED_SECONDS,
            below(1),
            f"the slowest of {FLIPS}, median {np.median(taken):.3f} s",
        ),
        _pause("longest search around flips, without flips", searches, around, quiet),
        _pause("longest write around flips, without flips", writes, around, quiet),
    ]


def _pause(name: str, load: Load, around: Sequence[tuple[float, float]], quiet: Sequence[tuple[float, float]]) -> Line:
    longest, before = max(load.within(around)), load.within(quiet)
    note = f"the median {np.median(load.within(around)):.2f} ms, without flips {np.median(before):.2f} ms; 50 ms are the aim"
    return Line(name, longest, max(before), "ms", longest / max(before), note=note)


async def _flipped(resources: Resources, target: DatasetRef, searches: Load, writes: Load) -> list[tuple[float, float]]:
    """Flip under load; return when each flip began and ended."""
    connections = [await asyncpg.connect(resources.database.url) for _ in range(LOOPS)]

    def writer(name: int) -> Callable[[int], Awaitable[object]]:
        return lambda number: connections[name].execute(WRITE, target.id, f"row {number} of writer {name}")

    async def ask(number: int) -> None:
        answer = await search(
            resources, f"question {number % 100}", k=10, kind="message", dataset=target.name, mode="vector"
        )
        if len(answer.hits) < 10 or answer.merged_by != "score":
            raise RuntimeError(f"a search during a flip found {len(answer.hits)} rows, merged by {answer.merged_by}")

    running = [asyncio.create_task(searches.repeat(ask)) for _ in range(LOOPS)]
    running += [asyncio.create_task(writes.repeat(writer(name))) for name in range(LOOPS)]
    try:
        await asyncio.sleep(QUIET_SECONDS)
        flips = []
        for number in range(FLIPS):
            since = perf_counter()
            # what is written meanwhile waits in both spaces, and is not lost by a flip
            await (flip.roll_back if number % 2 else flip.activate)(resources, dataset=target.name)
            flips.append((since, perf_counter()))
            await asyncio.sleep(AROUND_SECONDS)
    finally:
        for task in running:
            if task.done():
                task.result()
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task
        for connection in connections:
            connection.terminate()
    return flips


async def _fill(resources: Resources, target: DatasetRef, count: int) -> None:
    """Put the rows into both spaces, as a build has them at its end."""
    (begun,) = await start(resources, BuildOptions("next"))
    async with resources.database.autocommit() as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute("SET maintenance_work_mem = '1GB'")
        for table in TABLES:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.execute(MESSAGES, target.id, count)
        for space_id in (target.space_id, begun.space_id):
            await connection.execute(RECORDS, target.id, space_id, DIMENSIONS)
        for trigger in triggers.declared():
            if trigger.table in TABLES:
                await connection.execute(f"ALTER TABLE {trigger.table} ENABLE ALWAYS TRIGGER {trigger.name}")
        await connection.execute("VACUUM ANALYZE messages, embeddings")
        await connection.execute("UPDATE dataset_spaces SET taken_in_at = now()")
    for space_id in (target.space_id, begun.space_id):
        await hnsw.build_indexes(resources.database, space_id, DIMENSIONS)
    async with resources.database.autocommit() as connection:
        await connection.execute("UPDATE dataset_spaces SET indexed_at = now()")
        await connection.execute("CHECKPOINT")
