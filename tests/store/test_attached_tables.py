"""Tables of every kind are attached, with keys of every kind, and read by key; what can not be attached says why."""

from typing import Any
from uuid import UUID

import pytest

from evervec.domain.attachment import Key
from evervec.errors import RowsUnreadableError, SourceError
from evervec.store.attached.documents import OF_URIS
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from tests.store.attaching import attach
from tests.store.explaining import plans

KEYS: dict[str, tuple[str, str, list[Key]]] = {
    "smallint": ("id smallint PRIMARY KEY", "(1), (2), (3)", [(1,), (2,), (3,)]),
    "bigint": ("id bigint PRIMARY KEY", "(1), (9223372036854775807)", [(1,), (9223372036854775807,)]),
    "identity": ("id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "(DEFAULT), (DEFAULT)", [(1,), (2,)]),
    "text": ("id text COLLATE \"C\" PRIMARY KEY", "(''), ('a/b'), ('é\"')", [("",), ("a/b",), ('é"',)]),
    "varchar": ("id varchar(9) PRIMARY KEY", "('a'), ('b')", [("a",), ("b",)]),
    "char": ("id char(3) PRIMARY KEY", "('a'), ('b')", [("a  ",), ("b  ",)]),
    "uuid": ("id uuid PRIMARY KEY", "('6F1B0C1E-0000-4000-8000-000000000001')", [("6f1b0c1e-0000-4000-8000-000000000001",)]),
    "numeric": ("id numeric PRIMARY KEY", "(1.50), (12345678901234567890)", [("1.5",), ("12345678901234567890",)]),
    "domain": ("id public.code PRIMARY KEY", "('a1'), ('b2')", [("a1",), ("b2",)]),
    "enum": ("id public.mood PRIMARY KEY", "('sad'), ('glad')", [("sad",), ("glad",)]),
    "bytea": ("id bytea PRIMARY KEY", "('\\x00ff')", [("00ff",)]),
    "composite": ("id int, at timestamptz, PRIMARY KEY (id, at)", "(1, '2024-05-01 12:00+02'), (1, '2024-05-01 13:00+02')",
                  [(1, "2024-05-01T10:00:00"), (1, "2024-05-01T11:00:00")]),
    "boolean and date": ("id bool, at date, PRIMARY KEY (id, at)", "(false, '2024-05-01'), (true, '0099-01-01')",
                         [(False, "2024-05-01"), (True, "0099-01-01")]),
    "a unique index": ("id int NOT NULL UNIQUE", "(4), (5)", [(4,), (5,)]),
}  # fmt: skip


@pytest.fixture
async def types(psql: Any) -> None:
    """Make types of somebody else, and a session whose settings change how times are shown."""
    await psql.execute(
        "CREATE DOMAIN public.code AS varchar(5) CHECK (value <> ''); CREATE TYPE public.mood AS ENUM ('sad', 'glad');"
        "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'"
    )


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize(("columns", "values", "keys"), KEYS.values(), ids=KEYS.keys())
async def test_a_key_of_any_type_is_recorded_read_and_walked(
    database: Database, psql: Any, columns: str, values: str, keys: list[Key]
) -> None:
    await psql.execute(f"CREATE TABLE public.t ({columns}, title text DEFAULT 'hello')")
    attached = await attach(database, "public.t")
    await psql.execute(f"INSERT INTO public.t VALUES {values}")
    assert await attached.recorded() == set(keys)
    assert {key: row.text for key, row in (await attached.read(*keys)).items()} == dict.fromkeys(keys, "hello")
    assert await attached.walked() == keys
    assert await attached.walked(newest_first=True) == keys[::-1]
    await psql.execute("SET TimeZone = 'UTC'; DELETE FROM public.t")
    assert await attached.recorded() == set(keys)
    assert await attached.read(*keys) == {}


async def test_names_that_need_quotes(database: Database, psql: Any) -> None:
    await psql.execute(
        'CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."Order""s" ("Key %1" int PRIMARY KEY, "select" text, "it\'s" int)'
    )
    attached = await attach(database, '"My Shop"."Order""s"', None, columns=["select"], fields=["it's"])
    await psql.execute('INSERT INTO "My Shop"."Order""s" VALUES (1, \'x\', 7)')
    assert await attached.recorded() == {(1,)}
    assert (await attached.read((1,)))[1,].fields == {"it's": 7}
    assert await attached.problems() == []


async def test_a_partitioned_table_with_partitions_that_come_and_go(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE TABLE public.logs (id int, at date, title text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE public.logs_1 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    )
    attached = await attach(database, "public.logs")
    await psql.execute(
        "CREATE TABLE public.logs_2 (id int NOT NULL, at date NOT NULL, title text, PRIMARY KEY (id, at));"
        "ALTER TABLE logs ATTACH PARTITION logs_2 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
        "INSERT INTO logs VALUES (1, '2024-05-01', 'one'); INSERT INTO logs_2 VALUES (2, '2025-05-01', 'two')"
    )
    first, second = (1, "2024-05-01"), (2, "2025-05-01")
    assert await attached.recorded() == {first, second}
    assert await attached.problems() == []
    await psql.execute("UPDATE logs SET at = '2025-06-01' WHERE id = 1")
    assert await attached.recorded() == {first, (1, "2025-06-01")}
    await psql.execute("ALTER TABLE logs DETACH PARTITION logs_2; DELETE FROM logs_2")
    assert await attached.recorded() == set()


async def test_children_that_inherit_are_part_of_the_table(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE TABLE public.parent (id int PRIMARY KEY, title text); CREATE TABLE public.child (age int) INHERITS (parent)"
    )
    attached = await attach(database, "public.parent")
    await psql.execute("INSERT INTO parent VALUES (1, 'one'); INSERT INTO child VALUES (2, 'two', 5)")
    assert await attached.recorded() == {(1,), (2,)}
    await psql.execute("UPDATE parent SET title = 'x'; CREATE TABLE public.later (LIKE child) INHERITS (parent)")
    assert await attached.recorded() == {(1,), (2,)}
    assert all(problem.endswith("is missing") for problem in await attached.problems())
    await psql.execute("INSERT INTO child VALUES (1, 'again')")
    with pytest.raises(RowsUnreadableError, match="two rows have the key"):
        await attached.read((1,))


async def test_generated_columns_and_paths_into_json(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE TABLE public.t (id int PRIMARY KEY, first text, last text, data jsonb, "
        "whole text GENERATED ALWAYS AS (first || ' ' || last) STORED)"
    )
    attached = await attach(
        database, "public.t", "whole || (data #>> '{a,b}')", title="upper(whole)", where="data ? 'a'"
    )
    assert [column.name for column in attached.table.reads] == ["data", "whole"]
    await psql.execute("""INSERT INTO t VALUES (1, 'Ada', 'L', '{"a": {"b": "!"}}'), (2, 'no', 'match', '{}')""")
    assert await attached.recorded() == {(1,), (2,)}
    found = await attached.read((1,), (2,))
    assert {key: (row.text, row.title) for key, row in found.items()} == {(1,): ("Ada L!", "ADA L")}
    await psql.execute("UPDATE t SET last = 'B' WHERE id = 1")
    assert await attached.recorded() == {(1,)}


async def test_functions_of_theirs_are_found_again_without_any_path(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE TABLE public.t (id int PRIMARY KEY, title text); INSERT INTO t VALUES (1, 'x');"
        "CREATE FUNCTION public.shout(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT upper($1) || '!'$$"
    )
    attached = await attach(database, "t", "shout(title)")
    assert attached.table.text == "public.shout(title)"
    assert (await attached.read((1,)))[1,].text == "X!"


async def test_a_row_that_fails_is_found_by_asking_for_fewer(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE public.t (id int PRIMARY KEY, n int, title text)")
    attached = await attach(database, "public.t", "title || 10 / n")
    await psql.execute("INSERT INTO t VALUES (1, 5, 'a'), (2, 0, 'b'), (3, 1, NULL)")
    with pytest.raises(RowsUnreadableError, match="division by zero"):
        await attached.read((1,), (2,), (3,))
    found = await attached.read((1,), (3,))
    assert [row.text for row in found.values()] == ["a2", None]


async def test_a_text_that_is_too_large_is_measured_and_not_read(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE public.t (id int PRIMARY KEY, title text)")
    attached = await attach(database, "public.t")
    await psql.execute("INSERT INTO t VALUES (1, repeat('é', 1000000))")
    row = (await attached.read((1,)))[1,]
    assert (row.text, row.bytes) == (None, 2_000_000)


@pytest.mark.parametrize("key", ["id", "id, title"])
async def test_rows_are_read_by_the_index_of_their_key(database: Database, psql: Any, key: str) -> None:
    from evervec.store.attached import rows

    await psql.execute(
        f"CREATE TABLE public.t (id int, title text, PRIMARY KEY ({key}));"
        "INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 50000) n; ANALYZE t"
    )
    attached = await attach(database, "public.t")
    given = [["1", "2"], ["row 1", "row 2"]][: len(attached.table.key)]
    async with database.read() as tx:
        limits = (1000, 1000, ["[1]", "[2]"])
        plan = "\n".join(row[0] for row in await tx.fetch(f"EXPLAIN {rows._read(attached.table)}", *given, *limits))
    assert "t_pkey" in plan
    assert "Seq Scan" not in plan


async def test_documents_are_looked_up_one_by_one_while_the_planner_believes_that_there_are_none(
    dataset: DatasetRef, psql: Any
) -> None:
    """So it is while the rows of a table are taken in: reading the dataset for each batch would take a day for a million."""
    await psql.execute("ALTER TABLE documents SET (autovacuum_enabled = false)")
    await psql.execute(
        "INSERT INTO documents (dataset_id, uri, key) SELECT $1, 'public.t/' || n, jsonb_build_array(n) "
        "FROM generate_series(1, 3000) n",
        dataset.id,
    )
    for plan in await plans(psql, OF_URIS, UUID(int=1), [f"public.t/{number}" for number in range(1000)]):
        assert "documents_attached_idx" in plan, plan
        assert "documents_dataset_id" not in plan, plan


TABLES = """
CREATE TABLE public.nokey (id int, title text); CREATE TABLE public.nullkey (id int UNIQUE, title text);
CREATE TABLE public.oddkey (id inet PRIMARY KEY, title text);
CREATE TABLE public.t (id int PRIMARY KEY, title text, at timestamptz, photo bytea);
CREATE VIEW public.v AS SELECT * FROM t
"""
REFUSED = {
    "no table": ({"table": "missing"}, "there is no such table"),
    "a view": ({"table": "v"}, "this is a view"),
    "our own": ({"table": "evervec.messages"}, "table of Evervec itself"),
    "theirs of PostgreSQL": ({"table": "pg_catalog.pg_class"}, "table of PostgreSQL itself"),
    "no key": ({"table": "nokey"}, "it has no primary key"),
    "a key with NULL": ({"table": "nullkey"}, "'id' may be NULL"),
    "an odd key": ({"table": "oddkey"}, "'id' is of type inet"),
    "a clock": ({"table": "t", "text": "title || now()"}, "its value may change without the row"),
    "a setting": ({"table": "t", "text": "at::text"}, "its value may change without the row"),
    "another table": ({"table": "t", "text": "(SELECT max(title) FROM nokey)"}, "it reads another table"),
    "an unknown column": ({"table": "t", "text": "titel"}, 'column "titel" does not exist; its columns are id, title'),
    "no SQL": ({"table": "t", "text": "title ||"}, "syntax error"),
    "two statements": ({"table": "t", "text": "title); DROP TABLE t; --"}, "--text"),
    "bytes": ({"table": "t", "text": "photo"}, "is of type bytea, which is no text"),
    "columns of bytes": ({"table": "t", "text": None, "columns": ["photo"]}, "holds bytes"),
    "unknown fields": ({"table": "t", "fields": ["x"]}, "--fields names 'x'; its columns are id"),
    "no condition": ({"table": "t", "where": "title"}, "has to be a condition"),
    "a constant": ({"table": "t", "text": "'x'"}, "reads no column"),
}


@pytest.mark.parametrize(("asked", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_can_not_be_attached_says_why(
    database: Database, psql: Any, asked: dict[str, Any], reason: str
) -> None:
    await psql.execute(TABLES)
    with pytest.raises(SourceError) as refusal:
        await attach(database, **asked)
    assert reason in str(refusal.value)
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0
    assert await psql.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'attached_probe%'") == 0
