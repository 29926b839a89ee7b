"""How a worker stops, when told to and when it must; its tasks run elsewhere soon."""

import asyncio
import time
from contextlib import suppress

import pytest
import uvloop

from evervec.errors import QueueDownError, StreamMismatchError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.jetstream.delivery import UnsettledDeliveries
from evervec.queue.jetstream.lane_reader import LaneReader
from evervec.queue.receiver import serve
from tests.queue.conftest import Brokers
from tests.queue.servers import NatsServer
from tests.queue.waiting import empty, eventually, working


async def test_what_was_fetched_and_not_begun_goes_back_at_once(brokers: Brokers) -> None:
    broker = brokers(ack_wait=600.0)
    broker.is_worker_process = True
    await broker.startup()

    @broker.task(task_name="t")
    async def t() -> None: ...

    for _ in range(8):
        await t.kiq()

    def reader() -> LaneReader:
        unsettled = UnsettledDeliveries(600.0, 600.0)
        return LaneReader(broker.client, broker.layout, unsettled, batch=8, expires=5.0, room=lambda: 8)

    async def never() -> None:
        raise AssertionError("nothing is to be repaired")

    first, second = reader(), reader()
    (await first.next(never)).executing = True
    await first.close()
    async with asyncio.timeout(60):
        taken = [await second.next(never) for _ in range(7)]
    assert {delivery.deliveries for delivery in taken} == {2}
    await second.close()


async def test_a_stop_under_load_hands_everything_to_the_next_worker_at_once(brokers: Brokers) -> None:
    first, second = (brokers(ack_wait=600.0) for _ in range(2))
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
        await eventually(lambda: len(set(ended)) == 30)
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
    first, second = (brokers(ack_wait=600.0) for _ in range(2))
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
        await eventually(lambda: len(runs) == 11)


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
        await eventually(lambda: runs == [1, 2])


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


async def test_a_connection_closed_for_good_ends_the_worker_loudly(broker: JetStreamBroker) -> None:
    runs: list[int] = []

    @broker.task(task_name="t")
    async def t() -> None:
        runs.append(1)

    with pytest.raises(QueueDownError, match="for good"):
        async with working(broker) as worker:
            await t.kiq()
            await eventually(lambda: runs == [1])
            await broker.client.close()
            await eventually(worker.done)
    await broker.startup()
    assert broker.connected


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
        # a busy machine may be late now and then, a stop that waits for its last fetch always is
        assert any(runner.run(run()) < 1.5 for _ in range(5))


async def test_a_flush_that_is_given_up_and_answered_all_the_same_is_no_news(
    brokers: Brokers, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers()
    await broker.startup()
    client = broker.client
    # what is left of a flush that was cancelled, at the moment when its answer comes
    given_up = asyncio.get_running_loop().create_future()
    given_up.cancel()
    await client._send_ping(given_up)
    await eventually(lambda: client._reading_task.done())
    assert "encountered error" not in caplog.text


async def test_a_stop_whose_cancellation_is_swallowed_still_ends_the_worker(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = brokers()
    began = asyncio.Event()

    async def swallow() -> None:
        """Do what `wait_for` does before Python 3.12 when the answer comes together with the cancellation."""
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(broker, "_recreate", swallow)
    finish = asyncio.Event()
    worker = asyncio.create_task(serve(broker, max_async_tasks=1, wait_tasks_timeout=1, finish=finish))
    async with asyncio.timeout(60):
        await began.wait()
        finish.set()
        await worker
