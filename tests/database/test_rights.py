"""Roles that run Evervec: one with rights on its tables alone, one that owns only its schema; what is missing is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.database.conftest import MakeRole
from tests.database.installed import commands_of_a_day
from tests.database.places import EMBEDDINGS, MESSAGES, SCHEMA
from tests.database.programs import Psql, as_role
from tests.fakes.thread import FakeProviderThread

Make = Callable[..., Command]


def grants_of(said: str) -> list[str]:
    """Return the statements that an error asks for."""
    text = " ".join(said.split())
    return [f"GRANT {one.strip()}" for one in text.partition("GRANT ")[2].partition("; docs/")[0].split("; GRANT ")]


def test_what_is_missing_is_named_and_suffices(evervec: Make, sql: Psql, role: MakeRole, tmp_path: Path) -> None:
    name = role("LOGIN")
    command = evervec(as_role(sql.url, name))
    for _ in range(4):
        done = command("backfill")
        if done.code == 0:
            break
        done.refused(name, f"schema {SCHEMA}", "GRANT", code=1)
        statements = grants_of(done.err.replace("docs/connecting.md", "; docs/"))
        sql(*(statement.rstrip("; ") for statement in statements))
    assert sql.logged_in_as(name).refused(f"DROP TABLE {MESSAGES}")
    commands_of_a_day(command, tmp_path)
    # the first start chose the local provider: with its width checked, and its indexes built
    assert (
        sql.number(
            f"SELECT count(*) FROM pg_constraint WHERE conrelid = '{EMBEDDINGS}'::regclass AND conname LIKE 'embeddings_width_%'"
        )
        == 1
    )
    assert sql.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'embeddings_hnsw_%'") == 4


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (f"INSERT, DELETE ON {MESSAGES}", f"GRANT INSERT, DELETE ON {MESSAGES} TO "),
        (f"SELECT ON {SCHEMA}.alembic_version", f"GRANT SELECT ON {SCHEMA}.alembic_version TO "),
        (f"USAGE ON SCHEMA {SCHEMA}", f"GRANT USAGE ON SCHEMA {SCHEMA} TO "),
        (
            f"EXECUTE ON FUNCTION {SCHEMA}.evervec_add_space(integer)",
            f"GRANT EXECUTE ON FUNCTION {SCHEMA}.evervec_add_space(integer) TO ",
        ),
    ],
)
def test_a_single_right_is_named(evervec: Make, sql: Psql, role: MakeRole, missing: str, named: str) -> None:
    name = role("LOGIN")
    command = evervec(as_role(sql.url, name))
    script = evervec(sql.url)("migrate", "--sql", "--role", name).out
    sql.script(script)
    assert command("status").code == 0
    sql(f"REVOKE {missing} FROM {name}")
    command("backfill").refused(f"{named}{name};", code=1)


def test_what_identifies_the_server_is_asked_for(evervec: Make, sql: Psql, role: MakeRole) -> None:
    name = role("LOGIN")
    sql.script(evervec(sql.url)("migrate", "--sql", "--role", name).out)
    sql("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
    evervec(as_role(sql.url, name))("backfill").refused(
        f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO {name};", code=1
    )


def test_a_role_that_reads_alone_sees_the_status(evervec: Make, sql: Psql, role: MakeRole) -> None:
    assert evervec(sql.url)("status").code == 0
    name = role("LOGIN")
    sql(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}", f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {name}")
    command = evervec(as_role(sql.url, name))
    assert command("status", "--json").code == 0
    command("backfill").refused("GRANT INSERT, UPDATE, DELETE ON", code=1)


def test_an_owner_of_the_schema_alone_needs_nothing_else(
    evervec: Make, vacant: Psql, role: MakeRole, tmp_path: Path
) -> None:
    name = role("LOGIN")
    vacant(
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        f"GRANT USAGE ON SCHEMA extensions TO {name}",
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    )
    command = evervec(as_role(vacant.url, name))
    assert command("migrate").code == 0
    commands_of_a_day(command, tmp_path)


def test_another_model_is_chosen_without_the_owner(evervec: Make, sql: Psql, role: MakeRole) -> None:
    name = role("LOGIN")
    sql.script(evervec(sql.url)("migrate", "--sql", "--role", name).out)
    command = evervec(as_role(sql.url, name))
    with FakeProviderThread(dims=32) as fake:
        given = ("--type", "ollama", "--base-url", fake.url, "--model", "embedder")
        added = command("providers", "add", "fake", *given)
    assert added.code == 0, added
    indexes = "SELECT count(*), count(*) FILTER (WHERE indexdef LIKE '%halfvec(32)%') FROM pg_indexes WHERE indexname LIKE 'embeddings_hnsw%'"
    assert sql(indexes) == [["4", "4"]]


def test_another_model_is_built_searched_and_given_back_without_the_owner(
    evervec: Make, sql: Psql, role: MakeRole, tmp_path: Path
) -> None:
    """Also where a table is attached: whoever may read its view may do so in either space."""
    name, reader = role("LOGIN"), role("LOGIN")
    sql.script(evervec(sql.url)("migrate", "--sql", "--role", name).out)
    sql.script(
        f"CREATE SCHEMA app AUTHORIZATION {name}; GRANT CREATE ON SCHEMA {SCHEMA} TO {name}; "
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {reader}"
    )
    owner = sql.logged_in_as(name)
    owner.script(
        "CREATE TABLE app.notes (id int PRIMARY KEY, body text); INSERT INTO app.notes VALUES (1, 'a wrong delivery time')"
    )
    command = evervec(as_role(sql.url, name), EVERVEC_LOCAL_MODEL="wordllama")
    attached = command("attach", "app.notes", "--text", "body", "--project", "app", "--dataset", "notes", "--wait")
    assert attached.code == 0, attached
    owner(f"GRANT SELECT ON {SCHEMA}.notes TO {reader}")
    seen = f"SELECT embedding_status FROM {SCHEMA}.notes"
    with FakeProviderThread(dims=32) as fake:
        for words in (
            ("providers", "add", "fake", "--type", "ollama", "--base-url", fake.url, "--model", "embedder"),
            ("spaces", "build", "--provider", "fake"),
            ("spaces", "activate"),
            ("search", "wrong delivery time"),
            ("spaces", "rollback"),
            ("spaces", "activate"),
            ("spaces", "drop"),
            ("search", "wrong delivery time"),
        ):
            done = command(*words)
            assert done.code == 0, (words, done)
            assert "permission denied" not in done.err, (words, done)
            assert sql.logged_in_as(reader)(seen) == [["READY"]], words


def test_an_index_that_only_the_owner_can_build_is_named(
    evervec: Make, sql: Psql, role: MakeRole, tmp_path: Path
) -> None:
    name = role("LOGIN")
    sql.script(evervec(sql.url)("migrate", "--sql", "--role", name).out)
    command = evervec(as_role(sql.url, name), EVERVEC_LOG_LEVEL="WARNING")
    commands_of_a_day(command, tmp_path)
    index = sql.value("SELECT min(relname) FROM pg_class WHERE relname LIKE 'embeddings_hnsw_message%'")
    sql(f"DROP INDEX {SCHEMA}.{index}")
    done = command("search", "wrong delivery time")
    assert done.code == 0, done
    assert index in done.err
    assert "run `evervec migrate` as role" in done.err
    assert evervec(sql.url)("migrate").code == 0
    assert sql.number(f"SELECT count(*) FROM pg_class WHERE relname = '{index}'") == 1
