"""Foreign tables: what is read of them, by key, by time and by tenant, whatever a table is and its keys are."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from evervec.errors import SourceError
from evervec.store.database.session import Database
from evervec.store.foreign import reader
from evervec.store.foreign.reader import ForeignTables, open_foreign
from tests.store.shopping import NEVER, THREE_ORDERS, described, gathered, tables


@pytest.fixture
async def shop(psql: Any) -> Any:
    """Connect to a database with three orders of two sellers."""
    await psql.execute(THREE_ORDERS)
    return psql


@pytest.fixture
async def opened(shop: Any, database_url: str) -> AsyncIterator[ForeignTables]:
    found = await open_foreign(described(), database_url)
    yield found
    await found.aclose()


async def test_a_record_has_what_its_text_needs_and_nothing_else(opened: ForeignTables, shop: Any) -> None:
    [record] = await gathered(opened.extract_data_by_ids("orders", ["2"]))
    written = await shop.fetchval("SELECT updated_at FROM shop.orders WHERE id = 2")
    assert record == reader.Record("orders", 2, written, "7", {"number": "B"})


async def test_ids_that_are_not_there_or_of_another_tenant_are_left_out(opened: ForeignTables) -> None:
    wanted = [3, 2, 2, 99, -1, 5_000_000_000]
    assert [row.key for row in await gathered(opened.extract_data_by_ids("orders", wanted))] == [2, 3]
    assert [row.key for row in await gathered(opened.extract_data_by_ids("orders", wanted, "8"))] == [3]
    assert await gathered(opened.extract_data_by_ids("orders", [])) == []
    with pytest.raises(SourceError, match="'abc' is not an id"):
        await gathered(opened.extract_data_by_ids("orders", ["abc"]))


async def test_a_tenant_is_never_mistaken_for_all(opened: ForeignTables, database_url: str) -> None:
    assert await opened.tenants() == ["7", "8"]
    assert await gathered(opened.keys("orders", "8")) == [3]
    with pytest.raises(SourceError, match='invalid input syntax for type integer: "seven"'):
        await gathered(opened.keys("orders", "seven"))
    undivided = await open_foreign(described(dataset_column=None), database_url)
    with pytest.raises(SourceError, match="no dataset_column tells what belongs to '8'"):
        await gathered(undivided.keys("orders", "8"))
    await undivided.aclose()


async def test_a_table_of_the_same_name_as_ours_is_the_one_that_everybody_else_means(
    psql: Any, database: Database
) -> None:
    await psql.execute("CREATE TABLE public.messages (id int PRIMARY KEY, body text)")
    await psql.execute("INSERT INTO public.messages VALUES (1, 'theirs')")
    found = await open_foreign(tables(messages={"key": "id", "template": "{body}"}), database)
    assert [row.values for row in await gathered(found.extract_data_by_ids("messages", [1]))] == [{"body": "theirs"}]


# --- changes ------------------------------------------------------------------------------------------------------


async def test_changes_come_in_the_order_of_their_time(opened: ForeignTables, shop: Any) -> None:
    start = datetime(2026, 7, 1, tzinfo=UTC)
    for key, minutes in ((3, 1), (1, 2), (2, 2)):
        await shop.execute(
            "UPDATE shop.orders SET updated_at = $2 WHERE id = $1", key, start + timedelta(minutes=minutes)
        )
    found = await gathered(opened.changed_since("orders", start + timedelta(minutes=2), timedelta(seconds=59)))
    assert found == [reader.Change(key, start + timedelta(minutes=2), "7") for key in (1, 2)]
    found = await gathered(opened.changed_since("orders", start + timedelta(minutes=2), timedelta(minutes=1)))
    assert [change.key for change in found] == [3, 1, 2]
    assert [change.key for change in await gathered(opened.changed_since("orders", start, NEVER, "8"))] == [3]


async def test_a_transaction_that_commits_late_is_seen_by_the_next_sync(
    opened: ForeignTables, shop: Any, database_url: str
) -> None:
    late = await asyncpg.connect(database_url)
    async with late.transaction():
        await late.execute("SELECT 1")
        since = await opened.horizon()
        assert await gathered(opened.changed_since("orders", since + timedelta(hours=1), NEVER)) == []
        await late.execute("INSERT INTO shop.orders (id) VALUES (4)")
    await late.close()
    assert 4 in [change.key for change in await gathered(opened.changed_since("orders", since, NEVER))]


async def test_the_cursor_moves_with_the_sources_clock(opened: ForeignTables, shop: Any) -> None:
    before = await shop.fetchval("SELECT clock_timestamp()")
    first = await opened.horizon()
    assert before < first < await opened.horizon()
    assert await gathered(opened.changed_since("orders", first, NEVER)) == []


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("writer", ["UTC", None])
async def test_times_without_a_zone_are_found_whoever_wrote_them(
    shop: Any, database_url: str, zone: str, writer: str | None
) -> None:
    name = urlsplit(database_url).path[1:]
    await shop.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    await shop.execute("ALTER TABLE shop.orders ALTER updated_at TYPE timestamp")
    found = await open_foreign(described(), database_url)
    since = await found.horizon()
    await shop.execute(f"SET timezone = '{writer or zone}'; UPDATE shop.orders SET updated_at = now() WHERE id = 2")
    assert 2 in [change.key for change in await gathered(found.changed_since("orders", since, NEVER))]
    await found.aclose()


# --- views, partitions and other keys -----------------------------------------------------------------------------


async def test_a_view_is_read_and_two_records_with_one_key_are_refused(shop: Any, database_url: str) -> None:
    await shop.execute("CREATE VIEW shop.seen AS SELECT id, number, updated_at FROM shop.orders")
    view = {"table": "shop.seen", "key": "id", "updated_at": "updated_at", "template": "{number}"}
    found = await open_foreign(tables(seen=view), database_url)
    assert await gathered(found.keys("seen")) == [1, 2, 3]
    assert await found.warnings() == []
    await shop.execute(
        "CREATE OR REPLACE VIEW shop.seen AS SELECT id, number, updated_at FROM shop.orders, generate_series(1, 2)"
    )
    for reading in (found.keys("seen"), found.extract_all("seen"), found.extract_data_by_ids("seen", [2])):
        with pytest.raises(SourceError, match="table 'seen': two rows have the key"):
            await gathered(reading)
    await shop.execute(
        "CREATE OR REPLACE VIEW shop.seen AS SELECT NULL::int AS id, number, updated_at FROM shop.orders"
    )
    for reading in (found.keys("seen"), found.extract_all("seen"), found.changed_since("seen", None, NEVER)):
        with pytest.raises(SourceError, match="a row without a key"):
            await gathered(reading)
    await found.aclose()


async def test_two_equal_keys_are_seen_across_batches(shop: Any, database_url: str) -> None:
    await shop.execute(
        f"CREATE VIEW shop.seen AS SELECT least(n, {reader.RECORD_BATCH}) AS id FROM generate_series(1, {reader.RECORD_BATCH + 1}) n"
    )
    found = await open_foreign(tables(seen={"table": "shop.seen", "key": "id", "template": "{id}"}), database_url)
    for reading in (found.keys("seen"), found.extract_all("seen")):
        with pytest.raises(SourceError, match=f"two rows have the key '{reader.RECORD_BATCH}'"):
            await gathered(reading)
    await found.aclose()


async def test_partitioned_and_materialized_tables_are_read(shop: Any, database_url: str) -> None:
    await shop.execute(
        "CREATE TABLE shop.sales (id bigint, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);"
        "CREATE TABLE shop.sales_1 PARTITION OF shop.sales FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');"
        "CREATE TABLE shop.sales_2 PARTITION OF shop.sales DEFAULT;"
        "INSERT INTO shop.sales VALUES (2, '2026-02-01'), (1, '2026-08-01');"
        "CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.sales"
    )
    both = {name: {"table": f"shop.{name}", "key": "id", "template": "{day}"} for name in ("sales", "kept")}
    found = await open_foreign(tables(**both), database_url)
    for name in both:
        assert await gathered(found.keys(name)) == [1, 2]
        assert len(await gathered(found.extract_data_by_ids(name, [1, 2]))) == 2
    await found.aclose()


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("smallint", [-3, 7]),
        ("bigint", [-(1 << 63), (1 << 63) - 1]),
        ("text", ["", "a/b", "ключ"]),
        ("varchar(9)", ["a", "b"]),
        ("uuid", [str(UUID(int=1)), str(UUID(int=1 << 127))]),
        ("shop.code", ["x", "y"]),
    ],
)
async def test_keys_of_each_type_go_there_and_back(shop: Any, database_url: str, type_: str, keys: list[Any]) -> None:
    await shop.execute(f"CREATE DOMAIN shop.code AS text; CREATE TABLE shop.things (id {type_} PRIMARY KEY)")
    for key in keys:
        await shop.execute(f"INSERT INTO shop.things VALUES ($1::text::{type_})", str(key))
    found = await open_foreign(tables(things={"table": "shop.things", "key": "id", "template": "{id}"}), database_url)
    assert sorted(await gathered(found.keys("things"))) == keys
    texts = [str(key) for key in keys]
    assert sorted(row.key for row in await gathered(found.extract_data_by_ids("things", texts))) == keys
    assert [row.key for row in await gathered(found.extract_all("things", after=keys[0]))] == keys[1:]
    await found.aclose()


@pytest.mark.parametrize(
    "type_", ["bigint", "text", "varchar(3)", "char(3)", "uuid", "boolean", "shop.mood", "shop.code"]
)
async def test_a_tenant_may_be_of_any_type(shop: Any, database_url: str, type_: str) -> None:
    value = {"bigint": "123", "uuid": str(UUID(int=1)), "boolean": "true"}.get(type_, "sad")
    await shop.execute(
        "CREATE TYPE shop.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN shop.code AS varchar(3);"
        f"ALTER TABLE shop.orders DROP seller_id, ADD seller_id {type_}; UPDATE shop.orders SET seller_id = '{value}' WHERE id = 1"
    )
    found = await open_foreign(described(), database_url)
    assert await found.tenants() == [value]
    assert [(row.key, row.tenant) for row in await gathered(found.extract_all("orders", value))] == [(1, value)]
    await found.aclose()


async def test_a_value_that_can_not_be_read_is_refused_by_its_table(opened: ForeignTables, shop: Any) -> None:
    await shop.execute("UPDATE shop.orders SET updated_at = '0044-03-15 BC' WHERE id = 2")
    with pytest.raises(SourceError, match="table 'orders': it can not be read as it is described"):
        await gathered(opened.extract_all("orders"))
    await shop.execute("ALTER TABLE shop.orders DROP number")
    with pytest.raises(SourceError, match='column "number" does not exist'):
        await gathered(opened.extract_all("orders"))
    await shop.execute("DROP TABLE shop.orders")
    with pytest.raises(SourceError, match=r'relation "shop\.orders" does not exist'):
        await gathered(opened.keys("orders"))
