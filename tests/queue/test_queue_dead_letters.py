"""Tasks that can not run: kept with the reason, never dropped, and sent again on demand."""

from typing import Annotated

import pytest
from taskiq import BrokerMessage, TaskiqDepends

from evervec.errors import UnknownDeadLetterError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.dead_letters import add_dead_letter, dead_letters, drop_dead_letter, requeue_dead_letter
from evervec.queue.depth import depth
from evervec.queue.jetstream.headers import MSG_ID
from evervec.queue.names import Lane
from tests.queue.conftest import Brokers
from tests.queue.waiting import empty, eventually, working


async def test_an_unknown_task_becomes_a_dead_letter_and_can_be_requeued(
    broker: JetStreamBroker, brokers: Brokers
) -> None:
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
    """Return whether there are so many dead letters."""
    return (await depth(broker)).dead_letters == count


async def test_a_dead_letter_that_is_gone_is_dropped_again_without_an_error(broker: JetStreamBroker) -> None:
    await broker.startup()
    try:
        for seq in (1, 2, 3):
            await add_dead_letter(broker, seq, "any.task", "a reason", {}, b"body")
        # the server answers differently for one in the middle, for the last one and for one that never was
        for seq in (2, 2, 3, 3, 1, 1, 99):
            await drop_dead_letter(broker, seq)
        assert await dead_letters(broker) == []
    finally:
        await broker.shutdown()


async def test_garbage_becomes_a_dead_letter(broker: JetStreamBroker) -> None:
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
async def test_arguments_that_do_not_fit_become_a_dead_letter_with_the_reason(
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
