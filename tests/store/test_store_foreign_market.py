"""Foreign tables of half a million rows: read flat, by their indexes, and left with a clear word when they go away."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from evervec.errors import SourceDownError
from evervec.store.database.session import Database
from evervec.store.foreign import reader
from evervec.store.foreign.reader import open_foreign
from tests.conftest import NUMBERS, Servers, _sql
from tests.store.conftest import filled
from tests.store.explaining import lines, plans
from tests.store.shopping import (
    MARKET,
    NEVER,
    ORDERS,
    ROWS,
    TENANTS,
    described,
    gathered,
    refusal,
    tables,
)

CLOSED = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'evervec' AND datname = current_database()"


@pytest.fixture(scope="module")
def market(servers: Servers, template: str) -> Iterator[str]:
    """Return the address of a database with 500,000 orders of 1,000 sellers, and 100,000 rows with other keys."""

    async def fill(url: str) -> None:
        await _sql(url, MARKET, *(f"VACUUM ANALYZE shop.{name}" for name in ("orders", "texts", "uuids")))

    yield from filled(servers, template, fill)


async def test_reading_is_resumed_behind_a_key(market: str) -> None:
    found = await open_foreign(described(), market)
    seen = await gathered(found.extract_all("orders", "5", after="50005"))
    assert [row.key for row in seen] == list(range(51_005, ROWS + 1, TENANTS))
    await found.aclose()


async def test_a_listing_is_one_snapshot_whatever_happens_meanwhile(market: str) -> None:
    found = await open_foreign(tables(texts={"table": "shop.texts", "key": "id", "template": "{number}"}), market)
    connection = await asyncpg.connect(market)
    async with aclosing(found.keys("texts")) as listing:
        keys = await anext(listing)
        await connection.execute("UPDATE shop.texts SET id = 'z' || id WHERE number LIKE '%7'")
        keys += await gathered(listing)
    await connection.execute("UPDATE shop.texts SET id = substr(id, 2) WHERE id LIKE 'z%'")
    assert len(keys) == ROWS
    assert keys == sorted(f"k{n}" for n in range(1, 100_001))
    await connection.close()
    await found.aclose()


async def test_a_hundred_thousand_rows_take_the_memory_of_a_few_batches(market: str) -> None:
    found = await open_foreign(described(), market)
    process, count, sizes = psutil.Process(), 0, list[int]()
    for listing in (found.extract_all("orders"), found.keys("orders")):
        async for batch in listing:
            count += len(batch)
            sizes.append(process.memory_info().rss)
    await found.aclose()
    assert count == 2 * ROWS
    assert max(sizes) - sizes[20] < 20_000_000  # all of them at once are more than 40 MB


async def test_whoever_leaves_early_gives_the_connection_back(market: str) -> None:
    database = await Database(market, pool_size=1).open()
    found = await open_foreign(described(), database)
    async with asyncio.timeout(60):
        for _ in range(3):
            async with aclosing(found.extract_all("orders")) as batches:
                assert len(await anext(batches)) == reader.RECORD_BATCH
                assert database._pool.get_idle_size() == 0
            assert database._pool.get_idle_size() == 1
    await found.aclose()
    async with database.read() as tx:  # it was opened by somebody else, who closes it
        assert await tx.fetchval("SELECT 1") == 1
    await database.aclose()


# --- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["orders", "texts", "uuids"])
async def test_ids_are_looked_up_by_the_index_of_the_key(market: str, table: str) -> None:
    plain = {name: {"table": f"shop.{name}", "key": "id", "template": "{number}"} for name in ("texts", "uuids")}
    found = await open_foreign(tables(orders={**ORDERS, "dataset_column": None}, **plain), market)
    columns, connection = found.columns[table], await asyncpg.connect(market)
    rows = await connection.fetch(f"SELECT id FROM shop.{table} LIMIT {reader.RECORD_BATCH}")
    query = columns.by_keys([row["id"] for row in rows])
    for plan in await plans(connection, query.sql, *query.values):
        assert f"using {table}_pkey" in plan or f"on {table}_pkey" in plan, plan
        assert "Seq Scan" not in plan, plan
    await connection.close()
    await found.aclose()


async def test_a_tenant_and_what_changed_are_found_by_their_indexes(market: str) -> None:
    found = await open_foreign(described(filter="created_at > '2025-01-01'"), market)
    columns, connection = found.columns["orders"], await asyncpg.connect(market)
    recent = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=ROWS - 5_000)
    for query, index in (
        (columns.all("5"), "orders_seller_id_idx"),
        (columns.keys("5"), "orders_seller_id_idx"),
        (columns.all(after=400_000), "orders_pkey"),
        (columns.by_keys(list(range(1_000)), "5"), "orders_"),
        (columns.changed(recent), "orders_updated_at_idx"),
    ):
        plan = lines(await connection.fetch(f"EXPLAIN DECLARE found CURSOR FOR {query.sql}", *query.values))
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan
    await connection.close()
    await found.aclose()


# --- a database that is away --------------------------------------------------------------------------------------

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [f"postgresql://user:{SECRET}@127.0.0.1:1/shop", f"postgresql://user:{SECRET}@/shop?host=/nowhere/at/all"],
)
async def test_a_source_that_does_not_answer_is_named_without_its_credentials(url: str) -> None:
    with pytest.raises(SourceDownError, match=r"The source shop at postgresql://.* does not answer") as down:
        await open_foreign(described(), url)
    assert SECRET not in str(down.value)


async def test_an_address_that_is_none_and_a_database_that_is_missing_are_told(servers: Servers) -> None:
    message = await refusal(f"postgresql://user:{SECRET}@127.0.0.1:port/shop", described())
    assert "Source 'shop': its url can not be used" in message
    assert SECRET not in message
    with pytest.raises(SourceDownError, match='database "no_such_shop" does not exist'):
        await open_foreign(described(), servers.database("no_such_shop"))


@contextmanager
def asked_for_a_password(role: str, access: Path) -> Iterator[None]:
    before = access.read_text()
    access.write_text(f"local all {role} scram-sha-256\n{before}")
    try:
        yield
    finally:
        access.write_text(before)


async def refused_by_the_server(url: str) -> None:
    """Wait until the server has read its rules again: it answers the call to do so before it does."""
    async with asyncio.timeout(60):
        while True:
            try:
                await (await asyncpg.connect(url)).close()
            except asyncpg.InvalidPasswordError:
                return


async def test_a_wrong_password_is_told_and_not_repeated(psql: Any, database_url: str) -> None:
    role = f"locked_{next(NUMBERS)}"
    await psql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    with asked_for_a_password(role, Path(f"/proc/{await psql.fetchval('SELECT pg_backend_pid()')}/cwd/pg_hba.conf")):
        await psql.execute("SELECT pg_reload_conf()")
        url = urlsplit(database_url)._replace(netloc=f"{role}:{SECRET}@").geturl()
        await refused_by_the_server(url)
        with pytest.raises(SourceDownError, match="password authentication failed") as down:
            await open_foreign(described(), url)
        assert SECRET not in str(down.value)
    await psql.execute("SELECT pg_reload_conf()")
    await psql.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("reading", ["extract_all", "keys", "changed_since", "extract_data_by_ids"])
async def test_a_source_that_goes_away_in_the_middle_is_told_and_read_again_later(market: str, reading: str) -> None:
    found = await open_foreign(described(), market)
    killer = await asyncpg.connect(market)

    def read() -> AsyncGenerator[list[Any], None]:
        match reading:
            case "changed_since":
                return found.changed_since("orders", None, NEVER)
            case "extract_data_by_ids":
                return found.extract_data_by_ids("orders", range(5_000))
        return getattr(found, reading)("orders")  # type: ignore[no-any-return]

    async with aclosing(read()) as batches:
        assert len(await anext(batches)) > 0
        await killer.execute(CLOSED)
        if reading == "extract_data_by_ids":  # between its batches it holds no connection, so it takes a new one
            assert len(await gathered(batches)) == 4_000
        else:
            with pytest.raises(
                SourceDownError, match=r"The source shop at .* Nothing was changed; the next run continues"
            ):
                await gathered(batches)
    assert len(await gathered(found.extract_data_by_ids("orders", [1, 2]))) == 2
    await killer.close()
    await found.aclose()
    await found.aclose()
