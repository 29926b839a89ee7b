"""The streams: created as they must be, brought there when they differ, refused when they can not be."""

import asyncio

import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from evervec.errors import StreamMismatchError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.jetstream.streams import wanted_streams
from evervec.queue.names import Layout
from tests.queue.conftest import Brokers
from tests.queue.waiting import eventually, working


async def recreate(broker: JetStreamBroker, **changes: object) -> None:
    """Replace the task stream by one that differs in `changes`."""
    wanted = wanted_streams(Layout("EVERVEC"), 600)[0]
    await broker.js.delete_stream("EVERVEC")
    await broker.js.add_stream(wanted.evolve(**changes))


async def test_a_new_server_gets_a_work_queue_on_disk_without_limits(broker: JetStreamBroker) -> None:
    found = (await broker.js.stream_info("EVERVEC")).config
    assert (found.retention, found.storage) == (RetentionPolicy.WORK_QUEUE, StorageType.FILE)
    assert (found.max_msgs, found.max_bytes, found.max_age, found.duplicate_window) == (-1, -1, 0, 600)
    assert (await broker.js.stream_info("EVERVEC_DLQ")).config.max_age == 30 * 86_400
    assert (await broker.js.stream_info("EVERVEC_ADV")).config.max_age == 7 * 86_400


async def test_what_can_be_changed_is_changed_in_place_and_keeps_its_tasks(brokers: Brokers) -> None:
    first = brokers()
    await first.startup()
    await recreate(first, duplicate_window=30.0, max_age=60.0, subjects=["evervec.task.old"], max_msgs=7)
    await first.js.publish("evervec.task.old", b"kept")
    await brokers().startup()
    state = await first.js.stream_info("EVERVEC")
    found = state.config
    assert (found.subjects, found.duplicate_window, found.max_age) == (["evervec.task.>"], 600, 0)
    assert found.max_msgs == -1
    assert state.state.messages == 1


@pytest.mark.parametrize(
    ("field", "value"), [("storage", StorageType.MEMORY), ("retention", RetentionPolicy.LIMITS), ("deny_delete", True)]
)
async def test_what_can_not_be_changed_is_refused_by_name(brokers: Brokers, field: str, value: object) -> None:
    first = brokers()
    await first.startup()
    await recreate(first, **{field: value})
    with pytest.raises(StreamMismatchError, match=f"EVERVEC exists with {field}="):
        await brokers().startup()


async def test_a_stream_of_somebody_else_on_our_subjects_is_refused(brokers: Brokers) -> None:
    first = brokers()
    await first.startup()
    await first.js.add_stream(StreamConfig(name="THEIRS", subjects=["mine.task.x"]))
    with pytest.raises(StreamMismatchError, match="subjects"):
        await brokers(stream="MINE").startup()


async def test_a_consumer_of_another_kind_is_refused(broker: JetStreamBroker, brokers: Brokers) -> None:
    await broker.js.delete_consumer("EVERVEC", "backfill")
    push = ConsumerConfig(durable_name="backfill", filter_subject="evervec.task.backfill", deliver_subject="push.it")
    await broker.js.add_consumer("EVERVEC", push)
    second = brokers()
    second.is_worker_process = True
    with pytest.raises(StreamMismatchError, match="consumer backfill"):
        await second.startup()


async def test_a_consumer_follows_the_settings(broker: JetStreamBroker, brokers: Brokers) -> None:
    second = brokers(ack_wait=7.0)
    second.is_worker_process = True
    await second.startup()
    assert (await broker.js.consumer_info("EVERVEC", "interactive")).config.ack_wait == 7


async def test_producers_make_no_consumers(brokers: Brokers) -> None:
    producer = brokers()
    await producer.startup()
    with pytest.raises(NotFoundError):
        await producer.js.consumer_info("EVERVEC", "interactive")


async def test_producers_that_start_while_a_worker_runs_take_nothing_from_it(brokers: Brokers) -> None:
    worker = brokers()
    runs: list[int] = []

    async def t(n: int) -> None:
        runs.append(n)

    worker.register_task(t, "t")
    producers = [brokers(), brokers()]
    async with working(worker):
        await asyncio.gather(*(p.startup() for p in producers))
        tasks = [p.register_task(t, "t") for p in producers]
        await asyncio.gather(*(tasks[n % 2].kiq(n) for n in range(100)))
        await eventually(lambda: sorted(runs) == list(range(100)))


async def test_many_that_start_at_once_agree(brokers: Brokers) -> None:
    await asyncio.gather(*(brokers().startup() for _ in range(5)))
