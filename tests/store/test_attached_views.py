"""An attached table from SQL: its view has the rows by their own key, walks the HNSW index, and is what it was after any change."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pytest

from evervec.domain.protocols import ModelProbe
from evervec.store import datasets, providers, sources
from evervec.store.attached import failures, keys, views
from evervec.store.database.session import Database
from evervec.store.embeddings import hnsw
from evervec.store.providers import ProviderDraft
from evervec.store.schema import views as declared
from evervec.store.spaces import spaces
from tests.conftest import Servers, cloned
from tests.store.attaching import Attached, attach, shown
from tests.store.conftest import filled
from tests.store.explaining import lines, plans
from tests.store.planting import space, unit

ROWS, WIDTH = 2_000, 16

# as another program's: by SQL alone, with a vector that is drawn from the row's number
FILL = """
INSERT INTO evervec.documents (dataset_id, uri, title, key)
SELECT $1, 'row/' || n, 'title ' || n, key FROM unnest($2::jsonb[]) WITH ORDINALITY k (key, n);
"""
CHUNKS = """
INSERT INTO evervec.chunks (dataset_id, document_id, ordinal, content, vector_text)
SELECT dataset_id, id, 0, 'text of ' || title, title FROM evervec.documents
"""
EMBED = """
UPDATE evervec.embeddings e SET embedding = v.vector::vector, embedded_hash = e.content_hash, embedded_at = now()
FROM unnest($1::int[], $2::text[]) v (n, vector), evervec.chunks c JOIN evervec.documents d
ON d.id = c.document_id WHERE c.id = e.row_id AND e.kind = 4 AND d.uri = 'row/' || v.n AND e.pending_id IS NOT NULL
"""
ARTICLES = f"""
CREATE TABLE public.articles (id bigint PRIMARY KEY, title text, author int);
INSERT INTO public.articles SELECT n, 'title ' || n, n % 10 FROM generate_series(1, {ROWS}) n
"""
NEAREST = """
SELECT a.* FROM public.articles a JOIN evervec.articles v USING (id) WHERE a.author = 1
ORDER BY v.embedding <=> $1{} LIMIT 10
"""


def drawn(width: int = WIDTH, rows: int = ROWS) -> Any:
    return unit(rows, width)


def written(vector: Any) -> str:
    return "[" + ",".join(f"{value:.6f}" for value in vector) + "]"


async def fill(psql: Any, attached: Attached, key: str = "id", width: int = WIDTH) -> None:
    """Take all rows of the table in and embed them, in the order of their key."""
    found = [
        row[0]
        for row in await psql.fetch(f"SELECT jsonb_build_array({key}) FROM {attached.table.label} ORDER BY {key}")
    ]
    await psql.execute(FILL, await psql.fetchval("SELECT id FROM evervec.datasets WHERE slug = 'articles'"), found)
    await psql.execute(CHUNKS)
    await embed(psql, width, len(found))


async def embed(psql: Any, width: int, rows: int) -> None:
    await psql.execute(EMBED, list(range(1, rows + 1)), [written(vector) for vector in drawn(width, rows)])


async def search_in(database: Database, width: int) -> None:
    """Search the dataset `app/articles` in another space from now on, in which no row has a vector yet."""
    async with database.transaction() as tx:
        (target,) = await datasets.find(tx, "articles")
        beside = (await providers.add(tx, ProviderDraft("other", "ollama", model="other"), ModelProbe(width))).space
        await spaces.start(tx, target.id, beside.id, None)
        await spaces.take_in(tx, target.id, beside.id, present=target.space_id, after=0, limit=2 * ROWS)
    await hnsw.build_indexes(database, beside.id, width)
    async with database.transaction() as tx:
        await spaces.flip(tx, [target.id], spaces.NEXT)
        await views.renew(tx, database.schema, [target.id])


async def best(psql: Any, vector: Any, where: str = "true") -> list[int]:
    """Return the ten nearest rows by numpy, as an oracle: vectors were drawn in the order of the ids."""
    ids = [row[0] for row in await psql.fetch(f"SELECT id FROM public.articles WHERE {where} ORDER BY id")]
    every = drawn(len(vector))[np.array(ids) - 1]
    return [ids[place] for place in np.argsort(-(every @ vector))[:10]]


@pytest.fixture(scope="session")
def shelf(servers: Servers, template: str) -> Iterator[str]:
    """Make a database of 2,000 attached articles with random vectors and an index, that tests are cloned from."""

    async def put(url: str) -> None:
        database, psql = await Database(url).open(), await asyncpg.connect(url)
        await psql.execute(ARTICLES)
        attached = await attach(database, "articles")
        await space(database, WIDTH, indexed=True)
        await shown(database, attached)
        await fill(psql, attached)
        await psql.execute("ANALYZE")
        await psql.close()
        await database.aclose()

    for url in filled(servers, template, put):
        yield urlsplit(url).path[1:]


@pytest.fixture
async def shelved(servers: Servers, shelf: str) -> AsyncIterator[Database]:
    """Open a clone of that database."""
    async with cloned(servers, shelf) as url:
        opened = await Database(url).open()
        yield opened
        await opened.aclose()


@pytest.fixture
async def articles(shelved: Database) -> AsyncIterator[Any]:
    """Connect to it as another program does."""
    connection = await asyncpg.connect(shelved.url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("type_", ["", "::vector", "::halfvec"])
async def test_the_nearest_rows_of_a_condition_are_walked_to_by_hnsw(articles: Any, type_: str) -> None:
    query = drawn()[7] + 0.01
    sql = NEAREST.format(type_).replace("$1", "$1::text" + (type_ or "::halfvec"))
    for plan in await plans(articles, sql, written(query)):
        assert "Index Scan using embeddings_hnsw_chunk_" in plan, plan
        assert "Seq Scan on embeddings" not in plan, plan
    tx = articles.transaction()
    await tx.start()
    await articles.execute("SET LOCAL hnsw.iterative_scan = strict_order")
    await articles.execute("SET LOCAL hnsw.ef_search = 200")
    rows = await articles.fetch(NEAREST.format("").replace("$1", f"'{written(query)}'"))
    await tx.rollback()
    wanted = await best(articles, query, "author = 1")
    assert len(set(wanted) & {row["id"] for row in rows}) >= 9
    assert rows[0]["id"] == wanted[0]


async def test_the_sql_of_the_page_works_and_walks_hnsw(articles: Any) -> None:
    pages = "".join((Path(__file__).parents[2] / name).read_text() for name in ("docs/attach.md", "README.md"))
    shown = "".join(re.findall(r"^```sql\n(.*?)^```", pages, re.MULTILINE | re.DOTALL))
    statements = [one.replace("$1", f"'{written(drawn()[6])}'") for one in shown.split(";\n") if one]
    assert len(statements) >= 10
    sizes = []
    await articles.execute("CREATE ROLE app")
    try:
        for statement in statements:
            if "<=>" in statement:
                plan = lines(await articles.fetch(f"EXPLAIN {statement}"))
                assert "Index Scan using embeddings_hnsw_chunk_" in plan, plan
                found = [row["id"] for row in await articles.fetch(statement)]
                assert found[0] == 7
                assert {number % 10 for number in found} == {7}
                sizes.append(len(found))
            else:
                await articles.fetch(statement)
    finally:
        await articles.execute("DROP OWNED BY app; DROP ROLE app")
    # with the setting that the page names, and without any
    assert sizes[0] == 10
    assert len(sizes) == 2


async def test_another_model_changes_the_view_and_keeps_its_rights_and_readers(
    shelved: Database, articles: Any
) -> None:
    await articles.execute("CREATE ROLE view_reader; GRANT SELECT ON evervec.articles TO view_reader")
    await articles.execute("CREATE VIEW public.mine AS SELECT id, embedding FROM evervec.articles")
    try:
        await search_in(shelved, 8)
        assert (
            await articles.fetchval("SELECT count(*) FROM evervec.articles WHERE embedding_status = 'PENDING'") == ROWS
        )
        await embed(articles, 8, ROWS)
        await articles.execute("ANALYZE")
        query = drawn(8)[3]
        (plan, _) = await plans(articles, NEAREST.format("").replace("$1", f"'{written(query)}'"))
        assert "Index Scan using embeddings_hnsw_chunk_2" in plan, plan
        assert (
            await articles.fetchval("SELECT count(*) FROM public.mine WHERE vector_dims(embedding::vector) = 8") == ROWS
        )
        assert await articles.fetchval("SELECT has_table_privilege('view_reader', 'evervec.articles', 'SELECT')")
    finally:
        await articles.execute("DROP OWNED BY view_reader; DROP ROLE view_reader")


async def test_search_answers_as_numpy_does(articles: Any) -> None:
    query = drawn()[11]
    rows = await articles.fetch(f"SELECT * FROM evervec.search('{written(query)}', 'articles', 10)")
    assert [int(row["key"][1:-1]) for row in rows] == await best(articles, query)
    first = rows[0]
    assert (first["kind"], first["table_name"], first["document"]) == ("chunk", "articles", "row/12")
    assert (first["text"], first["title"], first["chunk"]) == ("title 12", "title 12", 0)
    assert first["score"] == pytest.approx(1, abs=1e-4)
    assert (
        await articles.fetchval("SELECT count(*) FROM evervec.search($1::text::vector, 'app/articles')", written(query))
        == 10
    )
    assert not await articles.fetch("SELECT * FROM evervec.search(NULL, 'articles')")
    with pytest.raises(Exception, match="There is no dataset 'nothing'"):
        await articles.fetch(f"SELECT * FROM evervec.search('{written(query)}', 'nothing')")


async def test_search_walks_hnsw_in_a_large_dataset_and_leaves_settings_as_they_were(
    articles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "EXACT_SEARCH_BELOW", 100)
    body = declared.show_vectors('"evervec"')
    await articles.execute(
        f"CREATE OR REPLACE FUNCTION evervec.{declared.SHOW}() RETURNS void LANGUAGE plpgsql AS $${body}$$"
    )
    await articles.execute(f"SELECT evervec.{declared.SHOW}()")
    query = drawn()[11]
    async with articles.transaction():
        await articles.execute("SET LOCAL hnsw.ef_search = 77")
        rows = await articles.fetch(f"SELECT * FROM evervec.search('{written(query)}', 'articles', 10)")
        scans = await articles.fetchval(
            "SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index WHERE indexrelid::regclass::text ~ 'hnsw_chunk'"
        )
        assert scans == 1
        assert await articles.fetchval("SHOW hnsw.ef_search") == "77"
        assert await articles.fetchval("SHOW enable_seqscan") == "on"
    assert int(rows[0]["key"][1:-1]) == (await best(articles, query))[0]


async def test_whoever_may_read_the_view_needs_no_other_right(articles: Any) -> None:
    await articles.execute("CREATE ROLE app_reader; GRANT USAGE ON SCHEMA evervec TO app_reader")
    try:
        async with articles.transaction():
            await articles.execute("GRANT SELECT ON evervec.articles TO app_reader; SET LOCAL ROLE app_reader")
            assert await articles.fetchval("SELECT count(*) FROM evervec.articles") == ROWS
        for refused in (
            "SELECT * FROM evervec.chunks",
            f"SELECT * FROM evervec.search('{written(drawn()[0])}', 'articles')",
        ):
            with pytest.raises(Exception, match="permission denied"):
                async with articles.transaction():
                    await articles.execute("SET LOCAL ROLE app_reader")
                    await articles.fetch(refused)
        await articles.execute("GRANT EXECUTE ON FUNCTION evervec.search TO app_reader")
        async with articles.transaction():
            await articles.execute("SET LOCAL ROLE app_reader; SET LOCAL search_path = ''")
            assert len(await articles.fetch(f"SELECT * FROM evervec.search('{written(drawn()[0])}', 'articles')")) == 10
    finally:
        await articles.execute("DROP OWNED BY app_reader; DROP ROLE app_reader")


KEYS = {
    "a word": ('id text COLLATE "C"', ["'a/b'", "'ü'"]),
    "a number": ("id numeric(8, 2)", ["1.50", "2"]),
    "a uuid": ("id uuid", ["'11111111-1111-1111-1111-111111111111'", "gen_random_uuid()"]),
    "a moment": ("id timestamptz", ["'2026-01-01 12:00:00.5+03'", "'2026-06-01'"]),
    "bytes": ("id bytea", ["'\\x00ff'", "'abc'"]),
    "an enum": ("id shop.kind", ["'new'", "'old'"]),
    "a domain": ("id shop.sku", ["'A1'", "'B2'"]),
    "a flag": ("id boolean", ["true", "false"]),
    "padded": ("id char(5)", ["'a'", "'bb'"]),
}


@pytest.mark.parametrize(("column", "values"), KEYS.values(), ids=KEYS)
async def test_a_key_of_any_type_joins_in_its_own(
    database: Database, psql: Any, column: str, values: list[str]
) -> None:
    await psql.execute(
        "CREATE SCHEMA shop; CREATE TYPE shop.kind AS ENUM ('new', 'old'); CREATE DOMAIN shop.sku AS varchar(9);"
        f"CREATE TABLE public.things ({column} PRIMARY KEY, title text DEFAULT 'a');"
        f"INSERT INTO public.things VALUES {', '.join(f'({value})' for value in values)}"
    )
    attached = await attach(database, "public.things")
    async with database.transaction() as tx:
        target = await datasets.ensure(tx, "app", "articles")
    place = await shown(database, attached, "things")
    await psql.execute("UPDATE public.things SET title = 'b'")
    recorded = sorted(await attached.recorded(), key=str)
    await psql.execute(FILL, target.id, [keys.dumps(key) for key in recorded])
    await psql.execute(CHUNKS)
    await psql.execute("SET TimeZone = 'Asia/Tokyo'")
    assert await psql.fetchval(f"SELECT count(*) FROM public.things t JOIN {place} v USING (id)") == 2


async def test_a_composite_key_with_columns_of_our_names(database: Database, psql: Any) -> None:
    await psql.execute(
        'CREATE TABLE public.lines ("text" int, chunk uuid DEFAULT gen_random_uuid(), title text, PRIMARY KEY ("text", chunk));'
        "INSERT INTO public.lines (\"text\", title) VALUES (1, 'a'), (1, 'b')"
    )
    attached = await attach(database, "lines")
    place = await shown(database, attached, "lines")
    await fill(psql, attached, '"text", chunk')
    rows = await psql.fetch(f'SELECT v.* FROM public.lines l JOIN {place} v USING ("text", chunk)')
    assert len(rows) == 2
    assert {"evervec_text", "evervec_chunk", "title"} <= set(rows[0].keys())


async def test_every_state_of_a_row_is_shown_also_of_one_that_can_not_be_read(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE public.articles (id bigint PRIMARY KEY, title text)")
    await psql.execute("INSERT INTO public.articles SELECT n, 'title ' || n FROM generate_series(1, 3) n")
    attached = await attach(database, "articles")
    await space(database, 4)
    await shown(database, attached)
    await fill(psql, attached, width=4)
    await psql.execute("UPDATE evervec.chunks SET vector_text = 'new' WHERE id = 2")
    await psql.execute("UPDATE evervec.embeddings SET embedding = NULL, failed_hash = content_hash WHERE row_id = 3")
    await psql.execute(
        "INSERT INTO evervec.embed_work (vector_id, content_hash, last_error) "
        "SELECT vector_id, content_hash, 'refused' FROM evervec.embeddings WHERE row_id = 3"
    )
    target = await psql.fetchval("SELECT id FROM evervec.datasets")
    async with database.transaction() as tx:
        await failures.record(tx, attached.source_id, {(9,): (target, "division by zero")})
    rows = await psql.fetch("SELECT id, chunk, embedding_status, error_message FROM evervec.articles ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (1, 0, "READY", None),
        (2, 0, "PENDING", None),
        (3, 0, "FAILED", "refused"),
        (9, None, "FAILED", "division by zero"),
    ]
    await psql.execute("UPDATE evervec.datasets SET deleted_at = now()")
    assert not await psql.fetch("SELECT * FROM evervec.articles")


async def test_a_table_with_a_dataset_for_each_value_has_one_view(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE public.tickets (id int PRIMARY KEY, title text, tenant text)")
    await psql.execute("INSERT INTO public.tickets SELECT n, 'title ' || n, 'a' FROM generate_series(1, 2000) n")
    attached = await attach(database, "tickets", dataset_column="tenant")
    await space(database, WIDTH, indexed=True)
    async with database.transaction() as tx:
        target = await datasets.ensure(tx, "app", "articles")
        await sources.assign(tx, target.id, attached.source_id, "a")
        place = await views.make(tx, database.schema, attached.source_id, attached.table, ["tickets"], None)
        await failures.record(tx, attached.source_id, {(9999,): (None, "no tenant")})
    await fill(psql, attached)
    await psql.execute("ANALYZE")
    (row,) = await psql.fetch(f"SELECT * FROM {place} WHERE id = 7")
    assert (row["dataset"], row["text"]) == ("articles", "text of title 7")
    assert await psql.fetchval(f"SELECT error_message FROM {place} WHERE embedding_status = 'FAILED'") == "no tenant"
    nearest = f"SELECT id FROM {place} ORDER BY embedding <=> '{written(drawn()[0])}' LIMIT 5"
    plan = lines(await psql.fetch(f"EXPLAIN {nearest}"))
    assert "Index Scan using embeddings_hnsw_chunk_" in plan, plan
    assert (await psql.fetch(nearest))[0]["id"] == 1
