"""What the view of an attached table is called beside names that are taken, and what keeps it from being removed."""

from typing import Any

import pytest

from evervec.errors import Refused
from evervec.store.attached import views
from evervec.store.database.session import Database
from tests.store.attaching import attach, shown
from tests.store.planting import space


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("documents", "evervec.documents_rows"),
        ("attached_chunks", "evervec.attached_chunks_rows"),
        ("documents_pkey", "evervec.documents_pkey_rows"),
        ("tägliche-mails.2026", 'evervec."tägliche-mails.2026"'),
        ('weird "Name"', 'evervec."weird ""Name"""'),
    ],
)
async def test_a_name_that_is_taken_gets_another_one(database: Database, psql: Any, name: str, place: str) -> None:
    await psql.execute("CREATE TABLE public.articles (id bigint PRIMARY KEY, title text)")
    attached = await attach(database, "articles")
    assert await shown(database, attached, name) == place
    assert await shown(database, attached, "another") == place
    assert await psql.fetchval(f"SELECT count(*) FROM {place}") == 0
    async with database.transaction() as tx:
        await views.remove(tx, database.schema, attached.source_id)
    assert await psql.fetchval("SELECT to_regclass($1)", place) is None


async def test_names_of_two_projects_and_very_long_ones(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE TABLE public.one (id int PRIMARY KEY, title text); CREATE TABLE public.two (LIKE one INCLUDING ALL)"
    )
    first, second = await attach(database, "one"), await attach(database, "two")
    long = "ü" * 40
    assert await shown(database, first, long) == await shown(database, first, long)
    (name,) = await psql.fetchrow("SELECT view FROM evervec.sources WHERE id = $1", first.source_id)
    assert len(name.encode()) <= 63
    async with database.transaction() as tx:
        wanted = list(views.names("app", long, second.source_id))
        other = await views.make(tx, database.schema, second.source_id, second.table, wanted, None)
    assert name not in other
    assert len(set(wanted)) == 4


async def test_what_reads_the_view_is_named_when_it_has_to_go(database: Database, psql: Any) -> None:
    await psql.execute("CREATE TABLE public.articles (id bigint PRIMARY KEY, title text)")
    attached = await attach(database, "articles")
    await shown(database, attached)
    await psql.execute("CREATE VIEW public.mine AS SELECT id FROM evervec.articles")
    with pytest.raises(Refused, match="view mine depends on view articles"):
        async with database.transaction() as tx:
            await views.remove(tx, database.schema, attached.source_id)
    assert not await psql.fetch("SELECT * FROM public.mine")


async def test_a_function_of_somebody_else_called_search_stays(database: Database, psql: Any) -> None:
    await psql.execute(
        "DROP FUNCTION evervec.search; CREATE FUNCTION evervec.search(vector, text, int) RETURNS int LANGUAGE sql RETURN 1"
    )
    await space(database, 4)
    assert await psql.fetchval("SELECT evervec.search('[1]', 'a', 1)") == 1
