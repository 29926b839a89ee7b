"""Holding a lease: renewed over broken connections, released however the work ends, and noticed when it was lost."""

import asyncio
from typing import Any

import pytest

from evervec.errors import DatabaseDownError, LeaseLostError
from evervec.pipeline.leases import HeldLease, held
from evervec.store import datasets
from evervec.store.database.session import Database
from tests.e2e.waiting import eventually

TAKEN = "UPDATE leases SET owner = gen_random_uuid(), lease_until = now() + interval '1 hour'"
THROWN_OUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def names(psql: Any) -> list[str]:
    return [row["name"] for row in await psql.fetch("SELECT name FROM leases ORDER BY name")]


def write(lease: HeldLease) -> Any:
    return lease.database.with_retries(lambda tx: datasets.ensure(tx, "river", "log"))


async def test_whoever_comes_second_is_told_at_once(database: Database, psql: Any) -> None:
    async with held(database, "work", 60) as first, held(database, "work", 60) as second:
        assert (first is None, second is None) == (False, True)
        assert await names(psql) == ["work"]
    assert await names(psql) == []


async def test_of_two_at_once_one_holds_it(database: Database) -> None:
    holding = 0

    async def once() -> bool:
        nonlocal holding
        async with held(database, "work", 60) as lease:
            if lease is None:
                return False
            holding += 1
            assert holding == 1
            await write(lease)
            holding -= 1
            return True

    assert any(await asyncio.gather(*(once() for _ in range(6))))


async def test_a_lease_is_renewed_while_the_work_lasts_over_broken_connections(database: Database, psql: Any) -> None:
    seconds, until = 6.0, "SELECT lease_until FROM leases WHERE lease_until > now()"
    async with held(database, "work", seconds) as lease:
        assert lease is not None
        for _ in range(2):
            before = await psql.fetchval(until)
            await psql.execute(THROWN_OUT)

            async def renewed(before: Any = before) -> bool:
                return bool((await psql.fetchval(until) or before) > before)

            await eventually("it is renewed", renewed)
            async with held(database, "work", seconds) as other:
                assert other is None
        await write(lease)


@pytest.mark.parametrize("ended", [asyncio.CancelledError, ValueError])
async def test_a_lease_ends_with_the_work(database: Database, psql: Any, ended: type[BaseException]) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with held(database, "work", 60):
            begun.set()
            if ended is ValueError:
                raise ValueError
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel() if ended is asyncio.CancelledError else None
    with pytest.raises(ended):
        await task
    assert await names(psql) == []


async def test_a_cancellation_while_it_is_acquired_leaves_nothing_held(database: Database, psql: Any) -> None:
    async def work() -> None:
        async with held(database, "work", 60):
            await asyncio.Event().wait()

    for turns in range(1, 40):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await names(psql) == []


async def test_who_has_lost_it_writes_nothing_and_asks_before_it_pays(database: Database, psql: Any) -> None:
    async with held(database, "work", 60) as lease:
        assert lease is not None
        await lease.confirm()
        await psql.execute(TAKEN)
        with pytest.raises(LeaseLostError):
            await write(lease)
        lease._sure_until = 0.0  # as if it had been stopped for longer than the lease
        with pytest.raises(LeaseLostError):
            await lease.confirm()
    assert await psql.fetchval("SELECT count(*) FROM datasets") == 0
    assert await names(psql) == ["work"], "it is the other one's"


async def test_a_database_that_is_away_lets_a_lease_run_out(database: Database, psql: Any) -> None:
    other = await Database(database.url).open()
    async with held(other, "work", 2.0) as lease:
        assert lease is not None
        await other.aclose()
        until = await psql.fetchval("SELECT lease_until FROM leases")

        async def free() -> bool:
            async with held(database, "work", 60) as next_one:
                return next_one is not None

        await eventually("its time is over", free)
        assert await psql.fetchval("SELECT now() > $1", until), "it was given away before"
        with pytest.raises(DatabaseDownError):
            await lease.confirm()
