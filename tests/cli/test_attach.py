"""`evervec attach`, `attachments`, `detach` and `failed` on an attached table, as an operator types them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from tests.cli.command import Command
from tests.conftest import _sql
from tests.pipeline.attached.tables import ARTICLES, TEXT

ATTACH = ("attach", "public.articles", "--text", TEXT, "--title", "title", "--project", "app", "--dataset", "articles")


@pytest.fixture
def articles(database_url: str) -> str:
    """Make the table of articles; return the database's address."""
    asyncio.run(_sql(database_url, ARTICLES.format(rows=12)))
    return database_url


def sql(url: str, statement: str) -> list[Any]:
    """Run one statement and return its rows."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    return asyncio.run(run())


def test_a_table_is_attached_followed_searched_and_detached(evervec: Command, articles: str) -> None:
    planned = evervec(*ATTACH, "--dry-run")
    assert planned.code == 0, planned
    assert "would be attached to app/articles" in planned.out
    assert evervec("attachments", "--json").document() == {"attachments": []}
    done = evervec(*ATTACH, "--fields", "author", "--wait", "--json")
    assert done.code == 0, done
    found = done.document()
    assert (found["state"], found["key"], found["taken_in"], found["embedded"]) == ("attached", ["id"], 12, 12)
    (one,) = evervec("attachments", "--json").document()["attachments"]
    assert (one["table"], one["datasets"], one["state"], one["documents"]) == (
        "public.articles",
        ["articles"],
        "following",
        12,
    )
    assert (one["changes_waiting"], one["pending"], one["failed"], one["problems"]) == (0, 0, 0, [])
    (hit,) = evervec("search", "number 7", "-k", "1", "--json").document()["hits"]
    assert (hit["table"], list(hit["fields"])) == ("public.articles", ["author"])
    assert len(hit["key"]) == 1
    status = evervec("status", "--json").document()
    assert (status["rows"], status["embedded"], status["attachments"][0]["state"]) == (12, 12, "following")
    assert "public.articles: following" in evervec("status").out
    assert "public.articles" in evervec("attachments").out
    would = evervec("detach", "public.articles", "--dry-run")
    assert "12 documents of articles" in would.out
    gone = evervec("detach", "articles", "--json").document()
    assert (gone["table"], gone["documents"]) == ("public.articles", 12)
    assert evervec("status", "--json").document()["rows"] == 0
    assert not sql(articles, "SELECT 1 FROM pg_trigger WHERE tgrelid = 'public.articles'::regclass")
    evervec("detach", "public.articles").refused("No table 'public.articles' is attached")


def test_the_least_that_has_to_be_said_is_the_text_and_where_rows_belong(evervec: Command, articles: str) -> None:
    done = evervec(
        "attach",
        "articles",
        "--columns",
        "title,body",
        "--dataset-column",
        "tenant",
        "--where",
        "author <> 3",
        "--wait",
    )
    assert done.code == 0, done
    (one,) = evervec("attachments", "--json").document()["attachments"]
    assert (one["project"], one["datasets"], one["documents"]) == ("tables", ["t0", "t1", "t2"], 10)
    sql(articles, "CREATE TABLE public.new (id int PRIMARY KEY, title text)")
    planned = evervec("attach", "new", "--columns", "title", "--dataset", "new", "--dry-run")
    assert "tables/new: its size is not known before an ANALYZE" in planned.out


def test_a_dry_run_does_not_make_a_view_that_was_dropped(evervec: Command, articles: str) -> None:
    assert evervec(*ATTACH).code == 0
    sql(articles, "DROP VIEW evervec.articles")
    there = "SELECT to_regclass('evervec.articles') IS NOT NULL AS there"
    assert evervec(*ATTACH, "--dry-run").code == 0
    assert not sql(articles, there)[0]["there"]
    assert evervec(*ATTACH).code == 0
    assert sql(articles, there)[0]["there"]


def test_attaching_twice_changes_nothing_and_another_description_needs_replace(evervec: Command, articles: str) -> None:
    assert evervec(*ATTACH, "--wait").code == 0
    before = sql(articles, "SELECT id, xmin::text FROM evervec.documents ORDER BY id")
    again = evervec(*ATTACH)
    assert (again.code, "already, in this way" in again.out) == (0, True)
    assert sql(articles, "SELECT id, xmin::text FROM evervec.documents ORDER BY id") == before
    other = [*ATTACH, "--where", "author <> 3"]
    evervec(*other).refused("is attached already, with another --where", "--replace")
    done = evervec(*other, "--replace", "--wait", "--json").document()
    assert (done["state"], done["embedded"]) == ("replaced", 0)
    (counted,) = sql(articles, "SELECT count(*) FROM evervec.documents")
    assert counted[0] == 10
    elsewhere = [*ATTACH[:-1], "elsewhere"]
    evervec(*elsewhere).refused("is attached to another dataset", "evervec detach")


def test_failed_rows_are_listed_retried_and_discarded(evervec: Command, articles: str) -> None:
    said = ("attach", "articles", "--text", "(10 / (author - 6))::text", "--project", "app", "--dataset", "articles")
    assert evervec(*said, "--wait").code == 0
    (failed,) = evervec("failed", "list", "--json").document()["failed"]
    assert (failed["kind"], failed["dataset"], failed["text"]) == ("attached", "articles", "public.articles 6")
    assert "division by zero" in failed["reason"]
    assert evervec("attachments", "--json").document()["attachments"][0]["failed"] == 1
    status = evervec("status", "--json").document()
    assert (status["rows"], status["failed"]) == (12, 1)
    name = f"attached:{failed['id']}"
    assert evervec("failed", "retry", name, "--json").document() == {"reopened": 1}
    (waits,) = sql(articles, "SELECT count(*) FROM evervec.attached_changes")
    assert waits[0] == 1
    assert evervec(*said, "--wait").code == 0
    (failed,) = evervec("failed", "list", "--json").document()["failed"]
    assert evervec("failed", "discard", "--json").document() == {"discarded": 1}
    assert evervec("failed", "list", "--json").document() == {"failed": []}


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a writing transaction on the table open."""
    ready, over = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url, server_settings={"application_name": "nightly import"})
        tx = connection.transaction()
        await tx.start()
        await connection.execute("UPDATE public.articles SET author = 1 WHERE id = 1")
        ready.set()
        await asyncio.to_thread(over.wait)
        await tx.rollback()
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_long_transaction_is_named_and_nothing_is_half_made(
    evervec: Command, articles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evervec.pipeline.attached.attach.TABLE_LOCK_SECONDS", 0.5)
    with locked(articles):
        evervec(*ATTACH).refused("nightly import", code=1)
    assert evervec("attachments", "--json").document() == {"attachments": []}
    (counted,) = sql(articles, "SELECT count(*) FROM evervec.datasets")
    assert counted[0] == 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("public.nothing", "--text", "a", "--dataset", "d"), ("public.nothing",)),
        (("public.articles", "--dataset", "d"), ("--text", "--columns")),
        (("public.articles", "--text", "title", "--columns", "title", "--dataset", "d"), ("one of --text",)),
        (("public.articles", "--text", "title"), ("--dataset",)),
        (("public.articles", "--text", "title", "--dataset", "d", "--capture", "guess"), ("--capture",)),
        (("public.articles", "--text", "random()::text", "--dataset", "d"), ("immutable",)),
        (("public.articles", "--text", "(SELECT 1)::text", "--dataset", "d"), ("public.articles",)),
        (("public.articles", "--columns", "nope", "--dataset", "d"), ("nope",)),
        (("public.articles", "--template", "{title}\\n{nope}", "--dataset", "d"), ("--template names 'nope'",)),
        (("evervec.messages", "--text", "content", "--dataset", "d"), ("evervec.messages",)),
    ],
)
def test_what_can_not_be_attached_is_refused(
    evervec: Command, articles: str, said: tuple[str, ...], words: tuple[str, ...]
) -> None:
    evervec("attach", *said, "--project", "app").refused(*words)
    assert evervec("attachments", "--json").document() == {"attachments": []}


def test_a_dataset_that_holds_something_else_is_refused(evervec: Command, articles: str) -> None:
    sql(articles, "INSERT INTO evervec.projects (slug, name) VALUES ('app', 'app')")
    sql(
        articles,
        "INSERT INTO evervec.datasets (project_id, slug, name) SELECT id, 'articles', 'a' FROM evervec.projects",
    )
    sql(articles, "INSERT INTO evervec.documents (dataset_id, uri) SELECT id, 'mine' FROM evervec.datasets")
    evervec(*ATTACH).refused("app/articles holds something else")
    evervec("index", "app/articles").refused("has no source")


def test_an_attached_dataset_is_not_indexed(evervec: Command, articles: str) -> None:
    assert evervec(*ATTACH).code == 0
    evervec("index", "app/articles").refused("follows table public.articles by itself")
    assert evervec("index", "--all", "--json").document()["datasets"] == []
