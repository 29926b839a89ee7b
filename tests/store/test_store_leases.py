"""Leases on named work: one owner at a time, taken over when they expire, and kept while a transaction requires them."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from evervec.errors import LeaseLostError
from evervec.store import leases
from evervec.store.database.session import Database

EXPIRED = "UPDATE leases SET lease_until = now() - interval '1 second'"
LONG_AGO = "UPDATE leases SET lease_until = now() - interval '2 days'"


async def acquire(database: Database, owner: Any, name: str = "work") -> bool:
    async with database.transaction() as tx:
        return await leases.acquire(tx, name, owner, seconds=60)


async def renew(database: Database, owner: Any) -> bool:
    async with database.transaction() as tx:
        return await leases.renew(tx, "work", owner, seconds=60)


async def test_of_many_that_ask_at_once_one_gets_it(database: Database, psql: Any) -> None:
    for _ in range(2):  # once while there is no row, once while there is an expired one
        owners = [uuid4() for _ in range(8)]
        got = await asyncio.gather(*(acquire(database, owner) for owner in owners))
        assert got.count(True) == 1
        assert await psql.fetchval("SELECT owner FROM leases") == owners[got.index(True)]
        await psql.execute(EXPIRED)


async def test_a_lease_is_taken_over_when_it_has_expired_and_not_before(database: Database, psql: Any) -> None:
    first, second = uuid4(), uuid4()
    assert await acquire(database, first)
    assert not await acquire(database, second)
    assert await acquire(database, second, "other work")
    await psql.execute(EXPIRED)
    assert await acquire(database, second)
    assert not await renew(database, first)
    async with database.transaction() as tx:
        await leases.release(tx, "work", first)
    assert await renew(database, second), "another owner's release changed it"


async def test_an_expired_lease_that_nobody_took_is_renewed(database: Database, psql: Any) -> None:
    owner = uuid4()
    await acquire(database, owner)
    await psql.execute(EXPIRED)
    async with database.read() as tx:
        assert not await leases.is_held(tx, "work")
    assert await renew(database, owner)
    async with database.read() as tx:
        assert await leases.is_held(tx, "work")


async def test_a_transaction_that_requires_a_lease_keeps_it_until_it_ends(database: Database, psql: Any) -> None:
    first, second = uuid4(), uuid4()
    await acquire(database, first)
    async with database.transaction() as tx:
        await leases.require(tx, "work", first)
        assert await renew(database, first), "a renewal does not wait for it"
        await psql.execute(EXPIRED)
        assert not await acquire(database, second), "and nobody waits for it either"
    assert await acquire(database, second)
    with pytest.raises(LeaseLostError, match="'work'"):
        async with database.transaction() as tx:
            await leases.require(tx, "work", first)


async def test_leases_of_dead_processes_do_not_pile_up(database: Database, psql: Any) -> None:
    await acquire(database, uuid4(), "left behind")
    await psql.execute(LONG_AGO)
    await acquire(database, uuid4())
    async with database.transaction() as tx:
        assert await leases.remove_expired(tx) == 1
    assert await psql.fetchval("SELECT array_agg(name) FROM leases") == ["work"]
