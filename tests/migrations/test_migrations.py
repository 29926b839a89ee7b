"""The schema: from nothing to head and back, the same as the declarations, and frozen once it is released."""

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from evervec.store.database import checks
from evervec.store.database.session import Database
from evervec.store.schema import installation, migrations, models, triggers
from tests.conftest import NUMBERS, Servers, _sql

HERE = Path(__file__).parent
OBJECTS = """
SELECT c.relname AS name, c.relkind::text AS what, coalesce(pg_get_indexdef(i.indexrelid), '') AS definition
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relnamespace = 'evervec'::regnamespace AND c.relkind IN ('r', 'i', 'v', 'S')
UNION ALL
SELECT conrelid::regclass || '.' || conname, 'constraint', pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'evervec'::regnamespace
UNION ALL
SELECT attrelid::regclass || '.' || attname, 'column', format_type(atttypid, atttypmod) || ' ' || attnotnull || ' '
       || coalesce(pg_get_expr(adbin, adrelid), '')
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE c.relnamespace = 'evervec'::regnamespace AND c.relkind = 'r' AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT p.proname, 'function', p.prosrc FROM pg_proc p WHERE p.pronamespace = 'evervec'::regnamespace AND p.proname LIKE 'evervec%'
UNION ALL
SELECT tgrelid::regclass || '.' || tgname, 'trigger', pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
ORDER BY 1, 2
"""  # fmt: skip


@pytest.fixture
async def empty(servers: Servers) -> AsyncIterator[Database]:
    """Make an empty database."""
    name = f"empty_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name}")
    opened = await Database(servers.database(name)).open(check=False)
    yield opened
    await opened.aclose()
    await _sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


async def schema(database: Database) -> list[Any]:
    async with database.read() as tx:
        if await tx.fetchval("SELECT to_regnamespace('evervec')") is None:
            return []
        return [tuple(row) for row in await tx.fetch(OBJECTS)]


async def test_from_nothing_to_head_and_back_and_up_again(empty: Database) -> None:
    assert await schema(empty) == []
    await migrations.upgrade(empty)
    made = await schema(empty)
    async with empty.read() as tx:
        await checks.schema(tx, "evervec")
    await migrations.downgrade(empty)
    left = {(name, what) for name, what, _ in await schema(empty)}
    assert {name.partition(".")[0] for name, _ in left} <= {"alembic_version", "alembic_version_pkc"}
    await migrations.upgrade(empty)
    assert await schema(empty) == made


async def test_upgrading_twice_changes_nothing(empty: Database) -> None:
    await migrations.upgrade(empty)
    made = await schema(empty)
    await migrations.upgrade(empty)
    assert await schema(empty) == made


PROVIDERS_BEFORE = """
WITH space AS (
    INSERT INTO evervec.embedding_spaces (provider, model, dimensions) VALUES ('gemini', 'm', 4) RETURNING id
)
INSERT INTO evervec.llm_providers (name, type, model, chat_model, space_id)
SELECT name, type, 'm', chat_model, id FROM space, (VALUES
    ('media', 'gemini', 'describes'), ('plain', 'openai', NULL), ('chat', 'ollama', 'extracts')) p (name, type, chat_model)
"""


async def test_a_chat_model_that_described_media_alone_does_not_begin_to_extract(empty: Database) -> None:
    await migrations.upgrade(empty, "0010")
    async with empty.transaction() as tx:
        await tx.execute(PROVIDERS_BEFORE)
    await migrations.upgrade(empty)
    async with empty.read() as tx:
        found = await tx.fetch("SELECT name, extracts, encoder FROM evervec.llm_providers ORDER BY name")
    assert [tuple(row) for row in found] == [("chat", True, "{}"), ("media", False, "{}"), ("plain", True, "{}")]


async def test_the_migrations_make_what_the_tables_declare(database: Database) -> None:
    await migrations.check(database)


async def test_the_models_alone_make_the_same_tables_constraints_and_indexes(
    empty: Database, database: Database
) -> None:
    """Compare PostgreSQL's own words for checks and defaults: Alembic compares neither."""
    await installation.prepare(empty)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=empty.open_direct, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(models.metadata.create_all)
    await engine.dispose()
    assert _declared(await schema(empty)) == _declared(await schema(database))


def _declared(found: list[Any]) -> list[Any]:
    """Remove what a model cannot say: the fill factor of a constraint's index, and that a 0 was written as '0'."""
    kinds = ("r", "i", "column", "constraint")
    kept = [one for one in found if one[1] in kinds and "alembic_version" not in one[0]]
    return [(*one[:2], re.sub(r"'0'::\w+( precision)?$| WITH \(fillfactor='50'\)", _plain, one[2])) for one in kept]


def _plain(match: re.Match[str]) -> str:
    return "0" if match[0].startswith("'0'") else ""


async def test_a_column_that_no_migration_made_is_noticed(database: Database, psql: Any) -> None:
    await psql.execute("ALTER TABLE messages DROP COLUMN reply_to")
    with pytest.raises(Exception, match="New upgrade operations detected"):
        await migrations.check(database)


async def test_indexes_of_a_space_are_nobodys_drift(database: Database, psql: Any) -> None:
    await psql.execute(
        "CREATE INDEX embeddings_hnsw_message_1 ON embeddings USING hnsw ((embedding::halfvec(4)) halfvec_cosine_ops)"
    )
    await migrations.check(database)


async def test_what_is_installed_is_what_is_declared(database: Database) -> None:
    before = await schema(database)
    for _ in range(2):
        async with database.transaction() as tx:
            for statement in triggers.install("evervec"):
                await tx.execute(statement)
    assert await schema(database) == before


async def test_every_trigger_fires_whoever_writes(psql: Any) -> None:
    rows = await psql.fetch("SELECT tgname, tgenabled::text AS enabled FROM pg_trigger WHERE NOT tgisinternal")
    assert len(rows) >= 15
    assert {row["enabled"] for row in rows} == {"A"}


def test_there_is_one_head_and_the_boot_check_wants_it() -> None:
    heads = ScriptDirectory.from_config(migrations.config()).get_heads()
    assert list(heads) == [checks.SCHEMA]


def test_a_revision_of_a_newer_evervec_is_not_ours() -> None:
    assert migrations.knows(checks.SCHEMA)
    assert not migrations.knows("9999")


def test_a_released_migration_is_as_it_was_released() -> None:
    found = sorted(path for path in (migrations.folder() / "versions").iterdir() if path.is_file())
    digests = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in found]
    assert digests == (HERE / "frozen.txt").read_text().splitlines(), (
        "A migration was changed or added. One that is released stays as it is; after adding one, run "
        "scripts/freeze_migrations."
    )
