"""Evervec's writes are part of the caller's transaction: they come and go with it, and leave its session as it was."""

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from evervec import Document, SemanticCore
from evervec.errors import (
    ConflictError,
    DatabaseDownError,
    DatabaseRefusedError,
    MissingRightsError,
    Refused,
    UnknownDatasetError,
)
from evervec.store.rings.doorbell import PostgresDoorbell
from tests.conftest import Servers
from tests.library.articles import Article

BIRDS = Document.from_text("birds", "birds sing in the morning")
SETTINGS = (
    "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings "
    "WHERE name IN ('search_path', 'lock_timeout', 'statement_timeout', 'transaction_isolation', 'idle_in_transaction_session_timeout')"
)


async def counts(psql: Any) -> tuple[int, int]:
    """Return how many articles and how many documents others see."""
    return (
        await psql.fetchval("SELECT count(*) FROM public.articles"),
        await psql.fetchval("SELECT count(*) FROM evervec.documents"),
    )


async def test_a_session_commits_its_rows_and_documents_together_or_not_at_all(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    async with AsyncSession(app) as session, local.transaction(session) as tx:
        session.add(Article(title="New"))
        done = await tx.ingest(BIRDS)
        await session.flush()
        assert (done.chunks_new, done.pending, done.embedded) == (1, 1, 0)
        assert await counts(psql) == (3, 0)
        await session.rollback()
        assert await counts(psql) == (3, 0)
    async with AsyncSession(app) as session, session.begin(), local.transaction(session) as tx:
        session.add(Article(title="New"))
        await tx.ingest([BIRDS, Document.from_text("soup", "cold soup")])
    assert await counts(psql) == (4, 2)
    async with AsyncSession(app) as session, local.transaction(session) as tx:
        assert await tx.delete("birds") == 1
        await session.commit()
    assert await counts(psql) == (4, 1)
    assert (await local.backfill()).embedded == 1


async def test_an_error_in_the_block_is_the_callers_and_nothing_is_committed(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with app.begin() as connection, local.transaction(connection) as tx:
            await connection.execute(text("INSERT INTO articles (title) VALUES ('x')"))
            await tx.ingest(BIRDS)
            raise ZeroDivisionError
    assert await counts(psql) == (3, 0)


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_session_finds_everything_as_it_was(
    local: SemanticCore, app: AsyncEngine, database_url: str, psql: Any, isolation: Any
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET search_path = ''; SET statement_timeout = '50s'")
    # whoever reads json otherwise, and calls a savepoint as we do
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=str)
    transaction = connection.transaction(isolation=isolation)
    await transaction.start()
    await connection.execute("SET LOCAL lock_timeout = '3s'; SAVEPOINT evervec")
    before = await connection.fetchval(SETTINGS)
    async with local.transaction(connection) as tx:
        await tx.ingest(BIRDS)
        assert await connection.fetchval(SETTINGS) == before
        with pytest.raises(Refused, match="is no document"):
            await tx.ingest("a text")  # type: ignore[arg-type]
        with pytest.raises(UnknownDatasetError):
            await tx.delete("birds", dataset="unknown")
        assert await connection.fetchval(SETTINGS) == before
        await tx.execute("INSERT INTO public.articles (title) VALUES ($1)", "written with an empty search_path")
        assert [row[0] for row in await tx.fetch("SELECT count(*) FROM public.articles")] == [4]
    assert connection.is_in_transaction()
    await connection.execute("ROLLBACK TO SAVEPOINT evervec")
    async with local.transaction(connection) as tx:
        await tx.ingest(Document.from_text("soup", "cold soup"))
    await transaction.commit()
    assert await connection.fetchval("SHOW search_path") == '""'
    await connection.close()
    assert await psql.fetch("SELECT uri FROM evervec.documents") == [("soup",)]


async def test_the_path_that_a_transaction_sets_for_itself_or_for_later_stays(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    async with psql.transaction():
        await psql.execute("SET search_path = pg_temp, public")
        async with local.transaction(psql) as tx:
            await tx.ingest(BIRDS)
        async with psql.transaction():
            await psql.execute("SET LOCAL search_path = public, information_schema")
            async with local.transaction(psql) as tx:
                await tx.ingest(Document.from_text("soup", "cold soup"))
            assert await psql.fetchval("SHOW search_path") == "public, information_schema"
    assert await psql.fetchval("SHOW search_path") == "pg_temp, public"


async def test_a_connection_of_a_pool_takes_part(
    local: SemanticCore, app: AsyncEngine, database_url: str, psql: Any
) -> None:
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
        local.transaction(connection) as tx,
    ):
        # both at once: one after the other on the one connection
        await asyncio.gather(tx.ingest(BIRDS), tx.ingest(Document.from_text("soup", "cold soup"), dataset="other"))
    assert await counts(psql) == (3, 2)


async def test_a_transaction_of_its_own_is_committed_or_undone_as_a_whole(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    with pytest.raises(asyncpg.NotNullViolationError):
        async with local.transaction() as tx:
            await tx.ingest(BIRDS)
            await tx.execute("INSERT INTO articles (title) VALUES (NULL)")
    assert await counts(psql) == (3, 0)
    async with local.transaction() as tx:
        await tx.ingest(BIRDS, dataset="birds")
        await tx.execute("INSERT INTO articles (title) VALUES ($1)", "by its usual name")
        assert await tx.delete(["birds", "none"], dataset="birds") == 1
        await tx.ingest(BIRDS, project="other", dataset="birds")
    assert await counts(psql) == (4, 1)


async def test_what_fails_inside_leaves_the_rest_of_the_transaction_alive(
    local: SemanticCore, app: AsyncEngine, database_url: str, psql: Any
) -> None:
    await local.ingest(BIRDS)
    async with AsyncSession(app) as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await session.execute(text("SELECT 1 FROM articles"))
        await local.ingest(Document.from_text("birds", "written by somebody else meanwhile"))
        async with local.transaction(session) as tx:
            with pytest.raises(ConflictError, match="could not serialize"):
                await tx.ingest(Document.from_text("birds", "an older snapshot may not overwrite it"))
            session.add(Article(title="New"))
            await session.commit()
    assert (await counts(psql))[0] == 4
    texts = await psql.fetch("SELECT content FROM evervec.chunks")
    assert [row["content"] for row in texts] == ["written by somebody else meanwhile"]


async def test_a_role_without_rights_is_told_which_and_its_transaction_goes_on(
    local: SemanticCore, app: AsyncEngine, database_url: str, psql: Any
) -> None:
    await psql.execute(
        'DROP ROLE IF EXISTS "clerk 1"; CREATE ROLE "clerk 1"; GRANT INSERT ON public.articles TO "clerk 1"'
    )
    try:
        async with psql.transaction():
            await psql.execute('SET LOCAL ROLE "clerk 1"')
            async with local.transaction(psql) as tx:
                with pytest.raises(MissingRightsError, match=r'GRANT .* TO "clerk 1"'):
                    await tx.ingest(BIRDS)
                await tx.execute("INSERT INTO public.articles (title) VALUES ('New')")
    finally:
        await psql.execute('REVOKE ALL ON public.articles FROM "clerk 1"; DROP ROLE "clerk 1"')
    assert await counts(psql) == (4, 0)


async def test_a_transaction_that_only_reads_is_named(local: SemanticCore, app: AsyncEngine, psql: Any) -> None:
    async with psql.transaction(readonly=True):
        async with local.transaction(psql) as tx:
            with pytest.raises(DatabaseRefusedError, match="read-only"):
                await tx.ingest(BIRDS)
        assert await psql.fetchval("SELECT 1") == 1


async def test_connections_that_can_not_be_shared_are_refused_with_the_next_step(
    local: SemanticCore, app: AsyncEngine, servers: Servers, database_url: str, psql: Any
) -> None:
    with pytest.raises(Refused, match=r"No transaction is open .*`async with connection\.transaction\(\)`"):
        async with local.transaction(psql):
            pass
    async with app.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        with pytest.raises(Refused, match="leave AUTOCOMMIT away"):
            async with local.transaction(connection):
                pass
    psycopg = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with pytest.raises(Refused, match="uses the driver psycopg, and Evervec shares those of asyncpg"):
        async with AsyncSession(psycopg) as session, local.transaction(session):
            pass
    await psycopg.dispose()
    for given in (Session(create_engine("sqlite://")), "postgresql://", app):
        with pytest.raises(Refused, match=r"The connection is a .* AsyncSession"):
            async with local.transaction(given):
                pass
    other = await asyncpg.connect(servers.database("postgres"))
    async with other.transaction():
        with pytest.raises(Refused, match=r"database postgres at .*, and Evervec is in test_\d+ at "):
            async with local.transaction(other):
                pass
    await other.close()


async def test_it_rings_after_the_commit_and_never_for_what_rolls_back(
    local: SemanticCore, app: AsyncEngine, database_url: str, psql: Any
) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    doorbell = local._resources.doorbell
    assert isinstance(doorbell, PostgresDoorbell)
    async with doorbell.listening_for_work(heard.put_nowait):
        async with asyncio.timeout(60):
            assert await heard.get() is None  # it listens now, and may have missed some
        async with AsyncSession(app) as session:
            async with local.transaction(session) as tx:
                await tx.ingest(BIRDS, dataset="never")
            await session.rollback()
            async with local.transaction(session) as tx:
                await tx.ingest(BIRDS, dataset="soon")
            assert heard.empty()
            await session.commit()
        wanted = await psql.fetchval("SELECT id FROM evervec.datasets WHERE slug = 'soon'")
        async with asyncio.timeout(60):
            assert await heard.get() == wanted
        async with local.transaction() as tx:
            await tx.ingest(BIRDS, dataset="own")
        wanted = await psql.fetchval("SELECT id FROM evervec.datasets WHERE slug = 'own'")
        async with asyncio.timeout(60):
            assert await heard.get() == wanted
    assert heard.empty()


async def test_documents_of_a_source_are_not_deleted_here(local: SemanticCore, app: AsyncEngine) -> None:
    await local.ingest(BIRDS)
    assert (await local.delete("birds"), await local.delete("birds")) == (1, 0)
    done = await local.attach(Article, text=Article.title, dataset="app/articles")
    assert done.state == "attached"
    with pytest.raises(Refused, match="is filled from a source"):
        await local.delete("public.articles/1", project="app", dataset="articles")


async def test_a_lost_connection_is_named(local: SemanticCore, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    async with local.transaction(connection) as tx:
        connection.terminate()
        with pytest.raises(DatabaseDownError, match="closed"):
            await tx.ingest(BIRDS)
