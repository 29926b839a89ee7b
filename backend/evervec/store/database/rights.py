"""What a role needs that runs Evervec without owning its tables, and which of that a role lacks."""

from collections.abc import Iterable
from typing import Any, Protocol

from evervec.errors import MissingRightsError
from evervec.store.database.connections import quoted

VERSION_TABLE = "alembic_version"
CHUNKS_VIEW = "attached_chunks"
READ_VIEWS = ("embedding_status", CHUNKS_VIEW)
"""Views that a role needs to run Evervec; those of attached tables are for their readers alone."""
CONTROL = ("pg_catalog.pg_control_system()", "pg_catalog.pg_control_checkpoint()")
"""Functions that identify the server: mirrors and batch jobs of another one are not taken for ours."""

# Nothing is asked of identity columns: their sequences need no right of their own. A trigger's function needs none either.
LACKING = """
WITH place AS (
    SELECT n.oid, n.nspname, quote_ident(n.nspname) AS name,
           (SELECT relowner FROM pg_class WHERE relnamespace = n.oid AND relname = 'embeddings') AS owner
    FROM pg_namespace n WHERE n.nspname = $1
), relation AS (
    SELECT c.oid, place.name || '.' || quote_ident(c.relname) AS name, c.relkind = 'v' OR c.relname = $3 AS is_read
    FROM pg_class c JOIN place ON c.relnamespace = place.oid AND c.relowner = place.owner
    WHERE c.relkind IN ('r', 'p') OR (c.relkind = 'v' AND c.relname = ANY($5))
), callable AS (
    SELECT p.oid, format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS name
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = ANY($4::regprocedure[]) OR ($2 AND p.prorettype <> 'trigger'::regtype AND p.proname LIKE 'evervec%'
          AND n.nspname = $1)
), lacking AS (
    SELECT 1 AS place, 'USAGE' AS privileges, 'SCHEMA ' AS kind, quote_ident(nspname) AS name FROM pg_namespace
    WHERE (nspname = $1 OR oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'vector'))
      AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT 2, string_agg(w.privilege, ', ' ORDER BY w.place), '', r.name
    FROM relation r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS w (privilege, place)
    WHERE (w.place = 1 OR ($2 AND NOT r.is_read)) AND NOT has_table_privilege(r.oid, w.privilege) GROUP BY r.name
    UNION ALL
    SELECT 3, 'EXECUTE', 'FUNCTION ', name FROM callable WHERE NOT has_function_privilege(oid, 'EXECUTE')
)
SELECT privileges, kind, string_agg(name, ', ' ORDER BY name) AS names FROM lacking
GROUP BY place, privileges, kind ORDER BY place, privileges
"""
OWNS = """
SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'embeddings'
"""
OWNER = """
SELECT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'embeddings'
"""


LEND_EXTENSION = """\
DO $$ DECLARE home text; BEGIN
    FOR home IN SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector' AND NOT pg_catalog.has_schema_privilege({role}, n.oid, 'USAGE') LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', home, {role});
    END LOOP;
END $$"""


class LooksUp(Protocol):
    """The part of a transaction that a look at rights needs."""

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """Return all rows of a query."""
        ...

    async def fetchval(self, sql: str, *values: object) -> Any:
        """Return the first column of the first row, or None."""
        ...


async def check(tx: LooksUp, schema: str, *, writes: bool = True) -> None:
    """Raise `MissingRightsError` with the statements that grant what this role lacks; without `writes` it only reads."""
    lacking = await tx.fetch(LACKING, schema, writes, VERSION_TABLE, list(CONTROL), list(READ_VIEWS))
    if lacking:
        role = await tx.fetchval("SELECT quote_ident(current_user)")
        statements = [f"GRANT {row['privileges']} ON {row['kind']}{row['names']} TO {role}" for row in lacking]
        raise MissingRightsError(role=role, schema=schema, statements="; ".join(statements) + ";")


async def usage(tx: LooksUp, schema: str) -> None:
    """Raise `MissingRightsError` if this role may not even look which version is in our schema."""
    installed = """
        SELECT has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
    """
    if await tx.fetchval(installed, schema, VERSION_TABLE) is False:
        await check(tx, schema)


async def owns(tx: LooksUp, schema: str) -> bool:
    """Return whether this role may change our tables: it owns them, or has the rights of their owner."""
    return bool(await tx.fetchval(OWNS, schema))


async def owner(tx: LooksUp, schema: str) -> str:
    """Return the role that owns our tables."""
    return str(await tx.fetchval(OWNER, schema))


def grants(
    schema: str, role: str, *, tables: Iterable[str], views: Iterable[str], functions: Iterable[str]
) -> list[str]:
    """Return the statements that let a role run Evervec."""
    name, grantee, text = quoted(schema), quoted(role), role.replace("'", "''")
    written, read, called = (
        ", ".join(f"{name}.{one}" for one in sorted(names)) for names in (tables, [*views, VERSION_TABLE], functions)
    )
    return [
        f"GRANT USAGE ON SCHEMA {name} TO {grantee}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {written} TO {grantee}",
        f"GRANT SELECT ON {read} TO {grantee}",
        f"GRANT EXECUTE ON FUNCTION {called} TO {grantee}",
        LEND_EXTENSION.format(role=f"'{text}'"),
    ]
