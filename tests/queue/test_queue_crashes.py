"""What dies: the server, a worker, a worker again and again because of one task. Nothing acknowledged is lost."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from taskiq.kicker import AsyncKicker

from evervec.queue.broker import JetStreamBroker
from evervec.queue.dead_letters import dead_letters
from evervec.queue.depth import depth
from evervec.queue.names import Lane
from tests.queue.conftest import Brokers
from tests.queue.servers import NatsServer
from tests.queue.waiting import eventually, working

ROOT = Path(__file__).parents[2]
Spawn = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def spawn(nats: NatsServer, journal: Path) -> Iterator[Spawn]:
    """Start worker processes; those that still run are killed in the end."""
    workers: list[subprocess.Popen[bytes]] = []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT)])}

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.queue.worker_process", nats.url, str(journal), "8"]
        with (journal.parent / "worker.log").open("ab") as out:
            workers.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait(60)


def lines(journal: Path, word: str) -> list[str]:
    """Return the journal's lines that begin with `word`."""
    return [line for line in journal.read_text().splitlines() if line.startswith(word)]


async def send(broker: JetStreamBroker, name: str, **kwargs: object) -> None:
    """Send a task by its name."""
    kicker: AsyncKicker[Any, Any] = AsyncKicker(name, broker, {})
    await kicker.kiq(**kwargs)


async def test_an_idle_worker_outlives_the_servers_death(broker: JetStreamBroker, nats: NatsServer) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t(n: int) -> None:
        runs.append(n)

    async with working(broker) as worker:
        await t.kiq(0)
        await eventually(lambda: runs == [0])
        for round_ in (1, 2):
            nats.kill()
            await eventually(lambda: not broker.connected)
            nats.start()
            await eventually(lambda: broker.connected)
            await t.kiq(round_)
            await eventually(lambda: round_ in runs)  # noqa: B023  # awaited at once
        assert not worker.done()


async def test_a_worker_stops_while_the_server_is_away(brokers: Brokers, nats: NatsServer) -> None:
    broker = brokers()
    async with working(broker):
        await eventually(lambda: broker.connected)
        nats.kill()
        await eventually(lambda: not broker.connected)
        began = time.monotonic()
    assert time.monotonic() - began < 60


async def test_no_accepted_task_is_lost_when_the_server_dies_under_load(brokers: Brokers, nats: NatsServer) -> None:
    producer, broker = brokers(kick_seconds=60.0), brokers(ack_wait=2.0)
    await producer.startup()
    runs: Counter[int] = Counter()

    async def t(n: int) -> None:
        await asyncio.sleep(0.005)
        runs[n] += 1

    broker.register_task(t, "t")
    task = producer.register_task(t, "t")

    async def produce() -> None:
        for n in range(400):
            await task.kiq(n)
            await asyncio.sleep(0.002)

    async with working(broker, tasks=8):
        producing = asyncio.create_task(produce())
        for least in (60, 200):
            await eventually(lambda: len(runs) >= least)  # noqa: B023  # awaited at once
            nats.kill()
            await eventually(lambda: not broker.connected)
            nats.start()
        await producing
        await eventually(lambda: len(runs) == 400)
    # A lost acknowledgement means a second run, which every task must bear; it must stay the exception.
    assert runs.total() < 440


async def test_what_a_killed_worker_held_is_run_by_another(
    broker: JetStreamBroker, spawn: Spawn, journal: Path
) -> None:
    await asyncio.gather(*(send(broker, "slow", n=n, seconds=0.1) for n in range(100)))
    first = spawn()
    await eventually(lambda: len(lines(journal, "end")) >= 20)
    first.kill()
    spawn()
    await eventually(lambda: len(set(lines(journal, "end"))) == 100)
    ends = Counter(lines(journal, "end"))
    assert max(ends.values()) <= 2
    assert sum(ends.values()) <= 108, "at most what ran in the moment of death ends twice"


@pytest.mark.slow
async def test_a_task_that_ends_workers_becomes_a_dead_letter_and_the_others_run(
    broker: JetStreamBroker, spawn: Spawn, journal: Path
) -> None:
    await send(broker, "poison")
    for n in range(30):
        await send(broker, "slow", n=n, seconds=0.3)
    worker = spawn()

    async def over() -> bool:
        nonlocal worker
        if worker.poll() is not None:
            worker = spawn()
        return (await depth(broker)).dead_letters == 1

    await eventually(over)
    await eventually(lambda: len(set(lines(journal, "end"))) == 30)
    (letter,) = await dead_letters(broker)
    assert letter.task_name == "poison"
    assert letter.subject == "evervec.task.interactive"
    assert "never finished" in letter.reason
    assert len(lines(journal, "poison")) == 4, "twice among others, twice alone"
    assert max(Counter(lines(journal, "end")).values()) == 1
    await eventually(lambda: nothing_left(broker))


async def nothing_left(broker: JetStreamBroker) -> bool:
    """Whether every lane is empty."""
    return set((await depth(broker)).lanes.values()) == {0}


async def test_what_is_delivered_too_often_becomes_a_dead_letter_by_any_worker(brokers: Brokers) -> None:
    broker = brokers(ack_wait=0.3, fetch_seconds=0.3)
    broker.is_worker_process = True
    await broker.startup()
    kicker: AsyncKicker[Any, Any] = AsyncKicker("t", broker, {"lane": Lane.QUARANTINE})
    await kicker.kiq()
    subscription = await broker.js.pull_subscribe_bind(str(Lane.QUARANTINE), "EVERVEC")
    for _ in range(2):
        await subscription.fetch(1, timeout=60)
    await subscription.unsubscribe()

    async def is_dead_letter() -> bool:
        return (await depth(broker)).dead_letters == 1

    async with working(broker):
        await eventually(is_dead_letter)
        await eventually(lambda: nothing_left(broker))
    (letter,) = await dead_letters(broker)
    assert (letter.task_name, letter.deliveries) == ("t", 2)
