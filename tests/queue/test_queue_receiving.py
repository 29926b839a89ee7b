"""A worker: in which order it takes tasks, that each runs once, and what becomes of those that can not run."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import pytest
import uvloop
from nats.aio.msg import Msg
from structlog.testing import capture_logs
from taskiq import BrokerMessage, TaskiqDepends, TaskiqMessage, TaskiqMiddleware

from evervec.errors import StreamMismatchError, UnknownDeadLetterError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.dead_letters import dead_letters, requeue_dead_letter
from evervec.queue.delivery import Held
from evervec.queue.depth import depth
from evervec.queue.headers import MSG_ID
from evervec.queue.intake import Intake
from evervec.queue.names import Lane
from tests.queue.conftest import Brokers
from tests.queue.servers import NatsServer
from tests.queue.waiting import eventually, working


async def empty(broker: JetStreamBroker) -> bool:
    """Whether every task was acknowledged."""
    return sum((await depth(broker)).lanes.values()) == 0


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
            await t.kiq(1)
            assert await eventually(lambda: runs == [1]) < 0.2
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
    one, two = brokers(), brokers()
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
            await eventually(lambda: ran_by == ["one", "long", *["two"] * 5], seconds=3)
        busy.set()


async def requests_wait(broker: JetStreamBroker) -> bool:
    """Whether an idle worker has left a request with both lanes."""
    infos = [await broker.js.consumer_info("EVERVEC", lane) for lane in (Lane.INTERACTIVE, Lane.BACKFILL)]
    return all(info.num_waiting for info in infos)


async def test_what_was_fetched_and_not_begun_goes_back_at_once(brokers: Brokers) -> None:
    broker = brokers(ack_wait=30.0)
    broker.is_worker_process = True
    await broker.startup()

    @broker.task(task_name="t")
    async def t() -> None: ...

    for _ in range(8):
        await t.kiq()

    def intake() -> Intake:
        held = Held(30.0, 60.0)
        return Intake(broker.client, broker.layout, held, batch=8, expires=5.0, room=lambda: 8)

    async def never() -> None:
        raise AssertionError("nothing is to be repaired")

    first, second = intake(), intake()
    (await first.next(never)).executing = True
    await first.close()
    async with asyncio.timeout(2):
        taken = [await second.next(never) for _ in range(7)]
    assert {delivery.deliveries for delivery in taken} == {2}
    await second.close()


async def test_a_task_longer_than_the_ack_wait_runs_once(brokers: Brokers) -> None:
    runs: list[str] = []
    one, two = brokers(ack_wait=0.6), brokers(ack_wait=0.6)
    for broker in (one, two):

        @broker.task(task_name="t")
        async def t() -> None:
            runs.append("began")
            await asyncio.sleep(2.2)
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
        await eventually(lambda: runs == [0, 1])
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
    broker = brokers(ack_wait=30.0)
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
        await eventually(lambda: runs == [1], seconds=5)


async def test_an_unknown_task_is_set_aside_and_can_be_sent_again(broker: JetStreamBroker, brokers: Brokers) -> None:
    producer = brokers()
    await producer.startup()

    async def new(n: int) -> None:
        runs.append(n)

    runs: list[int] = []
    sent = producer.register_task(new, "new.task")
    async with working(broker):
        await sent.kicker().with_labels(lane=Lane.BACKFILL).kiq(5)
        await eventually(lambda: dead_count(broker, 1))
        (letter,) = await dead_letters(broker)
        assert (letter.task_name, letter.subject, letter.deliveries) == ("new.task", "evervec.task.backfill", 1)
        assert letter.reason == "unknown task 'new.task'"
        assert await empty(broker)

        broker.register_task(new, "new.task")
        await requeue_dead_letter(broker, letter.seq)
        await eventually(lambda: runs == [5])
        assert await dead_letters(broker) == []
        with pytest.raises(UnknownDeadLetterError):
            await requeue_dead_letter(broker, letter.seq)


async def dead_count(broker: JetStreamBroker, count: int) -> bool:
    """Whether so many tasks are set aside."""
    return (await depth(broker)).dead_letters == count


async def test_garbage_is_set_aside(broker: JetStreamBroker) -> None:
    bodies = [b"\x00\xff garbage", b"", b"[]", b'{"task_id": 1}', "«ё»".encode()]
    async with working(broker):
        for number, body in enumerate(bodies):
            await broker.publish("evervec.task.interactive", body, {MSG_ID: f"g{number}"})
        await eventually(lambda: dead_count(broker, len(bodies)))
        await eventually(lambda: empty(broker))
    letters = await dead_letters(broker)
    assert sorted(letter.body for letter in letters) == sorted(bodies)
    assert all(letter.reason.startswith("unreadable payload") for letter in letters)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({}, "missing a required argument: 'ids'"),
        ({"ids": [1], "typo": 2}, "unexpected keyword argument 'typo'"),
        ({"ids": "no list"}, "argument ids does not fit"),
        ({"ids": [1, None]}, "argument ids does not fit"),
        ({"ids": None}, "argument ids does not fit"),
    ],
)
async def test_arguments_that_do_not_fit_are_set_aside_with_the_reason(
    broker: JetStreamBroker, kwargs: dict[str, object], reason: str
) -> None:
    @broker.task(task_name="t")
    async def t(ids: list[int], db: Annotated[str, TaskiqDepends(lambda: "db")], lane: str = "x") -> None:
        raise AssertionError("must not run")

    async with working(broker):
        await t.kiq(**kwargs)  # type: ignore[call-overload]  # wrong on purpose
        await eventually(lambda: dead_count(broker, 1))
    (letter,) = await dead_letters(broker)
    assert reason in letter.reason


async def test_arguments_that_fit_reach_the_task_with_its_dependencies(broker: JetStreamBroker) -> None:
    runs: list[object] = []

    @broker.task(task_name="t")
    async def t(ids: list[int], db: Annotated[str, TaskiqDepends(lambda: "db")], lane: str = "x") -> None:
        runs.append((ids, db, lane))

    async with working(broker):
        await t.kiq(ids=[1], lane="y")  # type: ignore[call-overload]  # db is injected
        await eventually(lambda: runs == [([1], "db", "y")])


async def test_a_stop_under_load_hands_everything_to_the_next_worker_at_once(brokers: Brokers) -> None:
    ack_wait = 30.0
    first, second = brokers(ack_wait=ack_wait), brokers(ack_wait=ack_wait)
    began: list[int] = []
    ended: list[int] = []
    stuck = asyncio.Event()

    async def never(n: int) -> None:
        began.append(n)
        await stuck.wait()

    async def quick(n: int) -> None:
        ended.append(n)

    task = first.register_task(never, "t")
    second.register_task(quick, "t")
    async with working(first, tasks=4, wait=0.2):
        await asyncio.gather(*(task.kiq(n) for n in range(30)))
        await eventually(lambda: len(began) == 4)
    async with working(second, tasks=4):
        took = await eventually(lambda: len(set(ended)) == 30)
    assert took < 2
    assert sorted(ended) == list(range(30))


async def test_a_stop_waits_for_what_runs(broker: JetStreamBroker) -> None:
    runs: list[str] = []

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append("began")
        await asyncio.sleep(0.5)
        runs.append("ended")

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs == ["began"])
    assert runs == ["began", "ended"]
    assert await empty(broker)


async def test_tasks_sent_during_a_stop_are_not_swallowed(brokers: Brokers) -> None:
    first, second = brokers(ack_wait=30.0), brokers(ack_wait=30.0)
    runs: list[int] = []

    async def t(n: int) -> None:
        await asyncio.sleep(0.05)
        runs.append(n)

    task = first.register_task(t, "t")
    second.register_task(t, "t")
    await second.startup()
    sending = [asyncio.create_task(second.find_task("t").kiq(-1))]  # type: ignore[union-attr]  # just registered
    async with working(first, tasks=2):
        await eventually(lambda: runs == [-1])
        sending += [asyncio.create_task(task.kiq(n)) for n in range(10)]
        await asyncio.gather(*sending)
    async with working(second, tasks=2):
        took = await eventually(lambda: len(runs) == 11)
    assert took < 2


@pytest.mark.parametrize("lost", ["consumer", "stream"])
async def test_a_consumer_or_stream_removed_while_running_is_made_again(broker: JetStreamBroker, lost: str) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t(n: int) -> None:
        runs.append(n)

    async with working(broker):
        await t.kiq(1)
        await eventually(lambda: runs == [1])
        await eventually(lambda: empty(broker))
        if lost == "consumer":
            await broker.js.delete_consumer("EVERVEC", "interactive")
        else:
            await broker.js.delete_stream("EVERVEC")
        await t.kiq(2)
        await eventually(lambda: runs == [1, 2], seconds=5)


async def test_a_stream_made_unfit_ends_the_worker_loudly(broker: JetStreamBroker) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(1)

    with pytest.raises(StreamMismatchError, match="deny_delete=True"):
        async with working(broker) as worker:
            await t.kiq()
            await eventually(lambda: runs == [1])
            found = (await broker.js.stream_info("EVERVEC")).config
            await broker.js.update_stream(found.evolve(deny_delete=True))
            await broker.js.delete_consumer("EVERVEC", "interactive")
            await eventually(worker.done)


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
    broker = brokers(ack_wait=0.6)
    runs: list[int] = []

    @broker.task(task_name="t")
    def t() -> None:
        runs.append(1)
        time.sleep(1.5)

    async with working(broker):
        await t.kiq()
        await eventually(lambda: runs == [1])
        assert not await empty(broker)
        await eventually(lambda: empty(broker))
    assert runs == [1]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_event_loops_stop_an_idle_worker_at_once(loop: object, nats: NatsServer) -> None:
    async def run() -> float:
        broker = JetStreamBroker(nats.url)
        runs: list[int] = []

        @broker.task(task_name="t")
        async def t() -> None:
            runs.append(1)

        async with working(broker):
            await t.kiq()
            await eventually(lambda: runs == [1])
            began = time.monotonic()
        return time.monotonic() - began

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # parametrized
        assert runner.run(run()) < 1.5


async def test_a_message_by_hand_needs_no_headers_of_ours(broker: JetStreamBroker) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(1)

    body = broker.formatter.dumps(t.kicker()._prepare_message())
    assert isinstance(body, BrokerMessage)
    async with working(broker):
        await broker.js.publish("evervec.task.interactive", body.message)
        await eventually(lambda: runs == [1])
