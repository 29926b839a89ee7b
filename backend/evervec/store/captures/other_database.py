"""The database of attached tables that is not ours: opened with deadlines, and its errors name it instead of a setting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Self

import asyncpg

from evervec.errors import (
    DatabaseAddressError,
    DatabaseDownError,
    DatabaseRefusedError,
    EvervecError,
    OtherDatabaseDownError,
    OtherDatabaseRefusedError,
    SchemaMismatchError,
    ServerTooOldError,
    SourceError,
)
from evervec.store.database.session import Database

LEAST_OTHER_POSTGRES: Final = 13
OTHER_POOL: Final = 4

TRANSACTION_SECONDS: Final = 60.0
"""Longest transaction there: a server that went away in silence is given up after that."""

AWAY = (DatabaseDownError, DatabaseRefusedError, SchemaMismatchError)


class OtherDatabase(Database):
    """A database of somebody else. `schema` is the one of our change records there, if there are any.

    Whatever it does raises `OtherDatabaseDownError` or `OtherDatabaseRefusedError` where the database does not answer or
    refuses, within a minute.
    """

    def __init__(self, url: str, schema: str, *, connect_seconds: float = 10) -> None:
        super().__init__(url, schema=schema, pool_size=OTHER_POOL, connect_seconds=connect_seconds)

    async def open(self, *, check: bool = True, writes: bool = True) -> Self:
        """Connect, and check the server's version; it needs no pgvector.

        Raises `SourceError` for an address that can not be used, `ServerTooOldError`, and what every use of it raises.
        """
        try:
            await super().open(check=False)
        except DatabaseAddressError as error:
            raise SourceError(where="--url", reason=f"it can not be used: {error.values['reason']}.") from error
        except AWAY as error:
            raise self._named(error) from error
        if check:
            try:
                await self._check()
            except BaseException:
                await self.aclose()
                raise
        return self

    async def _check(self) -> None:
        async with self.read() as tx:
            found = tx.server_version
        if found < LEAST_OTHER_POSTGRES:
            raise ServerTooOldError(
                server=f"PostgreSQL at {self.where}",
                found=found,
                least=LEAST_OTHER_POSTGRES,
                why="older ones have no transaction ids of 64 bits",
            )

    @asynccontextmanager
    async def _lent(self, begin: str) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS), super()._lent(begin) as connection:
                yield connection
        except TimeoutError as error:
            raise OtherDatabaseDownError(
                where=self.where, reason=f"no answer within {TRANSACTION_SECONDS:g} s"
            ) from error

    @asynccontextmanager
    async def _translated(self, opened: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        connected = False
        try:
            async with super()._translated(opened) as connection:
                connected = True
                yield connection
        except AWAY as error:
            raise self._named(error) from error
        except asyncpg.PostgresError as error:
            if connected:  # a mistake in a statement
                raise
            raise OtherDatabaseRefusedError(where=self.where, reason=str(error).partition("\n")[0]) from error

    def _named(self, error: EvervecError) -> EvervecError:
        """Return an error that names this database in place of the settings of ours."""
        if isinstance(error, DatabaseDownError):
            return OtherDatabaseDownError(where=self.where, reason=error.values["reason"])
        reason = error.values.get("reason", f"what Evervec made in its schema {self.schema} is gone")
        return OtherDatabaseRefusedError(where=self.where, reason=reason)
