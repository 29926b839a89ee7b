"""Moves the tables of older versions out of `public`, and leaves views under their old names."""

from evervec.store.database.connections import quoted
from evervec.store.database.session import ReadTx

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

OLD_VIEW = "embedding_status"
MOVE_LOCK_SECONDS = 10

GRANTS = """
SELECT c.relname AS name, g.privilege_type AS privilege,
       CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS grantee
FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g
WHERE c.relnamespace = $1::regnamespace AND c.relname = ANY($2) AND g.grantee <> c.relowner
  AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
"""


# from the catalogue: a role may be without rights on `public`
LANDMARKS = """
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind = 'r' AND relname = ANY($2)) = cardinality($2)
   AND EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid AND proname = $3 AND pronargs = 0)
FROM pg_namespace n WHERE n.nspname = $1 AND has_schema_privilege(n.oid, 'USAGE')
"""
USERS = """
SELECT CASE WHEN u.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(u.grantee)) END AS grantee
FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) u WHERE n.nspname = $1 AND u.privilege_type = 'USAGE'
"""


async def is_old(tx: ReadTx) -> bool:
    """Return whether `public` holds the tables of an older version, and not those of another program."""
    if not await tx.fetchval(LANDMARKS, OLD_SCHEMA, ["alembic_version", "embed_work", "embeddings"], OLD_FUNCTIONS[-1]):
        return False
    revisions = [row[0] for row in await tx.fetch(f"SELECT version_num FROM {OLD_SCHEMA}.alembic_version")]
    return len(revisions) == 1 and revisions[0] in OLD_REVISIONS


async def revision(tx: ReadTx) -> str:
    """Return the revision of the tables in `public`."""
    return str(await tx.fetchval(f"SELECT version_num FROM {OLD_SCHEMA}.alembic_version"))


async def without_usage(tx: ReadTx, schema: str) -> list[str]:
    """Return the roles with rights on the tables that may not use our schema yet, as SQL names them."""
    granted = {row["grantee"] for row in await tx.fetch(GRANTS, OLD_SCHEMA, [*OLD_TABLES, OLD_VIEW])}
    return sorted(granted - {row["grantee"] for row in await tx.fetch(USERS, schema)})


async def statements(tx: ReadTx, schema: str) -> list[str]:
    """Return what moves tables, view and functions, and gives the views what rights others had on the tables."""
    ours, old = quoted(schema), quoted(OLD_SCHEMA)
    present = await tx.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass($2 || '.' || name) IS NOT NULL",
        OLD_TABLES,
        old,
    )
    tables = [row["name"] for row in present]
    views = [*(table for table in tables if table != "alembic_version"), OLD_VIEW]
    granted = await tx.fetch(GRANTS, OLD_SCHEMA, views)
    return [
        f"SET LOCAL lock_timeout = '{MOVE_LOCK_SECONDS}s'",
        "SET LOCAL search_path = pg_temp",
        f"ALTER VIEW IF EXISTS {old}.{OLD_VIEW} SET SCHEMA {ours}",
        *(f"ALTER FUNCTION {old}.{function}() SET SCHEMA {ours}" for function in OLD_FUNCTIONS),
        *(f"ALTER TABLE {old}.{table} SET SCHEMA {ours}" for table in tables),
        # their names are without a schema; they are replaced once the tables are those of this version
        *(
            f"ALTER FUNCTION {ours}.{function}() SECURITY DEFINER SET search_path = {ours}, {old}, pg_temp"
            for function in OLD_FUNCTIONS
        ),
        *(f"CREATE VIEW {old}.{view} AS SELECT * FROM {ours}.{view}" for view in views),
        *(f"GRANT USAGE ON SCHEMA {ours} TO {role}" for role in await without_usage(tx, schema)),
        *(f"GRANT {grant['privilege']} ON {old}.{grant['name']} TO {grant['grantee']}" for grant in granted),
    ]
