"""Every write to an attached table is recorded in the writer's own transaction, whoever writes and however."""

from typing import Any

import pytest

from evervec.store.attached import changes
from evervec.store.database.session import Database
from tests.store.attaching import attach

ARTICLES = "CREATE TABLE public.articles (id bigint PRIMARY KEY, title text, body text, views int DEFAULT 0)"


@pytest.fixture
async def articles(psql: Any) -> None:
    """Make a table of somebody else."""
    await psql.execute(ARTICLES)


@pytest.mark.usefixtures("articles")
async def test_a_row_is_recorded_when_it_is_written_edited_or_deleted(database: Database, psql: Any) -> None:
    attached = await attach(database, "articles", "title || coalesce(body, '')")
    await psql.execute("INSERT INTO articles VALUES (1, 'one', 'a'), (2, 'two', NULL)")
    assert await attached.recorded() == {(1,), (2,)}
    await psql.execute("UPDATE articles SET body = 'b' WHERE id = 1")
    assert await attached.recorded() == {(1,)}
    await psql.execute("DELETE FROM articles WHERE id = 2")
    assert await attached.recorded() == {(2,)}
    await psql.execute("UPDATE articles SET id = 7")
    assert await attached.recorded() == {(1,), (7,)}
    await psql.execute("TRUNCATE articles")
    assert await attached.recorded() == {()}


@pytest.mark.usefixtures("articles")
async def test_what_does_not_touch_the_text_is_not_recorded(database: Database, psql: Any) -> None:
    await psql.execute("INSERT INTO articles VALUES (1, 'one', 'a')")
    attached = await attach(database, "articles", "title")
    await psql.execute("UPDATE articles SET body = 'b', views = views + 1")
    await psql.execute("UPDATE articles SET title = title")
    assert await attached.recorded() == set()


@pytest.mark.usefixtures("articles")
async def test_a_rollback_takes_the_record_with_it(database: Database, psql: Any) -> None:
    attached = await attach(database, "articles")
    tx = psql.transaction()
    await tx.start()
    await psql.execute("INSERT INTO articles VALUES (1, 'one')")
    await tx.rollback()
    assert await attached.recorded() == set()


WRITES = {
    "upsert": "INSERT INTO articles VALUES (1, 'new'), (2, 'two') ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title",
    "merge": "MERGE INTO articles a USING (VALUES (1, 'new'), (2, 'two')) n (id, title) ON a.id = n.id "
    "WHEN MATCHED THEN UPDATE SET title = n.title WHEN NOT MATCHED THEN INSERT (id, title) VALUES (n.id, n.title)",
    "a writing query": "WITH n AS (INSERT INTO articles VALUES (2, 'two') RETURNING id) UPDATE articles SET title = 'new'",
}
SESSIONS = {
    "an empty path": "SET search_path = ''",
    "a replica": "SET session_replication_role = replica",
    "a role with rights on this table alone": "SET ROLE writer",
    "times in another zone": "SET TimeZone = 'Asia/Tokyo'",
}


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_statements_that_insert_and_update_record_both(database: Database, psql: Any, write: str) -> None:
    await psql.execute("INSERT INTO articles VALUES (1, 'one')")
    attached = await attach(database, "articles")
    await psql.execute(write)
    assert await attached.recorded() == {(1,), (2,)}


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS.keys())
async def test_every_session_records(database: Database, psql: Any, session: str) -> None:
    attached = await attach(database, "articles")
    if "ROLE" in session:
        await psql.execute("CREATE ROLE writer; GRANT ALL ON public.articles TO writer")
    try:
        await psql.execute(session)
        await psql.copy_records_to_table(
            "articles", schema_name="public", columns=["id", "title"], records=[(1, "one")]
        )
        await psql.execute(
            "INSERT INTO public.articles VALUES (2, 'two'); UPDATE public.articles SET title = 'x' WHERE id = 1"
        )
        await psql.execute("DELETE FROM public.articles WHERE id = 2")
        assert await attached.recorded() == {(1,), (2,)}
        await psql.execute("TRUNCATE public.articles")
        assert await attached.recorded() == {()}
    finally:
        if "ROLE" in session:
            await psql.execute("RESET ROLE; DROP OWNED BY writer; DROP ROLE writer")


