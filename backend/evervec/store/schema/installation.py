"""Prepares a database for the migrations: our schema, pgvector, the version table, and what older versions have in `public`.

What is done is planned first, so that it can be printed for somebody else to run.
"""

from dataclasses import dataclass, replace

import asyncpg

from evervec.errors import MigrationRightsError, PgvectorMissingError
from evervec.store.database.connections import EXTENSION_SCHEMA, quoted
from evervec.store.database.rights import VERSION_TABLE
from evervec.store.database.session import Database, ReadTx, Tx
from evervec.store.schema import ledger, moving

# Supabase keeps extensions apart; a role may be without rights on `public`
ROOM_FOR_EXTENSION = """
SELECT nspname FROM pg_namespace WHERE nspname = ANY($1) AND has_schema_privilege(oid, 'CREATE')
ORDER BY array_position($1, nspname::text) LIMIT 1
"""

MAKE_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""
HAS_TABLE = """
SELECT true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""


@dataclass(frozen=True)
class Preparation:
    """A statement that prepares the database; `may` is what `user` lacks if it is refused, `remedy` what helps then."""

    statement: str
    may: str = ""
    remedy: str = ""
    user: str = ""


async def prepare(database: Database) -> None:
    """Make the schema and pgvector if they are missing, and move an installation of an older version into the schema.

    Whatever is there already needs no right to make it.
    """
    async with database.direct_transaction("a migration") as tx:
        for step in await plan(tx, database.schema):
            await _take(tx, step)


async def plan(tx: ReadTx, schema: str) -> list[Preparation]:
    """Return what is missing before the migrations can run."""
    known = before = await ledger.read(tx, schema)
    user = await tx.fetchval("SELECT quote_ident(current_user)")
    there = await tx.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)
    steps = []
    if not there:
        remedy = f"CREATE SCHEMA {quoted(schema)} AUTHORIZATION {user}"
        steps.append(Preparation(f"CREATE SCHEMA {quoted(schema)}", f"create the schema {schema}", remedy, user))
        known = replace(known, schema=True)
    known = replace(known, alone=known.alone or await ledger.is_vacant(tx, schema))
    if await tx.fetchval(EXTENSION_SCHEMA) is None:
        found = await tx.fetchval(ROOM_FOR_EXTENSION, ["extensions", moving.OLD_SCHEMA, schema])
        statement = f"CREATE EXTENSION vector WITH SCHEMA {quoted(found or (moving.OLD_SCHEMA if there else schema))}"
        steps.append(Preparation(statement, "create the extension vector", statement, user))
        known = replace(known, extension=True)
    if schema != moving.OLD_SCHEMA and await moving.is_old(tx):
        known = replace(known, usage=tuple(await moving.without_usage(tx, schema)))
        steps += [Preparation(statement) for statement in await moving.statements(tx, schema)]
    elif await tx.fetchval(HAS_TABLE, schema, VERSION_TABLE) is None:
        steps.append(version_table(schema))
    return steps if known == before else [*steps, Preparation(ledger.note(schema, known))]


def from_nothing(schema: str) -> list[Preparation]:
    """Return what is to be done in a database of which nothing is known."""
    extension = f"CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {moving.OLD_SCHEMA}"
    return [Preparation(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"), Preparation(extension), version_table(schema)]


def version_table(schema: str) -> Preparation:
    """Return what makes the version table, as Alembic does."""
    return Preparation(MAKE_VERSION_TABLE.format(name=f"{quoted(schema)}.{VERSION_TABLE}").strip())


async def _take(tx: Tx, step: Preparation) -> None:
    try:
        await tx.execute(step.statement)
    except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError) as error:
        if "EXTENSION" not in step.statement:
            raise
        raise PgvectorMissingError(major=tx.server_version) from error
    except asyncpg.InsufficientPrivilegeError as error:
        if not step.may:
            raise
        raise MigrationRightsError(user=step.user, what=step.may, statement=step.remedy) from error


async def name_without_schema(database: Database) -> None:
    """Let people name our tables without their schema in a database that holds nothing else: the embedded one."""
    # not "$user": the role there has the name of our schema, and would find our views before the tables that they show
    wanted = f"public, {quoted(database.schema)}"
    async with database.transaction() as tx:
        name = await tx.fetchval("SELECT quote_ident(current_database())")
        settings = await tx.fetchval(
            "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
            "WHERE d.datname = current_database() AND s.setrole = 0"
        )
        if f"search_path={wanted}" not in (settings or []):
            await tx.execute(f"ALTER DATABASE {name} SET search_path = {wanted}")
