"""The tour: datasets are embedded, then their model is changed, rolled back, changed again and the old one dropped, under load."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter

import asyncpg
import numpy as np

from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, progress, removal
from evervec.pipeline.spaces.build import BuildOptions, start
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from scripts.space_touring.traffic import Searching, Writing, steady, words

PATIENCE = 1800.0
LOOK_SECONDS = 0.25
AROUND_SECONDS = 2.0
"""How long after a flip its pauses are looked for."""
EDITED_ROWS = 50
SHOWN = 10
EVERVEC = Path(sys.executable).with_name("evervec")

FILL = """
INSERT INTO evervec.messages (dataset_id, chat, external_id, author, sent_at, content, signal, score, score_factors, scored_revision)
SELECT $1, 'tour', t, 'writer', now(), t, 'noise', 0, '{}', 1 FROM unnest($2::text[]) t
"""
PENDING = """
SELECT count(*) FROM evervec.embeddings e JOIN evervec.datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id
WHERE e.pending_id IS NOT NULL
"""
DELAYS = """
SELECT extract(epoch FROM e.embedded_at - w.at)::float8 AS seconds
FROM unnest($1::bigint[], $2::timestamptz[]) w (id, at)
JOIN evervec.embeddings e ON e.kind = 1 AND e.row_id = w.id AND e.space_id = $3 AND e.embedded_at IS NOT NULL
"""
LOST = """
SELECT m.content FROM evervec.messages m JOIN evervec.datasets d ON d.id = m.dataset_id
LEFT JOIN evervec.embeddings e ON e.kind = 1 AND e.row_id = m.id AND e.space_id = d.space_id
  AND e.embedded_hash = sha256(convert_to(m.content, 'UTF8'))
WHERE e.vector_id IS NULL
"""
LEFT = """
SELECT (SELECT count(*) FROM evervec.embeddings e JOIN evervec.datasets d ON d.id = e.dataset_id AND d.space_id <> e.space_id)
     + (SELECT count(*) FROM evervec.dataset_spaces)
