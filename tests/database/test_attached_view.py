"""The view of an attached table lives as long as the database: dumped, restored, moved, with pgvector elsewhere, uninstalled."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database.contents import objects
from tests.database.pipeline import MakeCommand, ran
from tests.database.places import SCHEMA
from tests.database.programs import Psql, archive, dump, run

TABLE = """
CREATE SCHEMA shop;
CREATE TABLE shop."my articles" (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text);
INSERT INTO shop."my articles" (title) SELECT 'title ' || n FROM generate_series(1, 12) n;
"""
ATTACH = ("attach", 'shop."my articles"', "--text", "title", "--project", "app", "--dataset", "Meine Texte", "--wait")
NEAREST = f"""
SELECT count(*) FROM (SELECT a.* FROM shop."my articles" a JOIN {SCHEMA}."meine-texte" v USING (id)
ORDER BY v.embedding OPERATOR(%s.<=>) (SELECT embedding FROM {SCHEMA}."meine-texte" LIMIT 1) LIMIT 10) n
"""
SEARCH = f"""
SELECT count(*) FROM {SCHEMA}.search((SELECT embedding FROM {SCHEMA}.embeddings LIMIT 1), 'meine-texte', 5) WHERE table_name LIKE 'shop%'
"""


def answers(psql: Psql, home: str = "public") -> None:
    """Assert that view and function find rows without any search_path."""
    assert psql.number(NEAREST % home) == 10
    assert psql.number(SEARCH) == 5


@pytest.fixture
def attached(sql: Psql, evervec: MakeCommand) -> Psql:
    """Return psql on a database with an attached table."""
    sql.script(TABLE)
    ran(evervec(sql.url)(*ATTACH))
    return sql


def test_a_dump_restores_with_the_view(attached: Psql, vacant: Psql, evervec: MakeCommand, tmp_path: Path) -> None:
    run("pg_restore", "-1", "-d", vacant.url, str(archive(attached.url, tmp_path / "dump")))
    assert objects(vacant) == objects(attached)
    answers(vacant)
    (one,) = ran(evervec(vacant.url)("attachments", "--json")).document()["attachments"]
    assert (one["view"], one["problems"], one["documents"]) == (f'{SCHEMA}."meine-texte"', [], 12)
    vacant("UPDATE shop.\"my articles\" SET title = 'another' WHERE title = 'title 3'")
    ran(evervec(vacant.url)(*ATTACH))
    assert vacant.number(f"SELECT count(*) FROM {SCHEMA}.\"meine-texte\" WHERE text = 'another'") == 1


def test_a_schema_that_is_renamed_keeps_its_views(attached: Psql) -> None:
    attached(f"ALTER SCHEMA {SCHEMA} RENAME TO vectors")
    assert attached.number("SELECT count(*) FROM vectors.\"meine-texte\" WHERE embedding_status = 'READY'") == 12


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "in the schema of an application"])
def test_uninstalled_with_pgvector_elsewhere(vacant: Psql, evervec: MakeCommand, shared: bool) -> None:
    vacant("CREATE SCHEMA extensions", "CREATE EXTENSION vector SCHEMA extensions")
    vacant.script(TABLE)
    if shared:
        vacant(f"CREATE SCHEMA {SCHEMA}", f"CREATE VIEW {SCHEMA}.theirs AS SELECT 1 AS x")
        vacant(f"CREATE FUNCTION {SCHEMA}.theirs() RETURNS int LANGUAGE sql RETURN 1")
    before = dump(vacant.url)
    command = evervec(vacant.url)
    ran(command("migrate"))
    ran(command(*ATTACH))
    answers(vacant, "extensions")
    listed = ran(command("uninstall", "--dry-run", "--json")).document()["removed"]
    assert f'view {SCHEMA}."meine-texte"' in listed
    ran(command("uninstall", "--yes"))
    assert dump(vacant.url) == before


def test_the_script_of_a_migration_makes_view_and_search(
    made_databases: Callable[..., Psql], evervec: MakeCommand, tmp_path: Path
) -> None:
    target = made_databases()
    script = ran(evervec(target.url)("migrate", "--sql")).out
    target.script(script)
    target.script(TABLE)
    ran(evervec(target.url)(*ATTACH))
    answers(target)
