"""Evervec's part of a transaction of the caller: a savepoint with our search path; everything else stays as the caller has it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from evervec.errors import Refused
from evervec.store.attached.shape import USUAL_PATH
from evervec.store.batch import batch_jobs
from evervec.store.database import rights
from evervec.store.database.session import DRIVER_ERRORS, Database, Lender, ReadTx, Tx

PLACE = (
    "SELECT current_database() || ' at ' || coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a socket')"
)

OPEN, COMMITTED = "in progress", "committed"
"""What `pg_xact_status` says of a transaction."""


async def by_usual_names(tx: Tx) -> None:
    """Let names without a schema mean in a transaction of ours what they mean to everybody else in this database."""
    await tx.execute(USUAL_PATH)


async def require_same_database(database: Database, connection: Any) -> None:
    """Raise `Refused`, which names both, if a connection leads to another database than ours."""
    async with database.read() as tx:
        ours, place = await batch_jobs.database_tag(tx), await tx.fetchval(PLACE)
    theirs = ReadTx(connection)
    if await batch_jobs.database_tag(theirs) != ours:
        raise Refused(
            reason=f"This connection leads to the database {await theirs.fetchval(PLACE)}, and Evervec is in {place}. One "
            "transaction can not be in both: give a connection to that one, or `ingest` after your commit."
        )


async def require_rights(database: Database, connection: Any) -> None:
    """Raise `MissingRightsError` with the statements that grant the role of a connection what it lacks."""
    await rights.check(ReadTx(connection), database.schema)


def lender(connection: Any) -> Lender:
    """Return what lends a connection to `Database.borrowing`, to one at a time."""
    turn = asyncio.Lock()

    @asynccontextmanager
    async def lent(path: str) -> AsyncIterator[Any]:
        async with turn, savepoint(connection, path):
            yield connection

    return lent


@asynccontextmanager
async def savepoint(connection: Any, path: str) -> AsyncIterator[None]:
    """Put a search path around some statements inside an open transaction; what fails of them leaves the rest as it was."""
    before = await connection.fetchval("SELECT pg_catalog.current_setting('search_path')")
    await connection.execute(f"SAVEPOINT evervec; SET LOCAL search_path = {path}")
    try:
        yield
        # whoever set it for this transaction, or for the session, finds it again at its end
        await connection.fetchval("SELECT pg_catalog.set_config('search_path', $1, true)", before)
    except BaseException:
        if not connection.is_closed():
            # where the connection is lost, the error before says so
            with suppress(*DRIVER_ERRORS):
                await connection.execute("ROLLBACK TO SAVEPOINT evervec; RELEASE SAVEPOINT evervec")
        raise
    await connection.execute("RELEASE SAVEPOINT evervec")


async def transaction_id(tx: Tx) -> int:
    """Return the id of this transaction."""
    found: str = await tx.fetchval("SELECT pg_current_xact_id()::text")
    return int(found)


async def outcome(tx: ReadTx, xid: int) -> str | None:
    """Return `OPEN`, `COMMITTED`, or something else of a transaction that ended otherwise, or long ago."""
    found: str | None = await tx.fetchval("SELECT pg_xact_status($1::text::xid8)", str(xid))
    return found
