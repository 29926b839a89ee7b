"""What an installation consists of in a database, what of others hangs on it, and its removal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from evervec.errors import ConflictError, Refused
from evervec.store.database import rights
from evervec.store.database.connections import EXTENSION_SCHEMA, quoted
from evervec.store.database.rights import VERSION_TABLE
from evervec.store.database.session import Database, ReadTx
from evervec.store.schema import ledger, moving, views
from evervec.store.schema.ledger import Ledger

REMOVAL_LOCK_SECONDS = 10
"""Longest wait for the tables; who holds them is named then."""

INSTALLED = """
SELECT pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS ours
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""
# $1 our schema, $2 our tables, $3 whether nobody else is in the schema, $4 where old versions were, $5 the old names,
# $6 our views, $7 the function that is named in the body of ours and in nobody else's, $8 our publications.
# An object of an extension belongs to the extension, wherever it is.
OBJECTS = """
WITH place AS (SELECT oid FROM pg_namespace WHERE nspname = $1), item AS (
    SELECT p.oid, p.tableoid AS class, 'publication' AS kind, quote_ident(p.pubname) AS name, 0 AS turn
    FROM pg_publication p WHERE p.pubname = ANY($8)
    UNION ALL
    SELECT c.oid, c.tableoid, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END, c.oid::regclass::text,
           CASE c.relkind WHEN 'v' THEN 3 ELSE 5 END
    FROM pg_class c JOIN place ON c.relnamespace = place.oid
    WHERE (c.relkind IN ('r', 'p') AND c.relname = ANY($2)) OR (c.relkind = 'v' AND ($3 OR c.relname = ANY($6)))
    UNION ALL
    SELECT p.oid, p.tableoid, 'function', p.oid::regprocedure::text,
           CASE WHEN p.prorettype = 'trigger'::regtype THEN 6 ELSE 4 END
    FROM pg_proc p JOIN place ON p.pronamespace = place.oid
    WHERE $3 OR p.proname LIKE 'evervec%' OR (p.proname = 'search' AND p.prosrc LIKE '%' || $7 || '()%')
    UNION ALL
    SELECT t.oid, t.tableoid, 'trigger', quote_ident(t.tgname) || ' ON ' || t.tgrelid::regclass, 1
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN place ON p.pronamespace = place.oid
    JOIN pg_class c ON c.oid = t.tgrelid AND NOT (c.relnamespace = place.oid AND c.relname = ANY($2))
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND ($3 OR p.proname LIKE 'evervec%')
    UNION ALL
    SELECT v.oid, v.tableoid, 'view', v.oid::regclass::text, 2
    FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace AND n.nspname = $4 AND n.nspname <> $1
    WHERE v.relkind = 'v' AND v.relname = ANY($5) AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = r.tableoid AND d.objid = r.oid
        JOIN pg_class c ON c.oid = d.refobjid JOIN place ON c.relnamespace = place.oid
        WHERE r.ev_class = v.oid AND c.relname = v.relname)
)
SELECT oid, class, kind, name, turn FROM item i
WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = i.class AND e.objid = i.oid AND e.deptype = 'e')
ORDER BY turn, name
"""
# what goes with our objects by itself is theirs: indexes, sequences, types, rules of views, constraints
CLOSURE = """
WITH RECURSIVE own (class, oid) AS (
    SELECT * FROM unnest($1::oid[], $2::oid[])
    UNION
    SELECT d.classid, d.objid FROM pg_depend d JOIN own o ON o.class = d.refclassid AND o.oid = d.refobjid
    WHERE d.deptype IN ('a', 'i')
)
"""
NAMED = """CASE WHEN d.classid = 'pg_rewrite'::regclass
    THEN (SELECT 'view ' || r.ev_class::regclass FROM pg_rewrite r WHERE r.oid = d.objid)
    ELSE pg_describe_object(d.classid, d.objid, 0) END"""
