"""Prepares a database for the migrations: our schema, pgvector, and the tables of older versions moved out of `public`."""

import asyncpg

from evervec.errors import MigrationRightsError, PgvectorMissingError
from evervec.store.connections import EXTENSION_SCHEMA, quoted
from evervec.store.schema import triggers
from evervec.store.session import Database, Tx

OLD_SCHEMA = "public"
OLD_REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""The revisions of the versions that kept their tables in `public`."""

OLD_TABLES = [
    "alembic_version",
    "atom_links",
    "atom_sources",
    "atom_versions",
    "atoms",
    "batch_items",
    "batch_jobs",
    "chunks",
    "datasets",
    "documents",
    "embed_work",
    "embedding_spaces",
    "embeddings",
    "extract_work",
    "index_runs",
    "llm_providers",
    "media",
    "messages",
    "mirrors",
    "projects",
    "recall_checks",
    "sources",
    "topics",
    "vector_tombstones",
]
OLD_FUNCTIONS = [
    "evervec_message_revised",
    "evervec_track_atoms",
    "evervec_track_chunks",
    "evervec_track_messages",
    "evervec_track_topics",
    "evervec_vector_changed",
    "evervec_vector_deleted",
]

MOVE_LOCK_SECONDS = 10

# Supabase keeps extensions apart; a role may be without rights on `public`
ROOM_FOR_EXTENSION = """
SELECT nspname FROM pg_namespace WHERE nspname = ANY($1) AND has_schema_privilege(oid, 'CREATE')
ORDER BY array_position($1, nspname::text) LIMIT 1
"""

GRANTS = """
SELECT c.relname AS name, g.privilege_type AS privilege,
       CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS grantee
FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g
WHERE c.relnamespace = $1::regnamespace AND c.relname = ANY($2) AND g.grantee <> c.relowner
  AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
"""


async def prepare(database: Database) -> None:
    """Make the schema and pgvector if they are missing, and move an installation of an older version into the schema.

    Whatever is there already needs no right to make it.
    """
    schema = database.schema
    async with database.direct_transaction("a migration") as tx:
        if not await tx.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
            await _create_schema(tx, schema)
        if await tx.fetchval(EXTENSION_SCHEMA) is None:
            room = await tx.fetchval(ROOM_FOR_EXTENSION, ["extensions", OLD_SCHEMA, schema])
            await _create_extension(tx, room or OLD_SCHEMA)
        if schema != OLD_SCHEMA and await _is_old(tx):
            await _move(tx, schema)


async def _create_schema(tx: Tx, schema: str) -> None:
    user = await tx.fetchval("SELECT quote_ident(current_user)")
    try:
        await tx.execute(f"CREATE SCHEMA {quoted(schema)}")
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationRightsError(
            user=user,
            what=f"create the schema {schema}",
            statement=f"CREATE SCHEMA {quoted(schema)} AUTHORIZATION {user}",
        ) from error


async def _create_extension(tx: Tx, room: str) -> None:
    user = await tx.fetchval("SELECT quote_ident(current_user)")
    statement = f"CREATE EXTENSION vector WITH SCHEMA {quoted(room)}"
    try:
        await tx.execute(statement)
    except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError) as error:
        raise PgvectorMissingError(major=tx.server_version) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationRightsError(user=user, what="create the extension vector", statement=statement) from error


async def _is_old(tx: Tx) -> bool:
    """Return whether `public` holds the tables of an older version, and not those of another program."""
    if not await tx.fetchval(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1 AND has_schema_privilege(oid, 'USAGE'))", OLD_SCHEMA
    ):
        return False  # PostgreSQL refuses even to look for a name there
    landmarks = [f"{OLD_SCHEMA}.{name}" for name in ("alembic_version", "embed_work", "embeddings")]
    found = await tx.fetchval(
        "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest($1::text[]) AS name", landmarks
    )
    if not found or await tx.fetchval("SELECT to_regprocedure($1)", f"{OLD_SCHEMA}.{OLD_FUNCTIONS[-1]}()") is None:
        return False
    kind = await tx.fetchval("SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass($1)", landmarks[-1])
    revisions = [row[0] for row in await tx.fetch(f"SELECT version_num FROM {landmarks[0]}")]
    return bool(kind) and len(revisions) == 1 and revisions[0] in OLD_REVISIONS


async def _move(tx: Tx, schema: str) -> None:
    """Move tables, view and functions, and leave views under the old names, with the rights that others had on them."""
    ours, old = quoted(schema), quoted(OLD_SCHEMA)
    await tx.execute(f"SET LOCAL lock_timeout = '{MOVE_LOCK_SECONDS}s'; SET LOCAL search_path = pg_temp")
    present = await tx.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass($2 || '.' || name) IS NOT NULL",
        OLD_TABLES,
        old,
    )
    tables = [row["name"] for row in present]
    await tx.execute(f"ALTER VIEW IF EXISTS {old}.embedding_status SET SCHEMA {ours}")
    for function in OLD_FUNCTIONS:
        await tx.execute(f"ALTER FUNCTION {old}.{function}() SET SCHEMA {ours}")
    for table in tables:
        await tx.execute(f"ALTER TABLE {old}.{table} SET SCHEMA {ours}")
    for statement in triggers.install(schema):
        await tx.execute(statement)
    views = [*(table for table in tables if table != "alembic_version"), "embedding_status"]
    for view in views:
        await tx.execute(f"CREATE VIEW {old}.{view} AS SELECT * FROM {ours}.{view}")
    for grant in await tx.fetch(GRANTS, schema, views):
        await tx.execute(f"GRANT USAGE ON SCHEMA {ours} TO {grant['grantee']}")
        await tx.execute(f"GRANT {grant['privilege']} ON {old}.{grant['name']} TO {grant['grantee']}")


async def name_without_schema(database: Database) -> None:
    """Let people name our tables without their schema in a database that holds nothing else: the embedded one."""
    wanted = f'"$user", public, {quoted(database.schema)}'
    async with database.transaction() as tx:
        name = await tx.fetchval("SELECT quote_ident(current_database())")
        settings = await tx.fetchval(
            "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
            "WHERE d.datname = current_database() AND s.setrole = 0"
        )
        if f"search_path={wanted}" not in (settings or []):
            await tx.execute(f"ALTER DATABASE {name} SET search_path = {wanted}")
