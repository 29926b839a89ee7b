"""A publication and a slot for one attached table: made, checked, read and dropped."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final
from uuid import UUID

import asyncpg

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import ConflictError, SourceError
from evervec.store.attached.keys import json_of_texts, loads
from evervec.store.attached.rows import relation
from evervec.store.attached.triggers import FUNCTION_PREFIX
from evervec.store.captures.pgoutput import Everything, Messages
from evervec.store.database.connections import quoted
from evervec.store.database.session import Database, ReadTx, Tx

SLOT_SECONDS: Final = 30
"""Longest wait for a new slot: it waits until all transactions have ended that were open when it was asked for."""

BUSY_PAUSE_SECONDS: Final = 0.1

MOST_KEYS: Final = 50_000
"""Keys that one reading of a slot holds; a transaction that wrote more has all rows compared."""
FETCHED: Final = 1000

READY = """
SELECT current_setting('wal_level') AS wal_level, quote_ident(current_user) AS role,
       (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) OR EXISTS (
           SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'USAGE')) AS replicates,
       has_database_privilege(current_database(), 'CREATE') AS creates, quote_ident(current_database()) AS database,
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS free
"""
# a writer is refused his UPDATE and DELETE of a published table that does not say how its rows are identified
UNIDENTIFIED = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM (SELECT $1::oid AS oid UNION SELECT relid FROM pg_partition_tree($1::oid::regclass)) t
JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relreplident <> 'f' AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
      AND $2::name[] <@ ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey::int2[])))
ORDER BY 1 LIMIT 1
"""
GENERATED = """
SELECT attname FROM pg_attribute WHERE attrelid = $1 AND attname = ANY($2::name[]) AND attgenerated <> '' LIMIT 1
"""
SLOT = """
SELECT s.active, s.wal_status, s.confirmed_flush_lsn < pg_current_wal_flush_lsn() AS behind,
       (pg_current_wal_lsn() - s.restart_lsn)::bigint AS kept
FROM pg_replication_slots s WHERE s.slot_name = $1 AND s.database = current_database()
"""
HAS_PUBLICATION = "SELECT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = $1)"
# a call decodes from where the slot was confirmed to the position, and ends after a transaction
PEEK = """
DECLARE {cursor} NO SCROLL CURSOR FOR
SELECT data FROM pg_logical_slot_peek_binary_changes($1, $2::text::pg_lsn, $3, 'proto_version', '1', 'publication_names', $4)
"""


@dataclass(frozen=True)
class SlotState:
    """A slot as it is: whether it has anything new, the bytes of the log that are kept for it, and what is wrong with it."""

    behind: bool = False
    kept_bytes: int = 0
    what: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Peeked:
    """Keys of rows that were written, and the position up to which this is all; `everything` asks to compare all rows."""

    keys: Sequence[Key]
    position: str
    everything: bool


def name_of(source_id: UUID) -> str:
    """Return the name of the slot and the publication of an attachment."""
    return f"{FUNCTION_PREFIX}{source_id.hex}"


async def check(tx: ReadTx, table: AttachedTable) -> None:
    """Raise `SourceError` that says what is missing before a table can be followed by a slot."""
    where, ready = f"Table {table.label}", await tx.fetchrow(READY)
    assert ready is not None  # always one row
    names = [column.name for column in table.key]
    reason = None
    if ready["wal_level"] != "logical":
        reason = f"--capture logical needs wal_level = logical, and it is {ready['wal_level']}. Set it and restart the server."
    elif not ready["replicates"]:
        reason = f"{ready['role']} may not read a slot. Run: ALTER ROLE {ready['role']} REPLICATION;"
    elif not ready["creates"]:
        reason = f"{ready['role']} may not make a publication. Run: GRANT CREATE ON DATABASE {ready['database']} TO {ready['role']};"
    elif ready["free"] < 1:
        reason = "all replication slots are in use. Raise max_replication_slots, or drop one that nobody reads."
    elif (generated := await tx.fetchval(GENERATED, table.oid, names)) is not None:
        reason = f"its key {generated!r} is a generated column, which is not published."
    elif (unidentified := await tx.fetchval(UNIDENTIFIED, table.oid, names)) is not None:
        reason = (
            f"{unidentified} has no replica identity with its key ({', '.join(names)}), and its writers would be refused. "
            f"Run: ALTER TABLE {unidentified} REPLICA IDENTITY FULL; or name an index over the key: USING INDEX."
        )
    if reason is not None:
        raise SourceError(where=where, reason=reason)


def publication(source_id: UUID, table: AttachedTable) -> str:
    """Return the statement that publishes a table."""
    return (
        f"CREATE PUBLICATION {quoted(name_of(source_id))} FOR TABLE {relation(table)} "
        "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
    )


def creation(source_id: UUID) -> str:
    """Return the statement that makes a slot, after the publication."""
    return f"SELECT pg_create_logical_replication_slot('{name_of(source_id)}', 'pgoutput')"


