"""`evervec uninstall` takes away what Evervec made, and nothing else: a dump is what it was before."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from evervec.store.database.session import Database
from evervec.store.schema import removal
from tests.cli.command import Command
from tests.database.conftest import MakeRole
from tests.database.contents import fill
from tests.database.installed import install_in_public
from tests.database.places import MESSAGES, SCHEMA
from tests.database.programs import Psql, as_role, dump

Make = Callable[..., Command]

APPLICATION = """
CREATE SCHEMA app;
CREATE TABLE app.articles (id bigint PRIMARY KEY, title text NOT NULL);
CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO public.alembic_version VALUES ('0003');
CREATE TABLE public.projects (id serial PRIMARY KEY, name text);
CREATE VIEW public.messages AS SELECT id, title FROM app.articles;
CREATE FUNCTION public.evervec_like() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER evervec_like BEFORE INSERT ON app.articles FOR EACH ROW EXECUTE FUNCTION public.evervec_like();
INSERT INTO app.articles VALUES (1, 'one');
"""


@pytest.fixture
def beside(vacant: Psql) -> Psql:
    """Return psql on the database of an application, with names that look like ours."""
    vacant.script(APPLICATION)
    return vacant


def removed(command: Command, *options: str) -> str:
    """Uninstall and return what was printed."""
    done = command("uninstall", *(options or ("--yes",)))
    assert done.code == 0, done
    return done.out


def test_the_dump_is_what_it_was_before(evervec: Make, beside: Psql) -> None:
    before = dump(beside.url)
    command = evervec(beside.url)
    assert command("migrate").code == 0
    fill(beside)
    listed = command("uninstall", "--dry-run", "--json").document()
    assert listed["dry_run"]
    assert {f"table {MESSAGES}", f"schema {SCHEMA}", "extension vector", f"view {SCHEMA}.embedding_status"} <= set(
        listed["removed"]
    )
    assert beside.number(f"SELECT count(*) FROM {MESSAGES}") > 0
    done = command("uninstall", "--yes", "--json").document()
    assert done["removed"] == listed["removed"]
    assert any("mirrors in" in one for one in done["left"])
    assert dump(beside.url) == before
    command("uninstall", "--yes").refused("nothing of Evervec")


def test_what_an_administrator_made_stays(evervec: Make, beside: Psql, role: MakeRole) -> None:
    name = role("LOGIN")
    beside(
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        f"GRANT USAGE ON SCHEMA extensions TO {name}",
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}",
    )
    before = dump(beside.url)
    command = evervec(as_role(beside.url, name))
    assert command("migrate").code == 0
    said = removed(command)
    assert "extension vector, which Evervec did not make" in said
    assert dump(beside.url) == before


def test_the_extension_stays_while_others_use_it(evervec: Make, beside: Psql) -> None:
    command = evervec(beside.url)
    assert command("migrate").code == 0
    beside("CREATE TABLE app.pictures (id int, embedding public.vector(3))")
    assert "extension vector, which is used by column embedding of table app.pictures" in removed(command)
    assert beside.number("SELECT count(*) FROM app.pictures") == 0
    assert beside.number(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{SCHEMA}'") == 0


def test_what_was_moved_out_of_public_goes_with_its_views_and_rights(
    evervec: Make, vacant: Psql, role: MakeRole
) -> None:
    reader = role("LOGIN")
    vacant(f"CREATE SCHEMA {SCHEMA}", "CREATE EXTENSION vector SCHEMA public")
    before = dump(vacant.url)
    install_in_public(vacant)
    vacant(f"GRANT SELECT ON public.messages TO {reader}")
    command = evervec(vacant.url)
    assert command("migrate").code == 0
    said = removed(command)
    assert "view public.messages" in said
    assert f"right of {reader} to use schema {SCHEMA}" in said
    assert dump(vacant.url) == before


def test_triggers_on_other_tables_go_too(evervec: Make, beside: Psql) -> None:
    before = dump(beside.url)
    command = evervec(beside.url)
    assert command("migrate").code == 0
    beside(
        f"CREATE FUNCTION {SCHEMA}.evervec_attached_1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER evervec_attached_1 AFTER INSERT ON app.articles FOR EACH ROW "
        f"EXECUTE FUNCTION {SCHEMA}.evervec_attached_1()",
        f"CREATE VIEW {SCHEMA}.articles AS SELECT vector_id, embedding FROM {SCHEMA}.embeddings",
    )
    assert "trigger evervec_attached_1 ON app.articles" in removed(command)
    assert dump(beside.url) == before


def test_what_depends_on_it_is_named_and_nothing_is_removed(evervec: Make, beside: Psql) -> None:
    command = evervec(beside.url)
    assert command("migrate").code == 0
    beside(
        f"CREATE VIEW app.seen AS SELECT id FROM {MESSAGES}",
        f"CREATE TABLE app.notes (message bigint CONSTRAINT noted REFERENCES {MESSAGES})",
        f"CREATE TABLE {SCHEMA}.mine (x int)",
    )
    before = dump(beside.url)
    command("uninstall", "--yes").refused(
        "view app.seen", "constraint noted on table app.notes", f"table {SCHEMA}.mine", "Drop or move it first"
    )
    assert dump(beside.url) == before


def test_another_role_is_told_the_owner(evervec: Make, sql: Psql, role: MakeRole) -> None:
    evervec(as_role(sql.url, role("LOGIN")))("uninstall", "--yes").refused("belong to role evervec")


def test_it_is_not_done_unasked(evervec: Make, sql: Psql) -> None:
    evervec(sql.url)("uninstall").refused("--dry-run", "--yes")


async def test_who_is_connected_is_named(evervec: Make, sql: Psql) -> None:
    command = evervec(sql.url)
    running = await Database(sql.url).open()
    try:
        done = await asyncio.to_thread(command, "uninstall", "--yes")
        done.refused("Evervec runs here", "role evervec", "--force")
        forced = await asyncio.to_thread(command, "uninstall", "--yes", "--force")
        assert forced.code == 0, forced
    finally:
        await running.aclose()


async def test_who_holds_a_table_is_named(evervec: Make, sql: Psql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "REMOVAL_LOCK_SECONDS", 1)
    holder = await asyncpg.connect(sql.url, server_settings={"application_name": "nightly report"})
    try:
        async with holder.transaction():
            await holder.fetch(f"SELECT count(*) FROM {MESSAGES}")
            done = await asyncio.to_thread(evervec(sql.url), "uninstall", "--yes")
        done.refused("nightly report", str(holder.get_server_pid()), "holds the tables")
    finally:
        await holder.close()
    assert sql.number(f"SELECT count(*) FROM {MESSAGES}") == 0


@pytest.mark.parametrize("schema", [SCHEMA, "shared"])
def test_a_table_that_is_attached_is_let_go(evervec: Make, beside: Psql, schema: str) -> None:
    """Whether the schema was Evervec's alone or is the application's: no trigger stays, and writers go on."""
    beside("ALTER TABLE app.articles ADD body text", "CREATE SCHEMA shared", "CREATE TABLE shared.other (id int)")
    before = dump(beside.url)
    command = evervec(beside.url, EVERVEC_DATABASE_SCHEMA=schema)
    assert command("migrate").code == 0
    done = command("attach", "app.articles", "--columns", "title,body", "--project", "app", "--dataset", "articles")
    assert done.code == 0, done
    removed(command)
    assert dump(beside.url) == before
    beside("INSERT INTO app.articles VALUES (2, 'two')", "UPDATE app.articles SET title = 'three' WHERE id = 2")
