"""The life of an installation goes on after a restore: into another database, under another schema, with old mirrors."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database.contents import contents, noticed
from tests.database.contents import fill as fill_rows
from tests.database.pipeline import MakeCommand, answers, fill, ran
from tests.database.places import MESSAGES, SCHEMA
from tests.database.programs import Psql, archive, dump, run
from tests.database.rows import untracked

OTHER = "other"


def test_a_mirror_knows_that_its_watermark_means_nothing(
    vacant: Psql, made_databases: Callable[..., Psql], evervec: MakeCommand, tmp_path: Path
) -> None:
    mirrors = str(tmp_path / "mirrors")
    original = evervec(vacant.url, EVERVEC_FAISS_DIR=mirrors)
    ran(original("migrate"))
    fill(original, tmp_path)
    answers(original)
    restored = made_databases()
    run("pg_restore", "-d", restored.url, str(archive(vacant.url, tmp_path / "dump")))
    restored(f"DELETE FROM {MESSAGES} WHERE id <= 3", f"UPDATE {MESSAGES} SET content = 'a parrot speaks' WHERE id = 4")
    command = evervec(restored.url, EVERVEC_FAISS_DIR=mirrors)
    ran(command("backfill", "--json"))
    answers(command, rows=27)
    found = ran(command("search", "a parrot speaks", "--json")).document()
    assert found["hits"][0]["text"] == "a parrot speaks"


def test_a_plain_dump_with_another_schemas_name(sql: Psql, vacant: Psql, evervec: MakeCommand) -> None:
    fill_rows(sql)
    vacant.script(re.sub(rf"\b{SCHEMA}\b", OTHER, dump(sql.url, "--no-owner")))
    assert contents(vacant, OTHER) == contents(sql)
    noticed(vacant, OTHER)
    command = evervec(vacant.url, EVERVEC_DATABASE_SCHEMA=OTHER)
    assert not ran(command("status", "--json")).document()["problems"]


def test_a_schema_that_was_renamed(sql: Psql, evervec: MakeCommand) -> None:
    """Functions hold the old name: writers fail until `migrate`, and `status` says so."""
    fill_rows(sql)
    sql(
        f"INSERT INTO {SCHEMA}.llm_providers (name, type, model, space_id) "
        f"SELECT 'here', provider, model, id FROM {SCHEMA}.embedding_spaces"
    )
    held = contents(sql)
    sql(f"ALTER SCHEMA {SCHEMA} RENAME TO {OTHER}")
    command = evervec(sql.url, EVERVEC_DATABASE_SCHEMA=OTHER)
    told = ran(command("status", "--json")).document()
    assert any("evervec_track_messages" in str(problem) for problem in told["problems"]), told["problems"]
    ran(command("migrate"))
    assert contents(sql, OTHER)["messages"] == held["messages"]
    assert contents(sql, OTHER)["embeddings"] == held["embeddings"]
    noticed(sql, OTHER)
    assert not ran(command("status", "--json")).document()["problems"]


@pytest.mark.parametrize("options", [(), ("--disable-triggers",)], ids=["firing", "disabled"])
def test_data_alone_into_a_database_that_evervec_migrated(
    sql: Psql, vacant: Psql, evervec: MakeCommand, options: tuple[str, ...]
) -> None:
    """A migrated database has nothing in it that the data would meet, except the version of its tables."""
    fill_rows(sql)
    command = evervec(vacant.url)
    ran(command("migrate"))
    vacant.script(dump(sql.url, "--data-only", "-T", f"{SCHEMA}.alembic_version", *options))
    ran(command("migrate"))
    assert untracked(vacant) == 0
    assert contents(vacant)["messages"] == contents(sql)["messages"]
    noticed(vacant)