DEPENDENT = f"""
{CLOSURE}
SELECT DISTINCT {NAMED} AS name FROM pg_depend d JOIN own o ON o.class = d.refclassid AND o.oid = d.refobjid
WHERE d.deptype = 'n' AND NOT EXISTS (SELECT FROM own WHERE own.class = d.classid AND own.oid = d.objid)
ORDER BY 1
"""
OTHERS_IN_SCHEMA = f"""
{CLOSURE}
SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) AS name FROM pg_depend d JOIN pg_namespace n ON n.oid = d.refobjid
WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = $3 AND d.deptype = 'n'
  AND d.classid <> 'pg_extension'::regclass
  AND NOT EXISTS (SELECT FROM own WHERE own.class = d.classid AND own.oid = d.objid)
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
ORDER BY 1
"""
EXTENSION_USERS = f"""
{CLOSURE}, member AS (
    SELECT m.classid AS class, m.objid AS oid FROM pg_depend m JOIN pg_extension e ON e.oid = m.refobjid
    WHERE m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e' AND e.extname = 'vector'
)
SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) AS name
FROM pg_depend d JOIN member ON member.class = d.refclassid AND member.oid = d.refobjid
WHERE d.deptype IN ('n', 'a') AND NOT EXISTS (SELECT FROM own WHERE own.class = d.classid AND own.oid = d.objid)
  AND NOT EXISTS (SELECT FROM member m WHERE m.class = d.classid AND m.oid = d.objid)
  AND NOT EXISTS (SELECT FROM pg_depend i JOIN member m ON m.class = i.refclassid AND m.oid = i.refobjid
                  WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i')
ORDER BY 1
"""
SLOTS = (
    "SELECT slot_name FROM pg_replication_slots WHERE slot_name = ANY($1) AND database = current_database() ORDER BY 1"
)
SETTING = """
SELECT quote_ident(d.datname) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
WHERE d.datname = current_database() AND s.setrole = 0 AND $1 = ANY(s.setconfig)
"""
SESSIONS = """
SELECT format('process %s (%s, role %s, since %s)', pid, application_name, usename, date_trunc('second', backend_start)) AS name
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'evervec%' ORDER BY backend_start
"""
HOLDERS = """
SELECT DISTINCT format('process %s (%s, role %s, in a transaction since %s)', a.pid, a.application_name, a.usename,
                       date_trunc('second', a.xact_start)) AS name
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY($1) AND a.pid <> pg_backend_pid() ORDER BY 1
"""


@dataclass
class Removal:
    """What goes, by which statements, what would be broken by it, and what stays of what Evervec uses."""

    objects: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    dependent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    relations: list[int] = field(default_factory=list)


async def plan(tx: ReadTx, schema: str, published: Sequence[str] = ()) -> Removal:
    """Return what is to be removed; `published` are the names of slots and publications of attached tables.

    Raises `Refused` if nothing of Evervec is there, or another role owns it.
    """
    from evervec.store.schema.models import metadata

    await _require_owner(tx, schema)
    await tx.execute("SET LOCAL search_path = pg_catalog, pg_temp")  # so that every name has its schema
    made = await ledger.read(tx, schema)
    tables = [*(table.name for table in metadata.tables.values()), VERSION_TABLE]
    old = [*moving.OLD_TABLES, moving.OLD_VIEW]
    shown = [*rights.READ_VIEWS, *await _views(tx, schema), *await _views_of_spaces(tx, schema)]
    items = await tx.fetch(
        OBJECTS, schema, tables, made.alone, moving.OLD_SCHEMA, old, shown, views.SHOW, list(published)
    )
    own = ([item["class"] for item in items], [item["oid"] for item in items])
    found = Removal(relations=[item["oid"] for item in items if item["kind"] in ("table", "view")])
    found.dependent = _names(await tx.fetch(DEPENDENT, *own))
    for turn in sorted({item["turn"] for item in items}):
        _drop(found, [item for item in items if item["turn"] == turn])
    await _extension(tx, found, made, own)
    await _schema(tx, found, made, schema, own)
    path = f"search_path=public, {quoted(schema)}"
    if (database := await tx.fetchval(SETTING, path)) is not None:
        found.objects.append(f"setting search_path of database {database}")
        found.statements.append(f"ALTER DATABASE {database} RESET search_path")
    for row in await tx.fetch(SLOTS, list(published)):  # last: no rollback brings a slot back
        found.objects.append(f"replication slot {row['slot_name']}")
        found.statements.append(f"SELECT pg_catalog.pg_drop_replication_slot('{row['slot_name']}')")
    return found


