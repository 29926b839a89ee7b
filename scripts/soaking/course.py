"""The course of a soak: who runs, what happens when, and what came of it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store import datasets, monitor
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from scripts.soaking import memory, texts
from scripts.soaking.children import Child, ChildError
from scripts.soaking.memory import Memory
from scripts.soaking.writing import Writers

MOMENTS = 20
KILL_EVERY = (20.0, 45.0)
FLAT_BELOW = 20_000
LARGE, GROWS = 0.75, 0.88
"""The larger one of the two datasets has that share of the rows; it begins smaller, and grows out of a flat scan."""
BLOCK = 1000
EMBEDDED = 120.0
TROUBLE = ("mirror repaired", "mirror failed", "mirror round failed", "sweep failed", "Traceback")
CHECKED = {"EVERVEC_SWEEP_SECONDS": "1", "EVERVEC_MIRROR_CHECK_SECONDS": "30", "EVERVEC_MIRROR_RECALL_SECONDS": "60"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long, how many rows a second, how many rows, and the seed of all that is random."""

    minutes: float
    rate: float
    rows: int
    seed: int

    def sizes(self) -> tuple[int, int]:
        """Return the rows that the large and the small dataset come to have."""
        large = round(self.rows * LARGE)
        return large, self.rows - large

    def moments(self, chance: random.Random) -> list[tuple[float, str]]:
        """Return `(second, "compare" or "kill")` in order of time."""
        seconds = self.minutes * 60
        due = [(chance.uniform(0.03, 1) * seconds, "compare") for _ in range(MOMENTS)]
        at = chance.uniform(*KILL_EVERY)
        while at < seconds:
            due.append((at, "kill"))
            at += chance.uniform(*KILL_EVERY)
        return sorted(due)


@dataclass
class Outcome:
    """What a soak found. It holds when nothing failed."""

    failures: list[str] = field(default_factory=list)
    moments: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    memory: Memory | None = None

    @property
    def holds(self) -> bool:
        """Return whether nothing failed."""
        return not self.failures

    def judge(self, where: str, answer: dict[str, Any]) -> None:
        """Judge one answer to "compare"; every dataset in it must be equal."""
        if "error" in answer:
            self.failures.append(f"{where}: {answer['error']}")
            return
        self.moments.append({"where": where, **answer})
        for name, verdict in answer.items():
            if not verdict["equal"] or not verdict["check"]:
                self.failures.append(f"{where}, {name}: {verdict}")


async def soak(plan: Plan, home: Path, say: Say) -> Outcome:
    """Run the whole soak on a stack of its own in that folder."""
    outcome = Outcome()
    settings = Settings(home=home, database_url=None, nats_url=None, nats_port=None)
    async with open_runtime(settings, worker=True) as runtime:
        resources = runtime.resources
        sizes = await _filled(resources, plan, say)
        addresses = {
            "EVERVEC_DATABASE_URL": runtime.stack.urls.database_url,
            "EVERVEC_NATS_URL": runtime.stack.urls.nats_url,
        }
        async with _children(plan, home, addresses, outcome) as children:
            await _course(plan, resources, Writers(resources, sizes, plan.rate, plan.seed), children, outcome, say)
    return outcome


async def _filled(resources: Resources, plan: Plan, say: Say) -> dict[DatasetRef, int]:
    """Make two datasets and embed them. HNSW is built afterwards: that takes seconds instead of minutes."""
    space = (await resources.provider()).space
    await hnsw.drop_indexes(resources.database, space.id)
    chance = random.Random(plan.seed)
    sizes: dict[DatasetRef, int] = {}
    for name, size in zip(("large", "small"), plan.sizes(), strict=True):
        async with resources.database.transaction() as tx:
            dataset = await datasets.ensure(tx, "soak", name)
        begins = min(round(size * GROWS), FLAT_BELOW - BLOCK)
        for start in range(0, begins, BLOCK):
            made = [texts.text(chance) for _ in range(min(BLOCK, begins - start))]
            async with resources.database.transaction() as tx:
                columns = ("dataset_id", "chat", "external_id", "author", "content")
                records = ((dataset.id, name, str(start + n), "ada", text) for n, text in enumerate(made))
                await tx.copy("messages", columns, records)
        await embed_dataset(resources, dataset.id)
        sizes[dataset] = size
        say(f"{name}: {begins:,} rows embedded, to become {size:,}")
    await hnsw.build_indexes(resources.database, space.id, space.dimensions)
    return sizes


@asynccontextmanager
async def _children(
    plan: Plan, home: Path, addresses: dict[str, str], outcome: Outcome
) -> AsyncIterator[dict[str, Child]]:
    """Start a worker that follows, and a second process with a folder of its own, as on another machine."""
    children: dict[str, Child] = {}
    for number, (name, more) in enumerate({"worker": ["--worker"], "follower": []}.items()):
        environment = {**addresses, **CHECKED, "EVERVEC_HOME": str(home / name)}
        children[name] = Child(name, home / f"{name}.log", environment, str(plan.seed + number), *more)
    try:
        for child in children.values():
            await child.start()
        yield children
    finally:
        for child in children.values():
            code = await child.stop()
            if code != 0:
                outcome.failures.append(f"{child.name} ended with {code}")
            logged = child.logged()
            outcome.facts[f"{child.name} logged"] = dict(logged)
            trouble = {event: count for event, count in logged.items() if event.startswith(TROUBLE)}
            if trouble:
                outcome.failures.append(f"{child.name} logged {trouble}")