"""


@dataclass(frozen=True)
class Plan:
    """The size of a tour: rows in all, of so many datasets, of which `changed` change their model to that of `provider`.

    Searches and writes are so many a second; `seconds` is how long each state is looked at.
    """

    provider: str
    rows: int = 20_000
    searches: float = 50
    writes: float = 50
    seconds: float = 20
    datasets: int = 1
    changed: int = 1


@dataclass
class Outcome:
    """What a tour found: `failures` is empty when everything held."""

    failures: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


class Tour:
    """One tour, step by step."""

    def __init__(
        self,
        resources: Resources,
        pool: asyncpg.Pool,
        plan: Plan,
        made: Sequence[DatasetRef],
        say: Callable[[str], None],
    ) -> None:
        self.outcome = Outcome()
        self._resources, self._pool, self._plan, self._made, self._say = resources, pool, plan, made, say
        texts = [(made[n % len(made)], f"text number {n} about {words(n)}") for n in range(plan.rows)]
        edited = [text for _, text in texts[:EDITED_ROWS]]
        self._texts = texts
        self._searching = Searching(resources, texts[EDITED_ROWS:], self.outcome.failures)
        self._writing = Writing(resources, pool, made, edited, self.outcome.failures)

    async def fill(self) -> None:
        """Write the rows, and wait until they are embedded."""
        for one in self._made:
            await self._pool.execute(FILL, one.id, [text for of, text in self._texts if of.id == one.id])
        await self._until_nothing_waits()

    async def run(self) -> Outcome:
        """Change the model, back, again, and drop the former one, under load."""
        finish = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(steady(self._plan.searches, finish, self._searching.ask))
            group.create_task(steady(self._plan.writes, finish, self._writing.write))
            try:
                await self._changed()
            finally:
                finish.set()
        await self._until_nothing_waits()
        await self._compared()
        return self.outcome

    async def _changed(self) -> None:
        await self._delays("quiet", self._plan.seconds)
        started = perf_counter()
        for one in self._made[: self._plan.changed]:
            await start(self._resources, BuildOptions(self._plan.provider), dataset=one.name)
        building = asyncio.create_task(self._until_built())
        await self._delays("building", self._plan.seconds, building)
        self._fact("build_seconds", perf_counter() - started)
        await self._flip("activate", self._activate)
        await self._flip("roll_back", self._roll_back)
        await self._flip("activate_again", self._activate)
        await self._flip("drop", self._drop)

    async def _activate(self) -> None:
        for one in self._made[: self._plan.changed]:
            await flip.activate(self._resources, dataset=one.name)

    async def _roll_back(self) -> None:
        for one in self._made[: self._plan.changed]:
            await flip.roll_back(self._resources, dataset=one.name)

    async def _drop(self) -> None:
        for one in self._made[: self._plan.changed]:
            await removal.drop(self._resources, dataset=one.name)
        await removal.purge(self._resources)

    async def _flip(self, name: str, work: Callable[[], object]) -> None:
        """Do something at once, and look for the longest pauses of searches and writes until a while afterwards."""
        since = perf_counter()
        done = work()
        assert asyncio.iscoroutine(done)
        await done
        self._fact(f"{name}_seconds", perf_counter() - since)
        await asyncio.sleep(AROUND_SECONDS)
        until = perf_counter()
        self._fact(f"{name}_longest_search_ms", 1000 * self._searching.timed.longest(since, until))
        self._fact(f"{name}_longest_write_ms", 1000 * self._writing.timed.longest(since, until))
        self._say(f"{name}: {', '.join(f'{key} {value:,.3g}' for key, value in self._facts_of(name).items())}")

    async def _delays(self, name: str, least: float, work: "asyncio.Task[None] | None" = None) -> None:
        """Measure for so long, and until `work` ends, after how many seconds new rows are embedded, and how long searches take."""
        since, first = perf_counter(), len(self._writing.rows)
        spaces = await self._spaces()
        await asyncio.sleep(least)
        if work is not None:
            await work
        taken, rows = [], self._writing.rows[first:]
        await self._until_nothing_waits()
        for one in self._made:
            of = [row for row in rows if row.dataset_id == one.id]
            found = await self._pool.fetch(DELAYS, [row.id for row in of], [row.at for row in of], spaces[one.id])
            taken += [row["seconds"] for row in found]
        if taken:
            self._fact(f"{name}_delay_p50_ms", 1000 * float(np.percentile(taken, 50)))
            self._fact(f"{name}_delay_p99_ms", 1000 * float(np.percentile(taken, 99)))
        self._fact(f"{name}_longest_search_ms", 1000 * self._searching.timed.longest(since, perf_counter()))
        self._say(f"{name}: {', '.join(f'{key} {value:,.3g}' for key, value in self._facts_of(name).items())}")

    def _facts_of(self, name: str) -> dict[str, float]:
        return {
            key.removeprefix(f"{name}_"): value for key, value in self.outcome.facts.items() if key.startswith(name)
        }

    async def _spaces(self) -> dict[object, int]:
        return {
            row["id"]: row["space_id"] for row in await self._pool.fetch("SELECT id, space_id FROM evervec.datasets")
        }

    async def _until_built(self) -> None:
        """Wait until a worker has filled and indexed the next spaces; a few rows always wait, as rows are written all the time."""
        ends = monotonic() + PATIENCE
        while True:
            found = [one for one in await progress.builds(self._resources) if one.state == "next"]
            if found and all(one.indexed and one.missing <= 0.01 * one.rows + self._plan.writes for one in found):
                return
            if monotonic() > ends:
                raise TimeoutError(f"not built after {PATIENCE:g} s: {found}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _until_nothing_waits(self) -> None:
        """Wait until what was written up to now is embedded in the space that is searched."""
        seen = await self._pool.fetchval("SELECT coalesce(max(vector_id), 0) FROM evervec.embeddings")
        ends = monotonic() + PATIENCE
        while await self._pool.fetchval(f"{PENDING} AND e.vector_id <= $1", seen):
            if monotonic() > ends:
                raise TimeoutError(f"rows are not embedded after {PATIENCE:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def _compared(self) -> None:
        """Compare what is there with what was written."""
        failures = self.outcome.failures
        for text in [row[0] for row in await self._pool.fetch(LOST)][:SHOWN]:
            failures.append(f"{text!r} has no vector in the space that is searched")
        there = {row[0] for row in await self._pool.fetch("SELECT content FROM evervec.messages")}
        wanted = [*(row.text for row in self._writing.rows), *self._writing.edits.values()]
        failures += [f"{text!r} was written and is lost" for text in wanted if text not in there][:SHOWN]
        left = await self._pool.fetchval(LEFT)
        if left:
            failures.append(f"{left:,} records of spaces that were dropped are left")
        self._fact("searches", len(self._searching.timed.seconds))
        self._fact("writes", len(self._writing.timed.seconds))

    def _fact(self, name: str, value: float) -> None:
        self.outcome.facts[name] = round(value, 4)


async def tour(settings: Settings, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Tour an empty, migrated database whose default provider and `plan.provider` are there, with a worker of its own."""
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    finish = asyncio.Event()
    async with open_runtime(settings) as runtime, asyncpg.create_pool(url, min_size=2, max_size=8) as pool:
        resources = runtime.resources
        async with resources.database.transaction() as tx:
            made = [await datasets.ensure(tx, "tour", f"part-{n}") for n in range(plan.datasets)]
        following = asyncio.create_task(follow(resources.mirrors, resources.doorbell, finish))
        try:
            async with working(settings):
                one = Tour(resources, pool, plan, made, say)
                await one.fill()
                return await one.run()
        finally:
            finish.set()
            await following


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """Run `evervec worker` in a process of its own while inside."""
    said = {
        "EVERVEC_DATABASE_URL": settings.database_url.get_secret_value() if settings.database_url else "",
        "EVERVEC_QUEUE": "postgres",
        "EVERVEC_HOME": str(settings.home),
        "EVERVEC_LOCAL_MODEL": "wordllama",
        "EVERVEC_LOG_LEVEL": "WARNING",
        "EVERVEC_SWEEP_SECONDS": str(settings.sweep_seconds),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERVEC_")}
    process = await asyncio.create_subprocess_exec(EVERVEC, "worker", env=kept | said)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
