"""`evervec migrate --sql`: what a database administrator runs makes the same installation as `evervec migrate`."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from evervec.store.database.session import Database
from evervec.store.schema import migrations
from tests.cli.command import Command
from tests.database.conftest import MakeRole
from tests.database.contents import contents, fill, noticed, objects, vectors
from tests.database.installed import commands_of_a_day, install_in_public
from tests.database.programs import Psql, as_role

Make = Callable[..., Command]


def printed(evervec: Command, *options: str) -> str:
    """Return the script."""
    done = evervec("migrate", "--sql", *options)
    assert done.code == 0, done
    done.tidy()
    return done.out


def checked(psql: Psql) -> None:
    """Assert that Alembic finds no difference between the database and the models."""

    async def check() -> None:
        database = await Database(psql.url).open()
        try:
            await migrations.check(database)
        finally:
            await database.aclose()

    asyncio.run(check())


def test_from_nothing_without_any_database(evervec: Make, vacant: Psql, sql: Psql) -> None:
    script = printed(evervec(vacant.url), "--role", "evervec")
    unasked = evervec("unused")("migrate", "--sql", "--role", "evervec", EVERVEC_DATABASE_URL=None)
    vacant.script(unasked.out)
    assert objects(vacant) == objects(sql)
    checked(vacant)
    # a look at the empty database knows a little more: what it is going to make
    assert "Evervec made" in script
    assert "Evervec made" not in unasked.out
    noticed_after_filling(vacant)


def noticed_after_filling(psql: Psql) -> None:
    """Assert that rows of every kind are tracked."""
    fill(psql)
    noticed(psql)


def test_a_role_without_rights_hands_it_to_an_administrator(
    evervec: Make, vacant: Psql, sql: Psql, role: MakeRole, tmp_path: Path
) -> None:
    administrator, app = role("LOGIN"), role("LOGIN")
    vacant(
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        f"GRANT USAGE ON SCHEMA extensions TO {administrator}, {app}",
        f"GRANT CREATE ON DATABASE {vacant.value('SELECT current_database()')} TO {administrator}",
    )
    command = evervec(as_role(vacant.url, app))
    script = printed(command, "--role", app)
    vacant.logged_in_as(administrator).script(script)
    assert [one[:2] for one in objects(vacant)] == [one[:2] for one in objects(sql)]
    checked(vacant)
    commands_of_a_day(command, tmp_path)


def test_what_is_at_head_needs_no_migration(evervec: Make, sql: Psql) -> None:
    made = objects(sql)
    script = printed(evervec(sql.url))
    assert "CREATE TABLE" not in script
    sql.script(script)
    assert objects(sql) == made


@pytest.mark.parametrize("by_script", [True, False], ids=["by script", "by migrate"])
def test_an_installation_in_public_is_moved(
    evervec: Make, vacant: Psql, sql: Psql, role: MakeRole, by_script: bool
) -> None:
    install_in_public(vacant)
    fill(vacant.given(search_path="public"), "public")  # that version found its tables by it
    vacant("SELECT setval(pg_get_serial_sequence('public.embedding_spaces', 'id'), 1)")
    reader = role("LOGIN")
    vacant(f"GRANT SELECT ON public.messages, public.embedding_status TO {reader}")
    held, records = contents(vacant, "public", without=("alembic_version",)), vectors(vacant, "public")
    command = evervec(vacant.url)
    if by_script:
        vacant.script(printed(command))
    else:
        done = command("migrate")
        assert done.code == 0, done
    fill(sql)
    assert [one for one in objects(vacant) if "hnsw" not in one[1]] == objects(sql)
    checked(vacant)
    moved = contents(vacant, without=("alembic_version", "trigger_repairs"))
    assert moved["messages"] == held["messages"]
    assert vectors(vacant) == records
    noticed(vacant)
    # the old names go on working, for whoever had the right
    assert vacant.logged_in_as(reader).number("SELECT count(*) FROM public.messages") > 0
    assert "permission denied" in vacant.logged_in_as(reader).refused("SELECT count(*) FROM public.atoms")


def test_a_newer_version_is_left_alone(evervec: Make, sql: Psql) -> None:
    sql("UPDATE evervec.alembic_version SET version_num = '9999'")
    evervec(sql.url)("migrate", "--sql").refused("9999", code=1)


def test_options_that_do_not_go_together_are_refused(evervec: Make, sql: Psql) -> None:
    evervec(sql.url)("migrate", "--sql", "--json").refused("--sql prints SQL")
    evervec(sql.url)("migrate", "--role", "app").refused("--role goes with --sql")
