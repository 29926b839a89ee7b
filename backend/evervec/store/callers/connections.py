"""The driver's connection inside what a caller has: a connection of asyncpg, or one of SQLAlchemy, or a session."""

from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from evervec.errors import Refused

BEGUN = "SELECT 1"
"""A statement after which SQLAlchemy has begun the transaction; it waits for the first one."""


async def open_connection(given: object) -> Any:
    """Return the connection of asyncpg, on which a transaction is open.

    Raises `Refused` for another driver or a synchronous session, and where no transaction is open.
    """
    found: Any = given
    if isinstance(given, AsyncSession):
        found = await given.connection()
    if isinstance(found, AsyncConnection):
        if found.dialect.driver != "asyncpg":
            raise _refused(f"uses the driver {found.dialect.driver}")
        await found.exec_driver_sql(BEGUN)
        found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, asyncpg.Connection | PoolConnectionProxy):
        raise _refused(f"is a {type(given).__module__}.{type(given).__qualname__}")
    if not found.is_in_transaction():
        raise Refused(
            reason="No transaction is open on this connection, so every statement would be committed by itself. Begin one "
            "first: `async with connection.transaction()`; with SQLAlchemy, leave AUTOCOMMIT away."
        )
    return found


def _refused(what: str) -> Refused:
    return Refused(
        reason=f"The connection {what}, and Evervec shares those of asyncpg. Give a connection of asyncpg, or an AsyncSession "
        "or AsyncConnection of an engine for postgresql+asyncpg://, or leave it out for a transaction of its own."
    )
