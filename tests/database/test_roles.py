"""Writers that are other roles: rights on their table alone suffice, and nothing they make leads our triggers astray."""

import pytest

from evervec.store.schema.embeddables import EMBEDDABLES, MESSAGE, Embeddable
from tests.database import rows
from tests.database.conftest import MakeRole
from tests.database.places import EMBEDDINGS, MESSAGES, SCHEMA, TOMBSTONES, place
from tests.database.programs import Psql
from tests.database.rows import DATASET, KINDS, digests, recorded

every_kind = pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
DENIED = "permission denied"

HOSTILE = """
CREATE TABLE public.stolen (who text, what text);
GRANT ALL ON public.stolen TO PUBLIC;
CREATE TYPE public.uuid AS (x int);
CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'sha256'); RETURN '\\x00'; END $$;
CREATE FUNCTION public.convert_to(text, text) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'convert_to'); RETURN '\\x00'; END $$;
CREATE FUNCTION public.pg_current_xact_id() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'xid'); RETURN '1'; END $$;
CREATE FUNCTION public.differs(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'uuid'); RETURN false; END $$;
CREATE FUNCTION public.differs(bytea, bytea) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'bytea'); RETURN false; END $$;
CREATE FUNCTION public.matches(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.stolen VALUES (current_user, 'text'); RETURN true; END $$;
CREATE OPERATOR public.<> (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.differs);
CREATE OPERATOR public.<> (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = public.differs);
CREATE OPERATOR public.!~ (LEFTARG = text, RIGHTARG = text, FUNCTION = public.matches);
CREATE TABLE public.embeddings (LIKE {embeddings} INCLUDING ALL);
"""
SHADOWS = (
    "CREATE TEMP TABLE embeddings (kind int, row_id bigint, dataset_id uuid, content_hash bytea, UNIQUE (kind, row_id))",
    "CREATE TEMP TABLE vector_tombstones (vector_id bigint, dataset_id uuid)",
    "CREATE TEMP TABLE embed_work (vector_id bigint)",
    "CREATE TEMP TABLE datasets (id uuid, space_id int)",
    "CREATE TEMP TABLE dataset_spaces (dataset_id uuid, space_id int, state text)",
    "CREATE TEMP TABLE embedding_spaces (id int, state text)",
    "CREATE TEMP TABLE chunk_work (space_id int, document_id bigint)",
    # a table's name is a type's name too
    *(f"CREATE TEMP TABLE {name} (x int)" for name in ("uuid", "bytea", "text", "xid8", "vector")),
)


