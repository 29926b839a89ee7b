"""A database that is an application's first: its own Alembic, tables of our names, types called vector, and a strict DBA."""

from pathlib import Path

import pytest

from tests.database.conftest import MakeRole
from tests.database.pipeline import MakeCommand, answers, fill, ran, works
from tests.database.places import SCHEMA
from tests.database.programs import Psql, dump

APPLICATION = """
CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO public.alembic_version VALUES ('{revision}');
CREATE TABLE public.projects (id serial PRIMARY KEY, title text);
CREATE TABLE public.messages (id serial PRIMARY KEY, project int REFERENCES public.projects, body text);
CREATE TABLE public.chunks (part int);
CREATE TABLE public.embeddings (id int, embedding float8[]);
CREATE TABLE public.embed_work (id int);
CREATE VIEW public.embedding_status AS SELECT count(*) FROM public.messages;
CREATE FUNCTION public.evervec_vector_deleted_not() RETURNS int LANGUAGE sql RETURN 1;
INSERT INTO public.projects (title) VALUES ('theirs');
INSERT INTO public.messages (project, body) VALUES (1, 'theirs');
"""
VECTORS = {
    "a table": "CREATE SCHEMA a; CREATE TABLE a.vector (x int, y int); INSERT INTO a.vector VALUES (1, 2)",
    "a type": "CREATE SCHEMA a; CREATE TYPE a.vector AS (x int)",
    "a domain": "CREATE DOMAIN public.vector AS text; CREATE SCHEMA extensions",
    "a view in public": "CREATE SCHEMA extensions; CREATE VIEW public.vector AS SELECT 1 AS x",
}


def theirs(psql: Psql) -> str:
    """Return everything in the database that is not ours: the definitions and the rows."""
    return dump(psql.url, "-N", SCHEMA, "--no-comments")


def with_extension(psql: Psql, schema: str = "extensions") -> None:
    """Install pgvector as a DBA does, before we come."""
    psql(f"CREATE SCHEMA IF NOT EXISTS {schema}", f"CREATE EXTENSION vector SCHEMA {schema}")


@pytest.mark.parametrize("revision", ["abc", "0001", "0005"])
def test_an_application_with_an_alembic_of_its_own(
    vacant: Psql, evervec: MakeCommand, tmp_path: Path, revision: str
) -> None:
    vacant.script(APPLICATION.format(revision=revision))
    with_extension(vacant)
    before = theirs(vacant)
    works(evervec(vacant.url), tmp_path)
    assert theirs(vacant) == before
    ran(evervec(vacant.url)("migrate"))
    assert theirs(vacant) == before


@pytest.mark.parametrize("made", VECTORS.values(), ids=VECTORS)
def test_something_else_that_is_called_vector(vacant: Psql, evervec: MakeCommand, tmp_path: Path, made: str) -> None:
    vacant.script(f"{made};\n")
    with_extension(vacant)
    before = theirs(vacant)
    works(evervec(vacant.url), tmp_path)
    assert theirs(vacant) == before


@pytest.mark.parametrize("home", ["extensions", "public", SCHEMA, '"Odd name"'])
def test_pgvector_in_any_schema(vacant: Psql, evervec: MakeCommand, tmp_path: Path, home: str) -> None:
    with_extension(vacant, home)
    works(evervec(vacant.url), tmp_path)


def test_a_role_that_owns_our_schema_and_nothing_else(
    vacant: Psql, role: MakeRole, evervec: MakeCommand, tmp_path: Path
) -> None:
    name, database = role("LOGIN"), vacant.value("SELECT current_database()")
    vacant.script(APPLICATION.format(revision="abc"))
    with_extension(vacant)
    vacant(
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {name}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}",
        f"GRANT USAGE ON SCHEMA extensions TO {name}",
    )
    before = theirs(vacant)
    command = evervec(vacant.logged_in_as(name).url)
    ran(command("migrate"))
    fill(command, tmp_path)
    answers(command)
    assert theirs(vacant) == before


def test_two_installations_in_one_database(vacant: Psql, evervec: MakeCommand, tmp_path: Path) -> None:
    one, two = evervec(vacant.url), evervec(vacant.url, EVERVEC_DATABASE_SCHEMA="other")
    ran(one("migrate"))
    ran(two("migrate"))
    fill(one, tmp_path)
    assert ran(two("status", "--json")).document()["rows"] == 0
    fill(two, tmp_path)
    answers(one)
    answers(two)


def test_a_role_without_rights_is_told_which(vacant: Psql, role: MakeRole, evervec: MakeCommand) -> None:
    name = role("LOGIN")
    done = evervec(vacant.logged_in_as(name).url)("migrate")
    done.refused("CREATE", SCHEMA, code=1)
    vacant(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}")
    done = evervec(vacant.logged_in_as(name).url)("migrate")
    done.refused("vector", "CREATE EXTENSION", code=1)
