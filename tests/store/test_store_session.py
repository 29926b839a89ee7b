"""Transactions and locks: committed as a whole or not at all, and a clear word when PostgreSQL is not there."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from evervec.errors import DatabaseAddressError, DatabaseDownError, DatabaseRefusedError, SchemaMismatchError
from evervec.store.address.parsing import where
from evervec.store.database.session import Database
from tests.conftest import Servers, _sql

PROJECT = "INSERT INTO projects (slug, name) VALUES ($1, 'x')"
COUNT = "SELECT count(*) FROM projects"
SECRET = "s3cr3t"
ASKED_FOR_A_LOCK = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'"


class MishapError(Exception):
    """Something of the caller's own."""


async def test_leaving_a_transaction_commits_it(database: Database, psql: Any) -> None:
    async with database.transaction() as tx:
        await tx.execute(PROJECT, "a")
        assert await psql.fetchval(COUNT) == 0
    assert await psql.fetchval(COUNT) == 1


@pytest.mark.parametrize("mishap", [MishapError, KeyboardInterrupt, asyncio.CancelledError, TimeoutError, OSError])
async def test_an_exception_takes_everything_back_and_stays_what_it_is(
    database: Database, psql: Any, mishap: type[BaseException]
) -> None:
    with pytest.raises(mishap) as raised:
        async with database.transaction() as tx:
            await tx.execute(PROJECT, "a")
            raise mishap("mine")
    assert type(raised.value) is mishap
    assert await psql.fetchval(COUNT) == 0
    async with database.transaction() as tx:
        assert await tx.fetchval(COUNT) == 0


async def test_reading_refuses_to_write_and_sees_one_snapshot(database: Database, psql: Any) -> None:
    async with database.read() as tx:
        assert await tx.fetchval(COUNT) == 0
        await psql.execute(PROJECT, "a")
        assert await tx.fetchval(COUNT) == 0
    with pytest.raises(DatabaseRefusedError, match="read-only"):
        async with database.read() as tx:
            await tx.execute(PROJECT, "b")


async def test_a_statement_that_is_wrong_is_not_taken_for_a_database_that_is_down(database: Database) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with database.read() as tx:
            await tx.fetchval("SELEKT 1")
    with pytest.raises(SchemaMismatchError, match="evervec migrate"):
        async with database.read() as tx:
            await tx.fetchval("SELECT count(*) FROM no_such_table")


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/evervec",
        f"postgresql://user:{SECRET}@/evervec?host=/nowhere/at/all",
        f"postgresql://127.0.0.1:1/evervec?user=user&password={SECRET}",
        f"postgresql://user:{SECRET}/{SECRET}@127.0.0.1:1/evervec",
        f"postgresql://user:{SECRET}?{SECRET}@127.0.0.1:1/evervec",
        f"postgresql://user:{SECRET}@{SECRET}@127.0.0.1:1/evervec",
        f"postgresql://user:{SECRET}@127.0.0.1:port/evervec",
        f"mysql://user:{SECRET}@127.0.0.1:1/evervec",
    ],
)
async def test_a_database_that_does_not_answer_is_named_without_its_credentials(address: str) -> None:
    with pytest.raises((DatabaseDownError, DatabaseAddressError)) as down:
        await Database(address, connect_seconds=3).open()
    assert SECRET not in str(down.value)
    assert SECRET not in where(address)


async def test_a_database_that_does_not_exist_is_named(servers: Servers) -> None:
    with pytest.raises(DatabaseRefusedError, match="no_such_database"):
        await Database(servers.database("no_such_database")).open()


async def test_an_address_is_told_without_anything_that_is_secret() -> None:
    assert where("postgresql://user:pw@db.example:5433/evervec") == "postgresql://db.example:5433/evervec"
    assert where("postgresql:///evervec?host=/run/pg&password=pw") == "postgresql:///evervec?host=/run/pg"
    assert where("postgresql://db/evervec?password=x@y&sslmode=require") == "postgresql://db/evervec?sslmode=require"


async def test_a_database_of_nobody_is_refused_with_the_next_step(servers: Servers) -> None:
    await _sql(servers.database_url, "CREATE DATABASE bare_one")
    try:
        with pytest.raises(SchemaMismatchError, match="evervec migrate"):
            await Database(servers.database("bare_one")).open()
    finally:
        await _sql(servers.database_url, "DROP DATABASE bare_one WITH (FORCE)")


async def test_a_closed_database_says_so_and_closing_twice_is_fine(database: Database) -> None:
    await database.aclose()
    await database.aclose()
    with pytest.raises(DatabaseDownError):
        async with database.read():
            pytest.fail("it is closed")


async def test_a_connection_that_was_cut_is_a_database_that_is_down_and_the_next_one_works(
    database: Database, psql: Any
) -> None:
    with pytest.raises(DatabaseDownError):
        async with database.transaction() as tx:
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            await psql.execute("SELECT pg_terminate_backend($1)", pid)
            await tx.fetchval(COUNT)
    async with database.read() as tx:
        assert await tx.fetchval(COUNT) == 0


async def test_a_lock_has_one_holder_and_whoever_waits_gets_it_next(database: Database, psql: Any) -> None:
    order: list[str] = []
    async with database.advisory_lock("once") as first:
        async with database.advisory_lock("once", wait=False) as second:
            assert (first, second) == (True, False)
        async with database.advisory_lock("another name", wait=False) as other:
            assert other
        waiter = asyncio.create_task(hold(database, order))
        async with asyncio.timeout(60):
            while await psql.fetchval(ASKED_FOR_A_LOCK) < 2:
                await asyncio.sleep(0)
        order.append("first")
    await waiter
    assert order == ["first", "second"]


async def hold(database: Database, order: list[str]) -> None:
    async with database.advisory_lock("once"):
        order.append("second")


async def test_a_lock_ends_with_an_exception(database: Database) -> None:
    with pytest.raises(MishapError):
        async with database.advisory_lock("once"):
            raise MishapError
    async with database.advisory_lock("once", wait=False) as free:
        assert free


async def test_an_index_may_be_built_concurrently_while_somebody_waits_for_the_builders_lock(
    database: Database,
) -> None:
    order: list[str] = []
    async with database.advisory_lock("once"), database.autocommit() as connection:
        waiter = asyncio.create_task(hold(database, order))
        async with asyncio.timeout(60):
            await connection.execute("CREATE INDEX CONCURRENTLY slow_one ON projects (name)")
        order.append("first")
    await waiter
    assert order == ["first", "second"]


def test_an_address_may_hold_a_path_with_spaces(tmp_path: Path) -> None:
    assert where("postgresql://postgres@/postgres?host=/a%20b").endswith("host=/a%20b")
