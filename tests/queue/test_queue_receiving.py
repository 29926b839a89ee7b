"""A worker: in which order it takes tasks, and that each runs once."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from structlog.testing import capture_logs
from taskiq import TaskiqMessage, TaskiqMiddleware

from evervec.queue.broker import JetStreamBroker
from evervec.queue.dead_letters import dead_letters
from evervec.queue.names import Lane
from tests.queue.conftest import Brokers
from tests.queue.waiting import empty, eventually, working


async def test_an_idle_worker_stays_calm_and_awake(brokers: Brokers) -> None:
    broker, watcher = brokers(fetch_seconds=0.2), brokers()
    await watcher.startup()
    requests: list[int] = []
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t(n: int) -> None:
        runs.append(n)

    async def count(message: Msg) -> None:
        requests.append(json.loads(message.data)["batch"])

    await watcher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.EVERVEC.interactive", cb=count)
    with capture_logs() as logs:
        async with working(broker) as worker:
            await eventually(lambda: len(requests) >= 20)
            assert not worker.done()
            took: list[float] = []
            # a busy machine may be late now and then, a worker that sleeps always is
            while not took or (min(took) >= 0.2 and len(took) < 20):
                await t.kiq(len(took))
                took.append(await eventually(lambda: len(runs) > len(took)))
            assert min(took) < 0.2
            await eventually(lambda: empty(broker))
    assert [entry for entry in logs if entry["log_level"] not in ("debug", "info")] == []


async def test_what_people_wait_for_runs_before_what_may_wait(broker: JetStreamBroker) -> None:
    order: list[str] = []
    blocking = asyncio.Event()

    @broker.task(task_name="t")
    async def t(name: str) -> None:
        order.append(name)
        if name == "first":
            await blocking.wait()
        await asyncio.sleep(0.002)

    async def send(name: str, lane: Lane) -> None:
        await t.kicker().with_labels(lane=lane).kiq(name)

    await send("first", Lane.BACKFILL)
    async with working(broker, tasks=1):
        await eventually(lambda: order == ["first"])
        await asyncio.gather(*(send("late", Lane.BACKFILL) for _ in range(200)))
        await asyncio.gather(*(send("now", Lane.INTERACTIVE) for _ in range(20)))
        blocking.set()
        await eventually(lambda: len(order) == 221)
    assert order[1:21] == ["now"] * 20


async def test_a_busy_worker_leaves_tasks_to_an_idle_one(brokers: Brokers) -> None:
    """The busy one still had a request waiting on the interactive lane when its last place was taken."""
    one, two = (brokers(ack_wait=600.0) for _ in range(2))
    ran_by: list[str] = []
    busy = asyncio.Event()

    async def long() -> None:
        ran_by.append("long")
        await busy.wait()

    def short_on(name: str) -> Callable[[], Awaitable[None]]:
        async def short() -> None:
            ran_by.append(name)

        return short

    one.register_task(long, "long")
    sent = one.register_task(short_on("one"), "short")
    two.register_task(short_on("two"), "short")
    async with working(one, tasks=1):
        await sent.kiq()
        await eventually(lambda: ran_by == ["one"])
        await eventually(lambda: requests_wait(one))
        await one.register_task(long, "long").kicker().with_labels(lane=Lane.BACKFILL).kiq()
        await eventually(lambda: ran_by == ["one", "long"])
        async with working(two, tasks=1):
            for _ in range(5):
                await sent.kiq()
            await eventually(lambda: ran_by == ["one", "long", *["two"] * 5])
        busy.set()


async def requests_wait(broker: JetStreamBroker) -> bool:
    """Whether an idle worker has left a request with both lanes."""
    infos = [await broker.js.consumer_info("EVERVEC", lane) for lane in (Lane.INTERACTIVE, Lane.BACKFILL)]
    return all(info.num_waiting for info in infos)


async def test_a_task_longer_than_the_ack_wait_runs_once(brokers: Brokers) -> None:
    runs: list[str] = []
    one, two = brokers(ack_wait=2.0), brokers(ack_wait=2.0)
    for broker in (one, two):

        @broker.task(task_name="t")
        async def t() -> None:
            runs.append("began")
            await asyncio.sleep(3)
            runs.append("ended")

    async with working(one), working(two):
        await t.kiq()
        await eventually(lambda: "ended" in runs)
        await eventually(lambda: empty(one))
    assert runs == ["began", "ended"]


async def test_a_task_held_beyond_the_ceiling_is_given_to_another_worker(brokers: Brokers) -> None:
    runs: list[int] = []
    hang = asyncio.Event()
    broker = brokers(ack_wait=0.4, hold_seconds=0.6)

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            await hang.wait()

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs[:2] == [0, 1])
        hang.set()


async def test_a_task_that_raised_is_done(broker: JetStreamBroker) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(1)
        raise RuntimeError("retries live in the database")

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs == [1])
        await eventually(lambda: empty(broker))
    assert await dead_letters(broker) == []


async def test_a_task_that_broke_off_before_its_acknowledgement_comes_back_soon(brokers: Brokers) -> None:
    broker = brokers(ack_wait=600.0)
    runs: list[int] = []

    class Stumble(TaskiqMiddleware):
        stumbled = 0

        async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
            self.stumbled += 1
            if self.stumbled == 1:
                raise RuntimeError("before the task")
            return message

    broker.add_middlewares(Stumble())

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(1)

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs == [1])


async def test_quarantine_runs_alone(broker: JetStreamBroker) -> None:
    running: set[int] = set()
    together: list[int] = []
    done: list[int] = []

    @broker.task(task_name="t")
    async def t(n: int) -> None:
        running.add(n)
        if n < 0:
            for more in range(4):
                await t.kiq(more - 100 * n)
        await asyncio.sleep(0.1)
        if n < 0:
            together.append(len(running))
        running.remove(n)
        done.append(n)

    for n in (-1, -2):
        await t.kicker().with_labels(lane=Lane.QUARANTINE).kiq(n)
    await asyncio.gather(*(t.kiq(n) for n in range(12)))
    async with working(broker):
        await eventually(lambda: len(done) == 22)
    assert together == [1, 1]


async def test_a_blocking_task_runs_in_a_thread_and_once(brokers: Brokers) -> None:
    broker = brokers(ack_wait=2.0)
    runs: list[int] = []
    finish = threading.Event()

    @broker.task(task_name="t")
    def t() -> None:
        runs.append(1)
        finish.wait(60)

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs == [1])
        assert not await empty(broker)
        await asyncio.sleep(2.5)
        finish.set()
        await eventually(lambda: empty(broker))
    assert runs == [1]
