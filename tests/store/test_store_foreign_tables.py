"""Foreign tables are looked at before they are read: what does not fit its description is refused by its name."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evervec.errors import SourceError
from evervec.store.database.session import Database
from evervec.store.foreign.reader import open_foreign
from tests.conftest import NUMBERS
from tests.store.shopping import NEVER, THREE_ORDERS, described, gathered, refusal, tables


@pytest.fixture
async def shop(psql: Any) -> Any:
    """Connect to a database with three orders of two sellers."""
    await psql.execute(THREE_ORDERS)
    return psql


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": "shop.ordres"}, 'there is no table or view "shop"."ordres"'),
        ({"table": "orders"}, 'there is no table or view "orders"'),
        ({"table": "shop.orders_pkey"}, "there is no table or view"),
        ({"key": "number"}, "nothing makes its key 'number' unique"),
        ({"key": "nr"}, "its key names 'nr'; its columns are id, number, seller_id, created_at, updated_at"),
        ({"key": "created_at"}, "its key 'created_at' is of type timestamp with time zone"),
        ({"template": "{numbr}"}, "table 'orders': its template names 'numbr'; its columns are id, number"),
        ({"title": "{titel}"}, "its template names 'titel'"),
        ({"updated_at": "changed"}, "its updated_at names 'changed'"),
        ({"updated_at": "number"}, "its updated_at 'number' is of type text; it has to be a timestamp"),
        ({"dataset_column": "seller"}, "its dataset_column names 'seller'"),
        ({"filter": "created_at >"}, "its filter 'created_at >' is refused: syntax error"),
        ({"filter": "creatd_at > now()"}, 'column "creatd_at" does not exist'),
        ({"filter": "number"}, "must be type boolean"),
        ({"filter": "id = $1"}, "is refused"),
        ({"filter": "id = 'x'"}, "invalid input syntax"),
        ({"filter": "true) OR (true"}, "is refused: syntax error"),
        ({"filter": "true ORDER BY id"}, "is refused: syntax error"),
        ({"filter": "true; COMMIT; DROP TABLE shop.orders"}, "is refused"),
        ({"filter": "true /*"}, "is refused"),
    ],
)
async def test_what_does_not_fit_is_refused_before_anything_is_read(
    shop: Any, database_url: str, change: dict[str, Any], says: str
) -> None:
    message = await refusal(database_url, described(**change))
    assert message.startswith("Source 'shop', table 'orders': ")
    assert says in message
    assert await shop.fetchval("SELECT count(*) FROM shop.orders") == 3


@pytest.mark.parametrize("condition", ["id > 1 -- not the first", "id = 2 OR seller_id = 8", "orders.id > 1"])
async def test_a_filter_holds_for_whatever_is_read(shop: Any, database_url: str, condition: str) -> None:
    found = await open_foreign(described(filter=condition), database_url)
    assert [row.key for row in await gathered(found.extract_all("orders", "7"))] == [2]
    assert [row.key for row in await gathered(found.extract_data_by_ids("orders", [1, 2, 3]))] == [2, 3]
    assert await gathered(found.keys("orders")) == [2, 3]
    assert [row.key for row in await gathered(found.changed_since("orders", None, NEVER))] == [2, 3]
    await shop.execute("UPDATE shop.orders SET seller_id = 9 WHERE id = 1")
    assert await found.tenants() == ["7", "8"]
    await found.aclose()


async def test_a_filter_that_writes_is_refused_by_the_read_only_transaction(shop: Any, database_url: str) -> None:
    await shop.execute(
        "CREATE FUNCTION spoil(integer) RETURNS boolean LANGUAGE sql VOLATILE AS "
        "'DELETE FROM shop.orders WHERE id = $1 RETURNING true'"
    )
    found = await open_foreign(described(filter="spoil(id)"), database_url)
    with pytest.raises(SourceError, match="read-only transaction"):
        await gathered(found.extract_all("orders"))
    await found.aclose()
    assert await shop.fetchval("SELECT count(*) FROM shop.orders") == 3


async def test_a_table_that_may_not_be_read_is_named_with_the_next_step(shop: Any, database_url: str) -> None:
    role = f"stranger_{next(NUMBERS)}"
    await shop.execute(f"CREATE ROLE {role} LOGIN")
    url = urlsplit(database_url)._replace(netloc=f"{role}@").geturl()
    assert "permission denied for schema shop. Grant" in await refusal(url, described())
    await shop.execute(f"GRANT USAGE ON SCHEMA shop TO {role}")
    message = await refusal(url, described(filter="true"))
    assert "table 'orders': permission denied for table orders. Grant the source's user SELECT on it." in message
    await shop.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_warnings_tell_what_a_sync_will_not_see(shop: Any, database_url: str) -> None:
    found = await open_foreign(described(), database_url)
    assert await found.warnings() == []
    await shop.execute(
        "DROP INDEX shop.orders_updated_at_idx; ALTER TABLE shop.orders ALTER updated_at DROP NOT NULL;"
        "UPDATE shop.orders SET updated_at = NULL, seller_id = NULL WHERE id = 1"
    )
    await found.verify()
    said = "\n".join(await found.warnings())
    assert said.count("Source 'shop', table 'orders': ") == 3
    for line in ("no index begins with 'updated_at'", "rows without 'updated_at'", "rows without 'seller_id'"):
        assert line in said
    await found.aclose()
    without = await open_foreign(described(updated_at=None), database_url)
    assert "only a full run" in (await without.warnings())[0]
    with pytest.raises(SourceError, match="no updated_at"):
        await gathered(without.changed_since("orders", None, NEVER))
    await without.aclose()


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)
COLUMNS = st.lists(
    NAME.filter(lambda name: not set(name) & set("{}.[]!:\n") and not name.isdecimal()),
    min_size=4,
    max_size=4,
    unique=True,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAME, NAME, COLUMNS)
async def test_names_may_be_anything(
    psql: Any, database: Database, schema: str, table: str, columns: list[str]
) -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in (f"s{schema}", table, *columns)]
    relation, (key, text, written, tenant) = ".".join(quoted[:2]), quoted[2:]
    await psql.execute(
        f"DROP SCHEMA IF EXISTS {quoted[0]} CASCADE; CREATE SCHEMA {quoted[0]}; CREATE TABLE {relation} "
        f"({key} int PRIMARY KEY, {text} text, {written} timestamptz DEFAULT now(), {tenant} text);"
        f"INSERT INTO {relation} VALUES (1, 'x', now(), 'a')"
    )
    names = dict(zip(("key", "text", "updated_at", "dataset_column"), columns, strict=True))
    text_column = names.pop("text")
    found = await open_foreign(tables(t={"table": relation, "template": f"{{{text_column}}}", **names}), database)
    [record] = await gathered(found.extract_data_by_ids("t", [1], "a"))
    assert (record.key, record.tenant, record.values) == (1, "a", {text_column: "x"})
    assert await gathered(found.extract_all("t", "a", after=0)) == [record]
    assert [change.key for change in await gathered(found.changed_since("t", record.updated_at, NEVER))] == [1]
    assert await found.tenants() == ["a"]
    assert await found.warnings() != []
    await psql.execute(f"DROP SCHEMA {quoted[0]} CASCADE")