async def make(database: Database, source_id: UUID, table: AttachedTable) -> bool:
    """Publish a table and make its slot, where they are missing; return whether they were.

    Raises `SourceError`, and what the database raises.
    """
    name = name_of(source_id)
    async with database.transaction() as tx:
        there = await tx.fetchrow(SLOT, name)
        published = await tx.fetchval(HAS_PUBLICATION, name)
        if there is not None and published:
            return False
        await check(tx, table)
        if not published:
            await tx.execute(f"DROP PUBLICATION IF EXISTS {quoted(name)}")
            await tx.execute(publication(source_id, table))
        if there is not None:  # it would look for the publication where there was none
            await tx.fetchval("SELECT pg_drop_replication_slot($1)", name)
    try:
        async with database.transaction() as tx:
            await tx.execute(f"SET LOCAL statement_timeout = '{SLOT_SECONDS}s'")
            await tx.fetch(creation(source_id))
    except BaseException as error:
        await remove(database, source_id)
        if isinstance(error.__cause__, asyncpg.QueryCanceledError):
            raise SourceError(
                where=f"Table {table.label}",
                reason=f"its slot waits for transactions that are open for more than {SLOT_SECONDS} s. Nothing was changed; "
                "end them, and run it again.",
            ) from error
        raise
    return True


async def remove(database: Database, source_id: UUID) -> None:
    """Drop slot and publication; a slot that is just being read is waited for. May be called twice.

    Raises `ConflictError` if it is read for too long.
    """
    name = name_of(source_id)
    until = monotonic() + SLOT_SECONDS
    while not await _dropped(database, name):
        if monotonic() > until:
            raise ConflictError(reason=f"somebody reads slot {name}")
        await asyncio.sleep(BUSY_PAUSE_SECONDS)
    async with database.transaction() as tx:
        await tx.execute(f"DROP PUBLICATION IF EXISTS {quoted(name)}")


async def _dropped(database: Database, name: str) -> bool:
    try:
        async with database.transaction() as tx:
            await tx.fetch(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", name
            )
    except asyncpg.ObjectInUseError:
        return False
    return True


async def state(tx: ReadTx, source_id: UUID) -> SlotState:
    """Return the state of an attachment's slot."""
    name = name_of(source_id)
    slot = await tx.fetchrow(SLOT, name)
    if slot is None:
        return SlotState(what=f"slot {name}", problem="is missing")
    if slot["wal_status"] in ("lost", "unreserved"):
        return SlotState(what=f"slot {name}", problem="has lost what the server did not keep for it")
    if not await tx.fetchval(HAS_PUBLICATION, name):
        return SlotState(what=f"publication {name}", problem="is missing")
    return SlotState(bool(slot["behind"]), slot["kept"] or 0)


async def peek(tx: ReadTx, source_id: UUID, table: AttachedTable, limit: int) -> Peeked | None:
    """Return what was written, about `limit` rows, up to the end of a transaction; None while somebody else reads.

    It stays in the slot until `advance`.
    """
    name = name_of(source_id)
    slot = await tx.fetchrow(SLOT, name)
    if slot is None or slot["active"]:
        return None
    now: str = await tx.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    messages, found, everything, count = (
        Messages([column.name for column in table.key]),
        dict[tuple[str, ...], None](),
        False,
        0,
    )
    try:
        await tx.execute(PEEK.format(cursor="evervec_slot"), name, now, limit, name)
    except (asyncpg.ObjectInUseError, asyncpg.UndefinedObjectError) as error:
        raise ConflictError(reason=str(error)) from error
    while batch := await tx.fetch(f"FETCH {FETCHED} FROM evervec_slot"):
        count += len(batch)
        for row in batch:
            for key in messages.read(row["data"]):
                if isinstance(key, Everything):
                    everything = True
                else:
                    found[key] = None
        if len(found) > MOST_KEYS:
            everything, found = True, {}
    await tx.execute("CLOSE evervec_slot")
    # with fewer messages than were allowed there is nothing more before `now`
    position = now if count < limit else await tx.fetchval("SELECT ('0/0'::pg_lsn + $1::numeric)::text", messages.end)
    return Peeked(await _canonical(tx, table, list(found)), position, everything)


async def _canonical(tx: ReadTx, table: AttachedTable, found: Sequence[tuple[str, ...]]) -> list[Key]:
    """Return keys as JSON holds them, from the texts that this session's settings gave them."""
    if not found:
        return []
    columns = [[key[place] for key in found] for place in range(len(table.key))]
    return [loads(row["key"]) for row in await tx.fetch(json_of_texts(table), *columns)]


async def advance(tx: Tx, source_id: UUID, position: str) -> None:
    """Confirm what was taken in: the server forgets it. A slot that is gone is made again by whoever checks it."""
    await tx.fetch(
        "SELECT pg_replication_slot_advance(slot_name, greatest($2::text::pg_lsn, confirmed_flush_lsn)) FROM pg_replication_slots "
        "WHERE slot_name = $1 AND NOT active",
        name_of(source_id),
        position,
    )


def slot_leftovers(source_id: UUID) -> list[str]:
    """Return the statements that remove what an attachment left in a database that could not be reached."""
    name = name_of(source_id)
    return [f"SELECT pg_drop_replication_slot('{name}');", f"DROP PUBLICATION IF EXISTS {quoted(name)};"]
