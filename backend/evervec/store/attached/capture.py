"""Puts triggers on attached tables, finds these tables again, and takes the triggers away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.errors import ConflictError, SourceError, TableBusyError
from evervec.store.attached import triggers
from evervec.store.attached.changes import ask_comparison
from evervec.store.attached.triggers import function_body, function_name
from evervec.store.database.connections import quoted
from evervec.store.database.session import Database, ReadTx, Tx
from evervec.store.schema.triggers import SAFE

LOCK_MILLISECONDS = 500
"""Longest wait for the table: whoever writes to it queues behind us meanwhile."""
PAUSE_SECONDS = 0.5

T = TypeVar("T")

# by its triggers first: they are where they were put, whatever the table is called now, also after a restore
LOCATE = """
SELECT c.oid, n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = c.oid AND t.tgparentid = 0 AND p.proname = $1) AS watched) w
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (w.watched OR c.oid = $2 OR (n.nspname = $3 AND c.relname = $4))
ORDER BY w.watched AND c.oid = $2 DESC, w.watched AND (n.nspname, c.relname) = ($3::name, $4::name) DESC, w.watched DESC, c.oid = $2 DESC
LIMIT 1
"""
# the triggers for each row of a partitioned table are on its partitions by themselves, also on later ones
MEMBERS = """
WITH RECURSIVE tree AS (
    SELECT $1::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON t.oid = i.inhparent
)
SELECT c.oid, n.nspname AS schema, c.relname AS name,
       c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid) AS related,
       EXISTS (SELECT FROM pg_trigger g JOIN tree t ON t.oid = g.tgrelid
               WHERE g.tgtype & 19 = 19 AND NOT g.tgisinternal) AS rewritten
FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1 OR NOT c.relispartition ORDER BY c.oid <> $1, c.oid
"""
# by oid: a partition may be exchanged for one of the same name
PARTITIONS = """
WITH RECURSIVE parts AS (
    SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = $1
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN parts p ON p.oid = i.inhparent
)
SELECT md5(string_agg(oid::text, ' ' ORDER BY oid)) FROM parts
"""
PRESENT = """
SELECT t.tgrelid AS oid, n.nspname AS schema, c.relname AS table_name, t.tgname AS name, t.tgenabled::text AS enabled,
       t.tgtype::int AS type, t.tgattr::int2[] AS of, ARRAY(
           SELECT DISTINCT d.refobjsubid::int FROM pg_depend d
           WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.refobjid = t.tgrelid AND d.refobjsubid > 0
       ) AS watched
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.proname = $1 AND p.pronamespace = $2::regnamespace AND t.tgparentid = 0
"""
BLOCKERS = """
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type) AS program, a.usename AS role,
       a.state, round(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start)))::int AS seconds
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted AND l.pid <> pg_backend_pid()
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') ORDER BY seconds DESC
"""


async def parts(tx: ReadTx, table: AttachedTable) -> str | None:
    """Return a fingerprint of which partitions or children a table has, None without any.

    Those that come or go with their rows fire no trigger.
    """
    found: str | None = await tx.fetchval(PARTITIONS, table.oid)
    return found


async def locate(tx: ReadTx, source_id: UUID, table: AttachedTable) -> AttachedTable | None:
    """Return a table as it is called now; it is found by its triggers, its oid, or after a restore by its name.

    None if it is gone.
    """
    row = await tx.fetchrow(LOCATE, function_name(source_id), table.oid, table.schema, table.name)
    return None if row is None else replace(table, oid=row["oid"], schema=row["schema"], name=row["name"])


async def install(
    database: Database,
    source_id: UUID,
    table: AttachedTable,
    inside: Callable[[Tx], Awaitable[T]],
    *,
    rings: bool = False,
    seconds: float = 30,
) -> T:
    """Put the triggers on a table, or replace them, in one transaction with what `inside` does; return what it returns.

    The table is waited for in short turns, so that its writers never queue for long; `inside` may run several times.
    Raises `TableBusyError`, which names who holds the table, and `SourceError` if it is gone.
    """

    async def turn(tx: Tx) -> T:
        done = await inside(tx)
        found = await locate(tx, source_id, table)
        if found is None:
            raise SourceError(where=f"Table {table.label}", reason="it is gone. Remove it with `evervec detach`.")
        for statement in await statements(tx, database.schema, source_id, found, rings=rings):
            await tx.execute(statement)
        return done

    return await _in_turns(database, source_id, table, turn, seconds)


async def remove(
    database: Database,
    source_id: UUID,
    table: AttachedTable,
    inside: Callable[[Tx], Awaitable[T]],
    *,
    seconds: float = 30,
) -> T:
    """Take triggers and function away, wherever they are, in one transaction with what `inside` does.

    May be called twice. Raises `TableBusyError`.
    """

    async def turn(tx: Tx) -> T:
        for statement in await removal(tx, database.schema, source_id):
            await tx.execute(statement)
        return await inside(tx)

    return await _in_turns(database, source_id, table, turn, seconds)


async def repair(
    database: Database, source_id: UUID, table: AttachedTable, *, rings: bool = False, seconds: float = 5
) -> None:
    """Install the triggers again, and have all rows compared: some may have been written unnoticed."""

    async def compare(tx: Tx) -> None:
        await ask_comparison(tx, source_id)

    await install(database, source_id, table, compare, rings=rings, seconds=seconds)


async def statements(tx: ReadTx, schema: str, source_id: UUID, table: AttachedTable, *, rings: bool) -> list[str]:
    """Return what puts the triggers on a table, or replaces them; `rings` as in `triggers.function_body`."""
    function = f"{quoted(schema)}.{function_name(source_id)}()"
    body = function_body(schema, source_id, table, rings=rings)
    found = [
        f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger {SAFE} AS $evervec${body}$evervec$",
        f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
    ]
    misplaced = {(row["oid"], row["name"]): row for row in await present(tx, schema, source_id)}
    for member in await tx.fetch(MEMBERS, table.oid):
        place = _place(member["schema"], member["name"])
        for trigger in triggers.triggers(source_id, table, related=member["related"], rewritten=member["rewritten"]):
            # a trigger for each row can not become one for each statement
            if misplaced.pop((member["oid"], trigger.name), None) is not None:
                found.append(f"DROP TRIGGER {trigger.name} ON {place}")
            found += triggers.create(schema, source_id, place, trigger)
    found += map(_drop, misplaced.values())
    return found


async def removal(tx: ReadTx, schema: str, source_id: UUID) -> list[str]:
    """Return what takes triggers and function away, wherever they are."""
    found = list(map(_drop, await present(tx, schema, source_id)))
    return [*found, f"DROP FUNCTION IF EXISTS {quoted(schema)}.{function_name(source_id)}()"]


async def present(tx: ReadTx, schema: str, source_id: UUID) -> list[Any]:
    """Return the triggers of an attachment that there are, also where they do not belong."""
    # a schema that does not exist yet, or no longer, has none
    if await tx.fetchval("SELECT to_regnamespace($1)", quoted(schema)) is None:
        return []
    return await tx.fetch(PRESENT, function_name(source_id), quoted(schema))


def _drop(row: Any) -> str:
    return f"DROP TRIGGER {quoted(row['name'])} ON {_place(row['schema'], row['table_name'])}"


async def _in_turns(
    database: Database, source_id: UUID, table: AttachedTable, turn: Callable[[Tx], Awaitable[T]], seconds: float
) -> T:
    until = monotonic() + seconds
    while True:
        try:
            async with database.transaction() as tx:
                await tx.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
                return await turn(tx)
        except ConflictError as error:
            if monotonic() >= until:
                raise TableBusyError(table=table.label, blockers=await _blockers(database, source_id, table)) from error
        await asyncio.sleep(PAUSE_SECONDS)


async def _blockers(database: Database, source_id: UUID, table: AttachedTable) -> str:
    """Return who holds locks on a table that keep triggers away."""
    async with database.read() as tx:
        found = await locate(tx, source_id, table)
        rows = await tx.fetch(BLOCKERS, (found or table).oid)
    said = [
        f"{row['program']} (pid {row['pid']}, role {row['role']}, {row['state']}, for {row['seconds']} s)"
        for row in rows
    ]
    return ", ".join(said) or "somebody who has ended meanwhile"


def _place(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
