"""The doorbell: heard when NATS is there, quick and silent when it is not."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from evervec.errors import QueueDownError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.depth import depth
from evervec.queue.doorbell import Ring
from evervec.queue.names import Lane
from evervec.queue.nats_doorbell import NatsDoorbell
from tests.queue.servers import NatsServer
from tests.queue.waiting import eventually, working


async def test_a_ring_runs_the_task_of_that_name(broker: JetStreamBroker) -> None:
    runs: list[list[int]] = []

    @broker.task(task_name="t")
    async def t(ids: list[int]) -> None:
        runs.append(ids)

    async with working(broker):
        assert await NatsDoorbell(broker, seconds=60).ring("t", lane=Lane.BACKFILL, msg_id="x", ids=[1, 2])
        await eventually(lambda: runs == [[1, 2]])


async def test_many_rings_are_counted_by_lane(broker: JetStreamBroker) -> None:
    rings = (Ring("t", {"n": n}, Lane.BACKFILL, msg_id=f"m{n % 200}") for n in range(250))
    assert await NatsDoorbell(broker, seconds=60).ring_many(rings) == 250
    assert (await depth(broker)).lanes[Lane.BACKFILL] == 200


async def test_an_outage_is_told_once_and_costs_no_time(broker: JetStreamBroker, nats: NatsServer) -> None:
    doorbell = NatsDoorbell(broker, seconds=0.5)
    nats.kill()
    with capture_logs() as logs:
        began = time.monotonic()
        assert not await doorbell.ring("t")
        assert time.monotonic() - began < 60
        await eventually(lambda: not broker.connected)
        began = time.monotonic()
        assert await doorbell.ring_many(Ring("t") for _ in range(1000)) == 0
        assert time.monotonic() - began < 60
        with pytest.raises(QueueDownError):
            await depth(broker)
        nats.start()
        await eventually(lambda: broker.connected)
        await eventually(lambda: doorbell.ring("t"))
    told = [entry["event"] for entry in logs if entry["log_level"] == "warning" and "doorbell" in entry["event"]]
    assert told == ["doorbell failed, the sweep will find the rows", "doorbell works again"]


async def test_a_process_that_began_without_nats_is_heard_later(nats: NatsServer) -> None:
    nats.kill()
    broker = JetStreamBroker(nats.url, connect_seconds=0.3)
    with pytest.raises(QueueDownError):
        await broker.startup()
    doorbell = NatsDoorbell(broker)
    assert not await doorbell.ring("t")
    nats.start()

    async def heard() -> bool:
        return await doorbell.ring("t")

    await eventually(heard)
    await doorbell.aclose()
    await doorbell.aclose()
    await broker.shutdown()


async def test_closing_a_doorbell_ends_its_attempts(nats: NatsServer) -> None:
    nats.kill()
    doorbell = NatsDoorbell(JetStreamBroker(nats.url, connect_seconds=30))
    assert not await doorbell.ring("t")
    before = asyncio.all_tasks()
    await doorbell.aclose()
    assert asyncio.all_tasks() < before


async def test_arguments_that_json_can_not_hold_are_a_mistake_of_the_caller(broker: JetStreamBroker) -> None:
    with pytest.raises((TypeError, ValueError)):
        await NatsDoorbell(broker).ring("t", it=object())


async def test_the_depth_tells_whether_a_worker_listens(broker: JetStreamBroker) -> None:
    async def listened_to() -> bool:
        return (await depth(broker)).worker_listens

    assert not await listened_to()
    async with working(broker):
        await eventually(listened_to)
    await broker.startup()

    async def left_alone() -> bool:
        return not await listened_to()

    await eventually(left_alone)
