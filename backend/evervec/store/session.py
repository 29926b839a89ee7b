"""Opens PostgreSQL: the pool, the transactions, and the only commit. Every other file of the store receives a `Tx`."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg

from evervec.errors import DatabaseDownError, SchemaMismatchError
from evervec.store import checks

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
)


class ReadTx:
    """A read-only transaction on one snapshot."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query."""
        rows: list[Any] = await self._connection.fetch(sql, *values)
        return rows

    async def fetchrow(self, sql: str, *values: object) -> Any | None:
        """The first row, or None."""
        return await self._connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: object) -> str:
        """Run one statement; answers its command tag."""
        tag: str = await self._connection.execute(sql, *values)
        return tag


class Tx(ReadTx):
    """A writing transaction. It commits when the `async with` that opened it is left without an exception."""

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]) -> int:
        """Binary COPY into a table; answers the number of rows."""
        tag = await self._connection.copy_records_to_table(table, columns=list(columns), records=records)
        return int(tag.rsplit(" ", 1)[-1])


class Database:
    """One pool of connections to one database. Opened by the runtime, closed by it."""

    def __init__(self, url: str, *, pool_size: int = 8, connect_seconds: float = 10) -> None:
        self.url = url
        self._pool_size = pool_size
        self._connect_seconds = connect_seconds
        self._pool: Any = None

    @property
    def where(self) -> str:
        """The address without credentials, for messages."""
        return where(self.url)

    async def open(self, *, check: bool = True) -> Self:
        """Connect. Raises `DatabaseDownError`, `ServerTooOldError` or `SchemaMismatchError`."""
        try:
            self._pool = await asyncio.wait_for(
                asyncpg.create_pool(
                    self.url,
                    min_size=1,
                    max_size=self._pool_size,
                    init=_prepare,
                    timeout=self._connect_seconds,
                    server_settings={"application_name": "evervec"},
                ),
                self._connect_seconds,
            )
        except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
            raise self._down(error) from error
        if check:
            try:
                async with self.read() as tx:
                    await checks.server(tx)
                    await checks.schema(tx)
            except BaseException:
                await self.aclose()
                raise
        return self

    async def aclose(self) -> None:
        """Close every connection; may be called twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 10)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A short writing transaction: committed on leaving, rolled back on an exception."""
        async with self._connection() as connection, connection.transaction():
            yield Tx(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadTx]:
        """A read-only transaction on one snapshot."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield ReadTx(connection)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[ReadTx]:
        """A connection without a transaction, for what refuses one: CREATE INDEX CONCURRENTLY."""
        async with self._connection() as connection:
            yield ReadTx(connection)

    @asynccontextmanager
    async def advisory_lock(self, name: str, *, wait: bool = True) -> AsyncIterator[bool]:
        """Hold a session lock by name across the cluster's clients; answers whether it was got."""
        async with self._connection() as connection:
            verb = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
            got = await connection.fetchval(f"SELECT {verb}(hashtextextended($1, 0))", f"evervec:{name}")
            held = wait or bool(got)
            try:
                yield held
            finally:
                if held and not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", f"evervec:{name}")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise self._down(RuntimeError("the database is not open"))
        try:
            async with self._pool.acquire(timeout=self._connect_seconds) as connection:
                yield connection
        except UNREACHABLE as error:
            raise self._down(error) from error
        except asyncpg.UndefinedTableError as error:
            raise SchemaMismatchError(found="none", wanted="its tables") from error

    def _down(self, error: Exception) -> DatabaseDownError:
        return DatabaseDownError(where=self.where, reason=str(error) or type(error).__name__)


def where(url: str) -> str:
    """A database URL without its credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (
        f"?{parts.query}" if parts.query else ""
    )


async def _prepare(connection: Any) -> None:
    """Vectors cross the wire as bytes: the store packs and unpacks them with numpy, never element by element."""
    schema = await connection.fetchval(
        "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = 'vector'"
    )
    if schema is not None:
        await connection.set_type_codec("vector", schema=schema, encoder=bytes, decoder=bytes, format="binary")
