"""Rings through PostgreSQL: heard by every process that listens, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from structlog.testing import capture_logs

from evervec.queue.doorbell import Ring
from evervec.store.database.session import Database
from evervec.store.rings.doorbell import PostgresDoorbell
from evervec.store.rings.listener import Listener
from tests.conftest import Servers
from tests.queue.ringing import hearing, listening
from tests.queue.waiting import eventually


@pytest.fixture
async def doorbell(database: Database) -> AsyncIterator[PostgresDoorbell]:
    one = PostgresDoorbell(database)
    yield one
    await one.aclose()


async def test_a_ring_reaches_every_process_that_listens(database: Database, doorbell: PostgresDoorbell) -> None:
    other, dataset_id = PostgresDoorbell(database), uuid4()
    async with hearing(doorbell) as ours, hearing(other) as theirs:
        assert await doorbell.ring("embed_messages_batch_task", of=dataset_id, message_ids=[1])
        assert await doorbell.changed([dataset_id])
        await eventually(lambda: ours.changed == theirs.changed == [{dataset_id}])
        await eventually(lambda: ours.work == theirs.work == [dataset_id])
    await other.aclose()


async def test_rings_that_follow_each_other_are_one_a_dataset(database: Database, doorbell: PostgresDoorbell) -> None:
    first, second = uuid4(), uuid4()
    async with hearing(doorbell) as heard:
        for _ in range(500):
            assert await doorbell.ring("t", of=first)
        assert await doorbell.ring_many(Ring("t", of=second) for _ in range(500)) == 500
        assert not await doorbell.changed([])
        await eventually(lambda: second in heard.work)
    assert heard.work.count(first) <= 2
    assert heard.work.count(second) <= 2


async def test_a_ring_before_the_end_of_a_process_is_still_sent(database: Database, doorbell: PostgresDoorbell) -> None:
    last = PostgresDoorbell(database)
    ids = [uuid4() for _ in range(3)]
    async with hearing(doorbell) as heard:
        for dataset_id in ids:
            await last.ring("t", of=dataset_id)
            await asyncio.sleep(0)
        await last.aclose()
        await last.aclose()
        await eventually(lambda: set(heard.work) == set(ids))


async def test_two_installations_in_one_database_do_not_wake_each_other(
    database_url: str, doorbell: PostgresDoorbell, psql: Any
) -> None:
    await psql.execute("CREATE SCHEMA other")
    there = await Database(database_url, schema="other").open(check=False)
    theirs = PostgresDoorbell(there)
    mine, foreign = uuid4(), uuid4()
    async with hearing(doorbell) as heard, hearing(theirs) as heard_there:
        await theirs.ring("t", of=foreign)
        await eventually(lambda: heard_there.work == [foreign])
        await doorbell.ring("t", of=mine)
        await eventually(lambda: heard.work == [mine])
        assert heard_there.work == [foreign]
    await theirs.aclose()
    await there.aclose()


async def test_another_program_that_uses_the_channel_does_no_harm(doorbell: PostgresDoorbell, psql: Any) -> None:
    dataset_id = uuid4()
    async with hearing(doorbell) as heard:
        for payload in ("", "work not-an-id", "x" * 7000, f"work {dataset_id}"):
            await psql.execute("SELECT pg_notify('evervec', $1)", payload)
        await eventually(lambda: heard.work == [dataset_id])


async def test_a_connection_that_is_ended_is_replaced_and_what_was_missed_is_told(
    doorbell: PostgresDoorbell, psql: Any
) -> None:
    async with hearing(doorbell) as heard:
        (pid,) = await listening(psql)
        with capture_logs() as logs:
            await psql.execute("SELECT pg_terminate_backend($1::int)", pid)
            await eventually(lambda: heard.work == [None])
            assert heard.changed == [set()]
            (again,) = await listening(psql)
            await doorbell.ring("t", of=UUID(int=7))
            await eventually(lambda: heard.work == [None, UUID(int=7)])
        assert again != pid
        assert [entry["event"] for entry in logs] == ["not listening, the sweep finds the rows", "listening again"]
    await listening(psql, 0)


async def test_a_connection_that_is_silently_dead_is_noticed(database: Database, psql: Any) -> None:
    heard: list[str | None] = []
    listener = Listener(database, "evervec", "evervec listens", heard.append, alive_seconds=0.3)
    listener.start()
    (pid,) = await listening(psql)
    backend = psutil.Process(pid)
    backend.suspend()
    before = len(heard)
    try:
        await eventually(lambda: len(heard) > before)
    finally:
        backend.resume()

    async def rung() -> bool:
        await psql.execute("SELECT pg_notify('evervec', 'work')")  # a busy machine may lose the connection once more
        return "work" in heard

    await eventually(rung)
    await listener.aclose()
    await listener.aclose()


async def test_a_database_that_is_gone_is_told_once_and_costs_no_time(servers: Servers, database: Database) -> None:
    closed = await Database(servers.database_url, schema=None).open(check=False)
    await closed.aclose()
    doorbell = PostgresDoorbell(closed)
    with capture_logs() as logs:
        assert await doorbell.ring("t", of=uuid4())
        await doorbell.aclose()
        await doorbell.ring("t", of=uuid4())
        await doorbell.aclose()
    assert [entry["event"] for entry in logs] == ["doorbell failed, the sweep will find the rows"]