@pytest.mark.usefixtures("articles")
async def test_copy_records_every_row(database: Database, psql: Any) -> None:
    attached = await attach(database, "articles")
    await psql.copy_records_to_table("articles", columns=["id", "title"], records=[(n, "x") for n in range(5000)])
    assert len(await attached.recorded()) == 5000
    assert await psql.fetchval("SELECT count(*) FROM evervec.attached_changes") == 0


@pytest.mark.usefixtures("articles")
async def test_rows_of_one_statement_share_records_which_are_taken_in_turn(database: Database, psql: Any) -> None:
    attached = await attach(database, "articles")
    await psql.execute("INSERT INTO articles (id, title) SELECT n, 'x' FROM generate_series(1001, 1250) n")
    await psql.execute("INSERT INTO articles (id, title) VALUES (7, 'alone')")
    assert await psql.fetchval("SELECT count(*) FROM evervec.attached_changes") == 4
    async with database.read() as tx:
        assert (await changes.backlog(tx, [attached.source_id]))[attached.source_id].records == 251
        first = await changes.take(tx, attached.source_id, 150)
    assert 150 <= len(first.keys) <= 200
    async with database.transaction() as tx:
        assert await changes.forget(tx, attached.source_id, first) == len(first.records)
    rest = await attached.recorded()
    assert rest.isdisjoint(first.keys)
    assert rest.union(first.keys) == {(n,) for n in (7, *range(1001, 1251))}


@pytest.mark.usefixtures("articles")
async def test_a_trigger_of_theirs_that_changes_the_text_is_noticed(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE FUNCTION public.retitle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.title := 'n' || NEW.views; RETURN NEW; END$$;"
        "CREATE TRIGGER retitle BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION public.retitle();"
        "INSERT INTO articles VALUES (1, 'one')"
    )
    attached = await attach(database, "articles")
    await psql.execute("UPDATE articles SET views = 5")
    assert await attached.recorded() == {(1,)}
    assert await attached.problems() == []


@pytest.mark.usefixtures("articles")
async def test_such_a_trigger_that_comes_later_is_a_problem_with_a_name(database: Database, psql: Any) -> None:
    attached = await attach(database, "articles")
    await psql.execute(
        "CREATE FUNCTION public.same() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;"
        "CREATE TRIGGER same BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION public.same()"
    )
    name = f"evervec_{attached.source_id.hex[:12]}_updated"
    assert await attached.problems() == [f"trigger {name} does not fit the table any more"]


@pytest.mark.usefixtures("articles")
async def test_numbers_that_are_equal_but_written_otherwise_are_another_text(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE prices (id int PRIMARY KEY, price numeric); INSERT INTO prices VALUES (1, 1.0)")
    attached = await attach(database, "prices", "price::text")
    await psql.execute("UPDATE prices SET price = 1.00")
    assert await attached.recorded() == {(1,)}


@pytest.mark.usefixtures("articles")
async def test_writers_of_one_row_and_of_others_do_not_wait_for_our_records(
    database: Database, psql: Any, database_url: str
) -> None:
    import asyncpg

    attached = await attach(database, "articles")
    other = await asyncpg.connect(database_url)
    first, second = psql.transaction(), other.transaction()
    await first.start()
    await second.start()
    await psql.execute("SET LOCAL lock_timeout = '60s'")
    await other.execute("SET LOCAL lock_timeout = '60s'")
    await psql.execute("INSERT INTO articles VALUES (1, 'one')")
    await other.execute("INSERT INTO articles VALUES (2, 'two')")
    await psql.execute("UPDATE articles SET title = 'x' WHERE id = 1")
    await other.execute("DELETE FROM articles WHERE id = 2")
    await second.commit()
    assert await attached.recorded() == {(2,)}
    await first.commit()
    assert await attached.recorded() == {(1,)}
    await other.close()