async def _course(
    plan: Plan, resources: Resources, writers: Writers, children: dict[str, Child], outcome: Outcome, say: Say
) -> None:
    await _compare(resources, children, outcome, "before", say)
    finish, samples = asyncio.Event(), _Samples(children["worker"].pid)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(writers.write(finish))
        sampling = group.create_task(samples.take())
        try:
            await _moments(plan, resources, writers, children, outcome, say)
        finally:
            finish.set()
        await writing
        outcome.facts["seconds"] = samples.seconds
        sampling.cancel()
    await _embedded(resources, outcome)
    await _compare(resources, children, outcome, "at the end", say, nothing_in_flight=True)
    await _report(writers, children, outcome)
    outcome.memory = memory.judged(samples.times, samples.megabytes)
    if not outcome.memory.flat:
        outcome.failures.append(f"memory grows: {outcome.memory}")


class _Samples:
    """The memory of a process, once a second."""

    def __init__(self, pid: int) -> None:
        self.times: list[float] = []
        self.megabytes: list[float] = []
        self._pid, self._started = pid, perf_counter()

    @property
    def seconds(self) -> float:
        """Return the seconds since the begin."""
        return perf_counter() - self._started

    async def take(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.megabytes.append(memory.anonymous(self._pid))
            self.times.append(self.seconds)
            await asyncio.sleep(1)


async def _moments(
    plan: Plan, resources: Resources, writers: Writers, children: dict[str, Child], outcome: Outcome, say: Say
) -> None:
    """Wait for one moment after the other, while others write and search."""
    started, number = perf_counter(), 0
    for second, what in plan.moments(random.Random(plan.seed)):
        await asyncio.sleep(max(0.0, started + second - perf_counter()))
        if what == "kill":
            say(f"{second:6.1f} s  the follower is killed")
            await _searched(children["follower"], outcome)
            await children["follower"].kill()
            continue
        number += 1
        say(f"{second:6.1f} s  moment {number} of {MOMENTS}, {writers.rows:,} rows written")
        await _compare(resources, children, outcome, f"moment {number}", say)
    await asyncio.sleep(max(0.0, started + plan.minutes * 60 - perf_counter()))


async def _compare(
    resources: Resources,
    children: dict[str, Child],
    outcome: Outcome,
    when: str,
    say: Say,
    *,
    nothing_in_flight: bool = False,
) -> None:
    """Compare every process, at a watermark that has seen all that was committed until now."""
    async with resources.database.transaction() as tx:
        seen = int(await tx.fetchval("SELECT pg_current_xact_id()::text"))
    for name, child in children.items():
        before = len(outcome.failures)
        try:
            answer = await child.ask("compare", seen=seen)
        except ChildError as error:
            outcome.failures.append(f"{when}: {error}")
            continue
        outcome.judge(f"{when}, {name}", answer)
        if nothing_in_flight and any(verdict.get("in_flight") for verdict in answer.values()):
            outcome.failures.append(f"{when}, {name}: not everything was compared: {answer}")
        for failure in outcome.failures[before:]:
            say(f"  FAILED {failure}")


async def _embedded(resources: Resources, outcome: Outcome) -> None:
    """Wait until the worker has embedded everything."""
    ends = perf_counter() + EMBEDDED
    while perf_counter() < ends:
        async with resources.database.read() as tx:
            live = [dataset.id for dataset in await datasets.live(tx)]
            if not await monitor.pending(tx, live):
                return
        await asyncio.sleep(0.2)
    outcome.failures.append(f"rows were still pending {EMBEDDED:.0f} s after the last write")


async def _searched(child: Child, outcome: Outcome) -> dict[str, Any]:
    """Read what a process did so far; a search that failed or a check that found something fails the soak."""
    try:
        told = await child.ask("report")
    except ChildError as error:
        outcome.failures.append(str(error))
        return {}
    if told["failed"]:
        outcome.failures.append(f"{child.name}: {told['failed']} searches failed: {told['examples']}")
    if told["not_in_sync"]:
        outcome.failures.append(f"{child.name}: checks were not in sync: {told['not_in_sync']}")
    total = outcome.facts.setdefault("searches", 0)
    outcome.facts["searches"] = total + told["searches"]
    return told


async def _report(writers: Writers, children: dict[str, Child], outcome: Outcome) -> None:
    for name, child in children.items():
        outcome.facts[name] = await _searched(child, outcome) | {"kills": child.kills}
    outcome.facts["written"] = dict(writers.done)
    outcome.facts["rows_written"] = writers.rows
    outcome.facts["rows_a_second"] = round(writers.rows / outcome.facts["seconds"], 1)
    outcome.facts["deadlocks"] = writers.deadlocks