async def _views(tx: ReadTx, schema: str) -> list[str]:
    """Return the views of attached tables; an older version had none."""
    place = f"{quoted(schema)}.sources"
    known = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'view')"
    if not await tx.fetchval(known, place):
        return []
    return [row["view"] for row in await tx.fetch(f"SELECT view FROM {place} WHERE view IS NOT NULL")]


async def _views_of_spaces(tx: ReadTx, schema: str) -> list[str]:
    """Return the views that those of attached tables select from, one a space."""
    rows = await tx.fetch(
        "SELECT c.relname AS view FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = $1 AND c.relkind = 'v' AND c.relname ~ $2",
        schema,
        f"^{rights.CHUNKS_VIEW}_[0-9]+$",
    )
    return [row["view"] for row in rows]


async def _require_owner(tx: ReadTx, schema: str) -> None:
    row = await tx.fetchrow(INSTALLED, schema, VERSION_TABLE)
    if row is None and schema != moving.OLD_SCHEMA and await moving.is_old(tx):
        raise Refused(
            reason="An older version of Evervec has its tables in public. Run `evervec migrate`, then `evervec uninstall`."
        )
    if row is None:
        raise Refused(
            reason=f"There is nothing of Evervec in schema {schema} of this database. Is EVERVEC_DATABASE_SCHEMA another?"
        )
    if not row["ours"]:
        raise Refused(
            reason=f"The tables of schema {schema} belong to role {row['owner']}: run `evervec uninstall` as that role."
        )


def _drop(found: Removal, items: list[Any]) -> None:
    kind = items[0]["kind"]
    found.objects += [f"{kind} {item['name']}" for item in items]
    if kind == "trigger":  # one statement a trigger, as it names its table
        found.statements += [f"DROP TRIGGER {item['name']}" for item in items]
    else:  # all at once, as they may depend on each other
        found.statements.append(f"DROP {kind.upper()} {', '.join(item['name'] for item in items)}")


async def _extension(tx: ReadTx, found: Removal, made: Ledger, own: tuple[list[int], list[int]]) -> None:
    if await tx.fetchval(EXTENSION_SCHEMA) is None:
        return
    users = _names(await tx.fetch(EXTENSION_USERS, *own))
    if not made.extension:
        found.left.append("extension vector, which Evervec did not make")
    elif users:
        found.left.append(f"extension vector, which is used by {', '.join(users)}")
    else:
        found.objects.append("extension vector")
        found.statements.append("DROP EXTENSION vector")


async def _schema(tx: ReadTx, found: Removal, made: Ledger, schema: str, own: tuple[list[int], list[int]]) -> None:
    if not made.schema:
        found.left.append(f"schema {schema}, which Evervec did not make")
        found.statements += [f"REVOKE USAGE ON SCHEMA {quoted(schema)} FROM {role}" for role in made.usage]
        found.objects += [f"right of {role} to use schema {schema}" for role in made.usage]
    elif await tx.fetchval(EXTENSION_SCHEMA) == schema and "extension vector" not in found.objects:
        found.left.append(f"schema {schema}, because the extension is in it")
    else:
        found.dependent += _names(await tx.fetch(OTHERS_IN_SCHEMA, *own, schema))
        found.objects.append(f"schema {schema}")
        found.statements.append(f"DROP SCHEMA {quoted(schema)}")


async def sessions(tx: ReadTx) -> list[str]:
    """Return the other sessions of Evervec in this database: workers, an API, commands."""
    return _names(await tx.fetch(SESSIONS))


async def remove(database: Database, removal: Removal) -> None:
    """Remove all of it in one transaction. Raises `Refused` that names who holds the tables."""
    try:
        async with database.direct_transaction("`evervec uninstall`") as tx:
            await tx.execute(f"SET LOCAL lock_timeout = '{REMOVAL_LOCK_SECONDS}s'")
            for statement in removal.statements:
                await tx.execute(statement)
    except ConflictError as error:
        async with database.read() as reading:
            holders = _names(await reading.fetch(HOLDERS, removal.relations))
        who = ", ".join(holders) or "another transaction"
        raise Refused(
            reason=f"Nothing was removed: {who} holds the tables. Let it end, then run this again."
        ) from error
    except asyncpg.ObjectInUseError as error:
        raise Refused(reason=f"Nothing was removed: {error}. Stop the workers, then run this again.") from error


def _names(rows: list[Any]) -> list[str]:
    return [row["name"] for row in rows]