@pytest.fixture
def writer(furnished: Psql, role: MakeRole) -> Psql:
    """Return psql of a role that may write into the tables of rows, and nothing else."""
    name = role("LOGIN")
    furnished(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}")
    for embeddable in EMBEDDABLES:
        furnished(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {place(embeddable)} TO {name}")
    return furnished.logged_in_as(name)


@every_kind
def test_rights_on_the_table_alone_suffice(furnished: Psql, writer: Psql, embeddable: Embeddable) -> None:
    table = place(embeddable)
    writer(rows.insert(embeddable, {1: "one", 2: "two", 3: "three"}))
    writer.script(rows.copy(embeddable, {4: "four"}))
    writer(rows.upsert(embeddable, {4: "four again"}), rows.edit(embeddable, 1, "one again"))
    writer(f"UPDATE {table} SET {KINDS[embeddable].other}")
    assert recorded(furnished, embeddable) == digests({1: "one again", 2: "two", 3: "three", 4: "four again"})
    rows.embed_all(furnished)
    writer(f"DELETE FROM {table} WHERE id = 2", rows.edit(embeddable, 3, " "))
    assert recorded(furnished, embeddable) == digests({1: "one again", 4: "four again"}) | {3: ""}
    # the blank text has lost its vector in the same transaction
    assert len(rows.tombstones(furnished)) == 2
    if embeddable is MESSAGE:
        writer(f"UPDATE {table} SET revision = revision")
        assert furnished(f"SELECT id, revision FROM {table} ORDER BY id") == [["1", "2"], ["3", "2"], ["4", "2"]]


def with_two_spaces(furnished: Psql) -> None:
    """Search the dataset in space 1, and build space 2 beside it."""
    furnished(
        f"INSERT INTO {SCHEMA}.embedding_spaces (provider, model, dimensions) VALUES ('ollama', 'm', 3), ('ollama', 'n', 4)",
        f"SELECT {SCHEMA}.evervec_add_space(id) FROM {SCHEMA}.embedding_spaces",
        f"UPDATE {SCHEMA}.datasets SET space_id = 1",
        f"INSERT INTO {SCHEMA}.dataset_spaces (dataset_id, space_id, state) VALUES ('{DATASET}', 2, 'next')",
    )


@every_kind
def test_rights_on_the_table_alone_suffice_while_a_dataset_has_two_spaces(
    furnished: Psql, writer: Psql, embeddable: Embeddable
) -> None:
    with_two_spaces(furnished)
    table = place(embeddable)
    writer(rows.insert(embeddable, {1: "one", 2: "two", 3: "three"}), rows.edit(embeddable, 1, "one again"))
    writer(f"DELETE FROM {table} WHERE id = 2", f"UPDATE {table} SET dataset_id = '{rows.ELSEWHERE}' WHERE id = 3")
    found = furnished(
        f"SELECT row_id, space_id, encode(content_hash, 'hex') FROM {EMBEDDINGS} WHERE kind = {embeddable.kind} ORDER BY 1, 2"
    )
    again, three = rows.digest("one again"), rows.digest("three")
    assert found == [["1", "1", again], ["1", "2", again], ["3", "1", three]]
    for statement in (
        f"SELECT count(*) FROM {SCHEMA}.dataset_spaces",
        f"SELECT count(*) FROM {SCHEMA}.chunk_work",
        f"SELECT {SCHEMA}.evervec_add_space(2)",
        f"SELECT {SCHEMA}.evervec_drop_space(2)",
        f"SELECT count(*) FROM {SCHEMA}.attached_chunks_1",
    ):
        assert DENIED in writer.refused(statement)


def test_a_role_that_may_truncate_messages_alone(furnished: Psql, role: MakeRole) -> None:
    """Others reference messages, so PostgreSQL lets them be truncated with those alone."""
    writer = furnished.logged_in_as(role("LOGIN"))
    name = writer.value("SELECT current_user")
    furnished(rows.insert(MESSAGE, {1: "one"}))
    rows.embed_all(furnished)
    referring = furnished(
        f"SELECT DISTINCT conrelid::regclass FROM pg_constraint WHERE confrelid = '{MESSAGES}'::regclass"
    )
    tables = ", ".join([MESSAGES, *(one if "." in one else f"{SCHEMA}.{one}" for (one,) in referring)])
    furnished(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}", f"GRANT TRUNCATE ON {tables} TO {name}")
    writer(f"TRUNCATE {tables}")
    assert recorded(furnished, MESSAGE) == {}
    assert len(rows.tombstones(furnished)) == 1


def test_the_writer_sees_and_touches_nothing_else(furnished: Psql, writer: Psql) -> None:
    writer(rows.insert(MESSAGE, {1: "one"}))
    for statement in (
        f"SELECT count(*) FROM {EMBEDDINGS}",
        f"DELETE FROM {EMBEDDINGS}",
        f"INSERT INTO {TOMBSTONES} (vector_id, dataset_id) VALUES (1, '{DATASET}')",
        f"SELECT count(*) FROM {SCHEMA}.llm_providers",
    ):
        assert DENIED in writer.refused(statement)
    assert recorded(furnished, MESSAGE) == digests({1: "one"})


def test_a_role_with_rights_on_the_vectors_alone(furnished: Psql, role: MakeRole) -> None:
    name = role("LOGIN")
    furnished(rows.insert(MESSAGE, {1: "one", 2: "two", 3: "three"}))
    rows.embed_all(furnished)
    furnished(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}", f"GRANT SELECT, UPDATE, DELETE ON {EMBEDDINGS} TO {name}")
    other = furnished.logged_in_as(name).given(search_path='""')
    other(f"UPDATE {EMBEDDINGS} SET embedding = NULL WHERE row_id = 1", f"DELETE FROM {EMBEDDINGS} WHERE row_id = 2")
    assert len(rows.tombstones(furnished)) == 2


@pytest.mark.parametrize("path", ["public, pg_catalog", "pg_temp, public, pg_catalog"], ids=["public", "temp"])
def test_objects_of_the_same_names_are_neither_used_nor_run(furnished: Psql, writer: Psql, path: str) -> None:
    name = writer.value("SELECT current_user")
    if SCHEMA != "public":
        furnished(f"GRANT CREATE, USAGE ON SCHEMA public TO {name}", f"GRANT SELECT ON {EMBEDDINGS} TO {name}")
        writer.script(HOSTILE.format(embeddings=EMBEDDINGS))
    session = writer.given(search_path=path)
    for embeddable in EMBEDDABLES:
        session(
            *SHADOWS, rows.insert(embeddable, {1: "one", 2: "two", 3: "three"}), rows.edit(embeddable, 1, "changed")
        )
        assert recorded(furnished, embeddable) == digests({1: "changed", 2: "two", 3: "three"})
        rows.embed_all(furnished)
        session(*SHADOWS, f"DELETE FROM {place(embeddable)} WHERE id = 1")
        session(*SHADOWS, f"UPDATE {place(embeddable)} SET dataset_id = '{rows.ELSEWHERE}' WHERE id = 2")
        assert len(rows.tombstones(furnished)) == 2
        furnished(f"TRUNCATE {TOMBSTONES}")
    if SCHEMA != "public":
        assert furnished("SELECT * FROM public.stolen") == []
        assert furnished("SELECT * FROM public.embeddings") == []


def test_nobody_can_put_our_triggers_on_a_table_of_his_own(furnished: Psql, role: MakeRole) -> None:
    """They run with the installation's rights: on another table they would write records of rows that do not exist."""
    name = role("LOGIN")
    database = furnished.value("SELECT current_database()")
    furnished(f"GRANT CREATE ON DATABASE {database} TO {name}", f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}")
    thief = furnished.logged_in_as(name)
    thief("CREATE SCHEMA mine", "CREATE TABLE mine.t (id bigint, dataset_id uuid, content text, vector_text text)")
    functions = furnished(
        "SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        f"WHERE n.nspname = '{SCHEMA}' AND p.prorettype = 'trigger'::regtype"
    )
    assert functions
    for (function,) in functions:
        called = function if function.startswith(f"{SCHEMA}.") else f"{SCHEMA}.{function}"
        said = thief.refused(f"CREATE TRIGGER t AFTER INSERT ON mine.t FOR EACH ROW EXECUTE FUNCTION {called}")
        assert DENIED in said, said
