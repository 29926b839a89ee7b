"""The outbox and the triggers in a database that is not ours: installed, or found installed, mended and removed."""

from functools import partial
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.errors import MissingOutboxRightsError
from evervec.store.attached import capture, changes, problems
from evervec.store.captures import outbox
from evervec.store.captures.other_database import OtherDatabase
from evervec.store.database.session import Tx

REMOVED_RECORDS = 10_000
ADMINISTRATOR_LOCK = "5s"


async def planned(there: OtherDatabase, source_id: UUID, table: AttachedTable) -> list[str]:
    """Return what an administrator would run there, in one transaction, for the role that we connect with."""
    schema = there.schema
    async with there.read() as tx:
        role: str = await tx.fetchval("SELECT quote_ident(current_user)")
        made = [
            *await outbox.statements(tx, schema),
            *await capture.statements(tx, schema, source_id, table, rings=await outbox.rings(tx)),
            *outbox.grants_for(schema, role),
        ]
    return ["BEGIN", f"SET LOCAL lock_timeout = '{ADMINISTRATOR_LOCK}'", *made, "COMMIT"]


async def install(there: OtherDatabase, source_id: UUID, table: AttachedTable, *, seconds: float) -> bool:
    """Make what is missing there, in one transaction; return whether anything was.

    What an administrator has installed is verified instead. Raises `MissingOutboxRightsError`, `TableBusyError`, and what
    the database raises where the role may not make it.
    """
    async with there.read() as tx:
        rings = await outbox.rings(tx)
        missing = await outbox.statements(tx, there.schema)
        found = await problems.state(tx, there.schema, source_id, table, rings=rings)
    is_new = bool(missing or found.problems)
    if is_new:
        await capture.install(there, source_id, table, partial(_make, there.schema), rings=rings, seconds=seconds)
    async with there.read() as tx:
        lacking = await outbox.grants(tx, there.schema)
    if lacking:
        raise MissingOutboxRightsError(where=there.where, statements="; ".join(lacking))
    return is_new


async def _make(schema: str, tx: Tx) -> None:
    await outbox.make(tx, schema)


async def remove(there: OtherDatabase, source_id: UUID, table: AttachedTable, *, seconds: float) -> None:
    """Remove triggers, function and records there, and the outbox with the last of them. May be called twice."""

    async def last(tx: Tx) -> bool:
        return await outbox.remove_last(tx, there.schema, source_id)

    if not await capture.remove(there, source_id, table, last, seconds=seconds):
        while await there.with_retries(partial(changes.clear, source_id=source_id, limit=REMOVED_RECORDS)):
            continue


async def repair(there: OtherDatabase, source_id: UUID, table: AttachedTable, *, seconds: float) -> None:
    """Install the triggers again, with the outbox if that is missing, and have all rows compared."""
    async with there.read() as tx:
        rings = await outbox.rings(tx)

    async def make(tx: Tx) -> None:
        await outbox.make(tx, there.schema)
        await changes.ask_comparison(tx, source_id)

    await capture.install(there, source_id, table, make, rings=rings, seconds=seconds)
