"""An installation of an older version, with its tables in `public`: moved by `migrate`, and reached by the old names still."""

import asyncio

import asyncpg
import pytest

from evervec.store.schema.embeddables import MESSAGE
from tests.database import rows
from tests.database.conftest import MakeRole
from tests.database.contents import contents, fill, noticed, objects, vectors
from tests.database.installed import install_in_public
from tests.database.pipeline import MakeCommand, ran
from tests.database.places import EMBEDDINGS, MESSAGES, SCHEMA
from tests.database.programs import Psql, dump
from tests.database.rows import recorded

OLD = "public"


@pytest.fixture
def old(vacant: Psql) -> Psql:
    """Return psql on a database that an older version made and filled."""
    install_in_public(vacant)
    vacant(f"ALTER DATABASE {vacant.value('SELECT current_database()')} RESET search_path")
    fill(vacant, OLD)
    vacant(f"SELECT setval(pg_get_serial_sequence('{OLD}.messages', 'id'), 100)")
    return vacant


def test_everything_is_moved_and_nothing_is_lost(old: Psql, sql: Psql, evervec: MakeCommand) -> None:
    # what every `migrate` fills in where it is missing
    old(
        f"UPDATE {OLD}.chunks SET content_hash = sha256(convert_to(vector_text, 'UTF8'))",
        f"UPDATE {OLD}.documents SET content_hash = sha256('text'), content = 'text'",
    )
    held, records = contents(old, OLD, without=("alembic_version", "embeddings")), vectors(old, OLD)
    ran(evervec(old.url)("migrate"))
    found = contents(old)
    assert vectors(old) == records
    # a record without a vector was in no space
    assert old(f"SELECT DISTINCT space_id FROM {EMBEDDINGS} UNION SELECT space_id FROM {SCHEMA}.datasets") == [["1"]]
    for table, lines in held.items():
        # columns of later versions come after those of then
        then = [line.removesuffix(")") for line in lines]
        assert [line[: len(known)] for line, known in zip(found[table], then, strict=True)] == then, table
    assert {one[:2] for one in objects(sql)} <= {one[:2] for one in objects(old)}
    noticed(old)
    ran(evervec(old.url)("migrate"))
    told = ran(evervec(old.url)("status", "--json")).document()
    assert not told["problems"]


def test_the_old_names_go_on_working(old: Psql, evervec: MakeCommand) -> None:
    ran(evervec(old.url)("migrate"))
    name = f"{OLD}.messages"
    old(
        f"INSERT INTO {name} (dataset_id, chat, external_id, author, content) "
        f"VALUES ('{rows.DATASET}', 'c', 'x', 'dev', 'by the old name')"
    )
    key = old.number(f"SELECT id FROM {MESSAGES} WHERE content = 'by the old name'")
    assert recorded(old, MESSAGE)[key] == rows.digest("by the old name")
    old(f"UPDATE {name} SET content = 'edited' WHERE id = {key}")
    assert old.value(f"SELECT revision FROM {name} WHERE id = {key}") == "2"
    assert recorded(old, MESSAGE)[key] == rows.digest("edited")
    old(f"DELETE FROM {name} WHERE id = {key}")
    assert key not in recorded(old, MESSAGE)
    assert old.number(f"SELECT count(*) FROM {OLD}.embedding_status") == old.number(
        f"SELECT count(*) FROM {EMBEDDINGS}"
    )

    # what later versions keep elsewhere is shown as before
    old(
        f"INSERT INTO {OLD}.llm_providers (id, name, type, model, space_id, created_at) "
        f"SELECT gen_random_uuid(), 'paused', 'ollama', 'm', min(id), now() FROM {OLD}.embedding_spaces",
        f"INSERT INTO {SCHEMA}.provider_breakers (endpoint, open_until, code, error) "
        f"SELECT endpoint, 'infinity', 'transient', 'HTTP 503' FROM {SCHEMA}.llm_providers WHERE name = 'paused'",
    )
    assert old.value(f"SELECT pause_code FROM {OLD}.llm_providers WHERE name = 'paused'") == "transient"


def test_a_role_with_grants_keeps_working_by_the_old_names(old: Psql, role: MakeRole, evervec: MakeCommand) -> None:
    writer, reader = role("LOGIN"), role("LOGIN")
    old(
        f"GRANT INSERT, UPDATE, DELETE, SELECT ON {OLD}.messages TO {writer}",
        f"GRANT SELECT, UPDATE, INSERT, DELETE ON {OLD}.embeddings TO {writer}",
        f"GRANT INSERT ON {OLD}.vector_tombstones TO {writer}",
        f"GRANT DELETE, SELECT ON {OLD}.embed_work TO {writer}",
        f"GRANT SELECT ON {OLD}.embedding_status, {OLD}.messages TO {reader}",
    )
    insert = (
        f"INSERT INTO {OLD}.messages (id, dataset_id, chat, external_id, author, content) "
        f"VALUES (%s, '{rows.DATASET}', 'c', 'x%s', 'dev', 'granted')"
    )
    old.logged_in_as(writer)(insert % (901, 901))
    ran(evervec(old.url)("migrate"))
    old.logged_in_as(writer)(
        insert % (902, 902),
        f"UPDATE {OLD}.messages SET content = 'granted again' WHERE id = 902",
        f"DELETE FROM {OLD}.messages WHERE id = 901",
    )
    assert recorded(old, MESSAGE)[902] == rows.digest("granted again")
    seen = old.logged_in_as(reader)
    assert seen.number(f"SELECT count(*) FROM {OLD}.embedding_status") > 0
    assert "permission denied" in seen.refused(f"DELETE FROM {OLD}.messages")


def test_what_others_have_in_public_stays(old: Psql, evervec: MakeCommand) -> None:
    old("CREATE TABLE public.invoices (id int)", "CREATE FUNCTION public.evervec_like() RETURNS int LANGUAGE sql RETURN 1",
        f"CREATE VIEW public.report AS SELECT count(*) AS messages FROM {OLD}.messages")  # fmt: skip
    ran(evervec(old.url)("migrate"))
    assert old.value("SELECT messages FROM public.report") == old.value(f"SELECT count(*) FROM {MESSAGES}")
    assert "public.invoices" in dump(old.url, "-n", "public")


def test_nothing_is_moved_while_somebody_holds_a_table(old: Psql, evervec: MakeCommand) -> None:
    """A lock that does not come is an error with everything as it was: no half of an installation is moved."""

    async def held() -> None:
        connection = await asyncpg.connect(old.url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"LOCK TABLE {OLD}.messages IN ROW EXCLUSIVE MODE")
        try:
            done = await asyncio.to_thread(evervec(old.url), "migrate")
            done.tidy()
            assert done.code == 1, done
        finally:
            await transaction.rollback()
            await connection.close()

    asyncio.run(held())
    assert old.number(f"SELECT count(*) FROM {OLD}.messages") > 0
    assert old.value(f"SELECT to_regclass('{MESSAGES}') IS NULL") == "t"
    ran(evervec(old.url)("migrate"))
    assert old.number(f"SELECT count(*) FROM {MESSAGES}") > 0
