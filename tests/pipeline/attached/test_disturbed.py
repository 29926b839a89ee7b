"""Attaching and detaching while others are at the table, and rows that nobody can read: nothing is half made, each is named."""

import asyncio
from typing import Any

import pytest

from evervec.errors import SourceError, TableBusyError
from evervec.pipeline.attached import detach as detaching
from evervec.pipeline.attached.detach import detach
from evervec.pipeline.attached.follow import follow_tables
from evervec.pipeline.attached.report import attachments as attachments_of
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store import sources
from tests.conftest import Servers
from tests.fakes.server import FakeProvider
from tests.pipeline.attached.tables import attached, open_articles, settled, state

TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.articles'::regclass"
FUNCTIONS = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'evervec_attached_%'"
LEFT = {
    name: f"SELECT count(*) FROM evervec.{name}"
    for name in ("sources", "documents", "chunks", "embeddings", "attached_changes", "attached_failures")
}


async def left(psql: Any) -> dict[str, int]:
    """Return what is left of attachments: triggers, functions and rows."""
    counted = {"triggers": TRIGGERS, "functions": FUNCTIONS} | LEFT
    return {name: number for name, sql in counted.items() if (number := await psql.fetchval(sql))}


async def test_a_transaction_that_holds_the_table_keeps_its_attachment_and_delays_no_writer(
    resources: Resources, psql: Any, servers: Servers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncpg

    monkeypatch.setattr(detaching, "TABLE_LOCK_SECONDS", 0.5)
    await open_articles(psql, 3)
    done = await attached(resources)
    await settled(resources, done.id)
    before = await left(psql)
    holder = await asyncpg.connect(database_url, server_settings={"application_name": "nightly report"})
    async with holder.transaction():
        await holder.execute("UPDATE public.articles SET author = 9 WHERE id = 1")
        removing = asyncio.create_task(detach(resources, "articles"))
        while not removing.done():
            async with asyncio.timeout(60):
                await psql.execute("UPDATE public.articles SET author = author WHERE id = 2")
                await asyncio.sleep(0)
        with pytest.raises(
            TableBusyError, match=r"public\.articles is locked: .*nightly report \(pid \d+, role evervec"
        ):
            await removing
    await holder.close()
    assert await left(psql) == before
    assert (await detach(resources, "articles")).documents == 3
    assert await left(psql) == {}


async def test_attaching_twice_at_once_is_attaching_once(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 3)
    both = await asyncio.gather(attached(resources), attached(resources))
    assert len({one.id for one in both}) == 1
    assert sorted(one.state for one in both) in (["attached", "unchanged"], ["attached", "attached"])
    (report,) = await attachments_of(resources)
    assert (report.id, report.problems) == (both[0].id, [])
    await psql.execute("UPDATE public.articles SET body = 'x' WHERE id = 1")
    assert await psql.fetchval("SELECT count(*) FROM evervec.attached_changes") == 1


async def test_replacing_twice_at_once_keeps_one_description(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 3)
    done = await attached(resources)
    await settled(resources, done.id)
    both = await asyncio.gather(*(attached(resources, text=text, replace=True) for text in ("title", "body")))
    assert [one.id for one in both] == [done.id, done.id]
    await settled(resources, done.id)
    texts = {row["text"] for row in (await state(psql)).values()}
    described = await psql.fetchval("SELECT spec -> 'description' ->> 'text' FROM evervec.sources")
    assert texts == {row[0] for row in await psql.fetch(f"SELECT {described} FROM public.articles")}
    assert await psql.fetchval("SELECT cursor ->> 'generation' FROM evervec.sources") == "3"


async def test_detaching_while_workers_take_in_and_embed_leaves_nothing(
    resources: Resources, psql: Any, fake: FakeProvider
) -> None:
    await open_articles(psql, 400)
    done = await attached(resources)
    assert done.id is not None
    async with resources.database.read() as tx:
        filled = [one.id for one in (await sources.filled(tx, done.id)).values()]
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await follow_tables(resources)
            await embed_dataset(resources, filled[0])

    async def write() -> None:
        while not stop.is_set():
            await psql.execute("UPDATE public.articles SET body = body || '!' WHERE id % 40 = 1")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for _ in range(2):
            group.create_task(work())
        async with asyncio.timeout(60):
            while not fake.texts_sent():
                await asyncio.sleep(0.01)
        await detach(resources, "articles")
        stop.set()
    assert await left(psql) == {}
    again = await attached(resources)
    await settled(resources, again.id)
    assert len(await state(psql)) == 400


BROKEN = """
CREATE FUNCTION public.checked(a text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
    IF a = 'raise' THEN RAISE 'not this one'; END IF;
    IF a = 'code' THEN RAISE 'a code of ours' USING ERRCODE = 'XY001'; END IF;
    IF a = 'assert' THEN ASSERT false, 'it does not hold'; END IF;
    IF a = 'deep' THEN RETURN public.checked(a); END IF;
    IF a = 'json' THEN RETURN '{'::jsonb ->> 'a'; END IF;
    IF a = 'number' THEN RETURN (9e9::float8)::int; END IF;
    RETURN a;
END $$;
UPDATE public.articles SET body = CASE id WHEN 1 THEN 'raise' WHEN 2 THEN 'code' WHEN 3 THEN 'assert' WHEN 4 THEN 'deep'
    WHEN 5 THEN 'json' WHEN 6 THEN 'number' ELSE body END
"""
REASONS = {
    "[1]": "not this one",
    "[2]": "a code of ours",
    "[3]": "it does not hold",
    "[4]": "stack depth limit exceeded",
    "[5]": "invalid input syntax for type json",
    "[6]": "integer out of range",
}


async def test_whatever_an_expression_raises_fails_its_row_alone(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 9)
    await psql.execute(BROKEN)
    done = await attached(resources, text="checked(body)")
    await settled(resources, done.id)
    failed = dict(await psql.fetch("SELECT key::text, reason FROM evervec.attached_failures ORDER BY id"))
    assert failed == REASONS
    assert sorted(await state(psql)) == [f"public.articles/{n}" for n in (7, 8, 9)]
    await psql.execute("UPDATE public.articles SET body = 'well' WHERE id < 7")
    await settled(resources, done.id)
    assert len(await state(psql)) == 9


async def test_a_key_that_may_be_null_by_now_is_named_and_its_rows_are_left_out(
    resources: Resources, psql: Any
) -> None:
    await psql.execute(
        "CREATE TABLE public.articles (code text NOT NULL UNIQUE, title text, body text);"
        "INSERT INTO public.articles VALUES ('None', 'a', 'b')"
    )
    done = await attached(resources)
    await settled(resources, done.id)
    await psql.execute(
        "ALTER TABLE public.articles ALTER code DROP NOT NULL; INSERT INTO public.articles VALUES (NULL, 'c', 'd'), ('x', 'e', 'f')"
    )
    await settled(resources, done.id)
    assert list(await state(psql)) == ["public.articles/None", "public.articles/x"]
    (report,) = await attachments_of(resources)
    assert (
        "column code is a part of the key and may be NULL by now; rows without a key are left out" in report.problems[0]
    )
    await psql.execute("TRUNCATE public.articles; INSERT INTO public.articles VALUES ('y', 'e', 'f'), (NULL, 'c', 'd')")
    await settled(resources, done.id)
    assert list(await state(psql)) == ["public.articles/y"]
    with pytest.raises(SourceError, match="its unique column 'code' may be NULL"):
        await attached(resources, text="title", replace=True)


async def test_tables_of_our_own_are_refused_under_any_name(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 1)
    for table in ("evervec.chunks", "evervec.attached_changes", '"evervec"."embeddings"'):
        with pytest.raises(SourceError, match="this is a table of Evervec itself"):
            await attached(resources, table, text="id::text")
    assert await left(psql) == {}
