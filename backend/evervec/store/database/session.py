"""Opens PostgreSQL: the pool, the transactions, and the only commit. Every other file of the store receives a `Tx`."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Self, TypeVar

import asyncpg

from evervec import log
from evervec.errors import ConflictError, DatabaseDownError, SchemaMismatchError
from evervec.store.address.address import seconds
from evervec.store.address.parsing import where
from evervec.store.database import checks, rights
from evervec.store.database.connections import Connections
from evervec.store.database.refusals import refusal, translate, unusable_address

LOCK_SECONDS = 0.1

STARTING_PAUSE = 0.2

MOST_CONFLICTS = 5
"""How many deadlocks a transaction is retried after; PostgreSQL needs a second to detect each."""

DRIVER_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)
"""What the driver raises if a server is unreachable, starting, refusing, or lost during a call."""

LOST_WHILE_IDLE = (asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)
"""What the first statement raises on a connection that the server has ended; the second one while only its farewell is read."""

ROLLBACK_SECONDS = 10
"""Longest wait for a ROLLBACK; the server itself ends a transaction whose connection is gone."""

T = TypeVar("T")

logger = log.get("store")


class _Statements:
    """Runs statements on a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """Return all rows of a query."""
        rows: list[Any] = await self._connection.fetch(sql, *values)
        return rows

    async def fetchrow(self, sql: str, *values: object) -> Any | None:
        """Return the first row, or None."""
        return await self._connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        """Return the first column of the first row, or None."""
        return await self._connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: object) -> str:
        """Run one statement and return its command tag."""
        tag: str = await self._connection.execute(sql, *values)
        return tag


class AutocommitConnection(_Statements):
    """A connection without a transaction: each statement commits by itself, and sees what others committed before it."""


class ReadTx(_Statements):
    """A read-only transaction on one snapshot."""

    async def now(self) -> datetime:
        """Return PostgreSQL's time at the begin of this transaction: the clock of all leases, pauses and runs."""
        moment: datetime = await self._connection.fetchval("SELECT now()")
        return moment

    async def copy_out(self, query: str, *values: object, to: Callable[[bytes], Awaitable[None]]) -> None:
        """Run a query as binary COPY; pass its bytes on in pieces as they arrive from the socket."""
        await self._connection.copy_from_query(query, *values, output=to, format="binary")

    @property
    def server_version(self) -> int:
        """Return the server's major version."""
        major: int = self._connection.get_server_version().major
        return major


class Tx(ReadTx):
    """A writing transaction. It commits when the `async with` that opened it is left without an exception."""

    @property
    def connection(self) -> Any:
        """Return the driver's connection, for what is part of this transaction and not of the store."""
        return self._connection

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]) -> int:
        """Insert records by binary COPY and return their number."""
        tag = await self._connection.copy_records_to_table(table, columns=list(columns), records=records)
        return int(tag.rsplit(" ", 1)[-1])


Guard = Callable[[Tx], Awaitable[None]]
"""A check that a writing transaction begins with; what it raises ends the transaction."""

Lender = Callable[[str], AbstractAsyncContextManager[Any]]
"""Lends a connection on which somebody else has begun a transaction, with a search path for as long as it is lent."""


class Database:
    """One pool of connections to one database. Opened by the runtime, closed by it."""

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        schema: str | None = "evervec",
        pool_size: int = 8,
        connect_seconds: float = 10,
    ) -> None:
        self.url = url
        self.schema = schema or ""
        """Where our tables are; "" in a database of somebody else, whose names are resolved as its server is set."""
        self._connections = Connections(url, direct_url, schema, connect_seconds)
        self._pool_size = pool_size
        self._connect_seconds = connect_seconds
        self._pool: Any = None
        self._guards: tuple[Guard, ...] = ()
        self._lender: Lender | None = None
        self.lost_connections = 0
        """Connections that ended so far, on either side: a crash of the server changes the number."""

    @property
    def where(self) -> str:
        """Return the address without credentials, for messages."""
        return where(self.url)

    async def open(self, *, check: bool = True, writes: bool = True) -> Self:
        """Connect to the server and check it; without `writes` the role needs no rights to write.

        Raises `DatabaseDownError`, `DatabaseRefusedError`, `DatabaseAddressError`, `ServerTooOldError`,
        `MissingRightsError` or `SchemaMismatchError`.
        """
        self._connect_seconds = seconds(self.url, self._connect_seconds)
        try:
            async with asyncio.timeout(self._connect_seconds):
                self._pool = await self._connect()
        except ValueError as error:
            raise translate(error, self.where) or unusable_address(error) from None
        except DRIVER_ERRORS as error:
            raise translate(error, self.where) or refusal(error, self.where) from error
        if check:
            try:
                async with self.read() as tx:
                    await checks.server(tx)
                    await rights.usage(tx, self.schema)
                    await checks.schema(tx, self.schema)
                    await rights.check(tx, self.schema, writes=writes)
            except BaseException:
                await self.aclose()
                raise
        return self

    async def _connect(self) -> Any:
        """Return a pool; wait for a server that is starting, or recovering after a crash."""
        while True:
            try:
                return await asyncpg.create_pool(
                    self.url,
                    min_size=1,
                    max_size=self._pool_size,
                    connect=self._connections.open,
                    init=self._prepare,
                    reset=_keep,
                )
            except asyncpg.CannotConnectNowError:
                await asyncio.sleep(STARTING_PAUSE)

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
        """Open a short writing transaction: committed at the end, rolled back on an exception."""
        async with self._lent(self._connections.begin(read_only=False)) as connection:
            tx = Tx(connection)
            for guard in self._guards:
                await guard(tx)
            yield tx

    def guarded(self, guard: Guard) -> Self:
        """Return this database with a check at the begin of every `transaction`; both share one pool."""
        guarded = copy.copy(self)
        guarded._guards = (*self._guards, guard)
        return guarded

    def borrowing(self, lender: Lender) -> Self:
        """Return this database inside a transaction of somebody else: what `transaction` and `read` open is a part of it."""
        borrowing = copy.copy(self)
        borrowing._lender = lender
        return borrowing

    async def with_retries(self, write: Callable[[Tx], Awaitable[T]]) -> T:
        """Run a short writing transaction; run it again if PostgreSQL ended it because of a deadlock.

        `write` may run several times: whatever it does outside of its transaction must allow that.
        """
        conflicts = 0
        while True:
            try:
                async with self.transaction() as tx:
                    return await write(tx)
            except ConflictError as error:
                conflicts += 1
                if conflicts == MOST_CONFLICTS:
                    raise
                logger.warning("transaction retried", reason=str(error))

    @asynccontextmanager
    async def read(self, *, own_names: bool = True) -> AsyncIterator[ReadTx]:
        """Open a read-only transaction on one snapshot.

        Without `own_names`, names without a schema are not looked for among our tables, but as the server is set.
        """
        async with self._lent(self._connections.begin(read_only=True, own_names=own_names)) as connection:
            yield ReadTx(connection)

    @asynccontextmanager
    async def _lent(self, begin: str) -> AsyncIterator[Any]:
        """Begin a transaction on a connection of the pool; take another one if the server closed it while it was idle.

        That is how `idle_session_timeout`, a restart or a failover looks from here. A new connection that is lost is an error.
        """
        if self._lender is not None:
            async with self._translated(self._lender(self._connections.path)) as connection:
                yield connection
            return
        for left in range(self._pool_size, -1, -1):
            async with self._connection() as connection:
                try:
                    await _begin(connection, begin)
                except LOST_WHILE_IDLE:
                    if left == 0:
                        raise
                    _end(connection)
                    continue
                async with self._finished(connection):
                    yield connection
                return

    @asynccontextmanager
    async def _begun(self, connection: Any, begin: str) -> AsyncIterator[None]:
        """Begin a transaction, commit it at the end, and roll it back on an exception."""
        await _begin(connection, begin)
        async with self._finished(connection):
            yield

    @asynccontextmanager
    async def _finished(self, connection: Any) -> AsyncIterator[None]:
        """Commit a transaction at the end, and roll it back on an exception."""
        try:
            yield
            if await connection.execute("COMMIT") != "COMMIT":
                raise ConflictError(reason="a statement in it had failed")
        except BaseException:
            await _roll_back(connection)
            raise

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AutocommitConnection]:
        """Open a direct connection without a transaction, for statements that refuse one: CREATE INDEX CONCURRENTLY."""
        async with self.direct("CREATE INDEX CONCURRENTLY") as connection:
            yield AutocommitConnection(connection)

    @asynccontextmanager
    async def direct_transaction(self, purpose: str) -> AsyncIterator[Tx]:
        """Open a writing transaction on a direct connection, for changes of the schema."""
        async with (
            self.direct(purpose) as connection,
            self._begun(connection, self._connections.begin(read_only=False)),
        ):
            yield Tx(connection)

    @asynccontextmanager
    async def direct(self, purpose: str) -> AsyncIterator[Any]:
        """Open a connection of the driver for what needs a session of its own; it is closed at the end.

        Raises `PoolerError` if the only address leads to a pooler.
        """
        async with self._translated(self._connections.direct(purpose)) as connection:
            yield connection

    async def open_direct(self) -> Any:
        """Open a direct connection that the caller closes, for a library that opens its connections by itself."""
        return await self._connections.open_direct("a migration")

    @asynccontextmanager
    async def advisory_lock(self, name: str, *, wait: bool = True) -> AsyncIterator[bool]:
        """Hold a session lock by name, one holder in this database; yield whether it was acquired."""
        async with self.direct(f"the lock {name!r}") as connection:
            key = f"{self.schema}:{name}"
            acquired = await _try_lock(connection, key)
            while wait and not acquired:
                # polling instead of pg_advisory_lock: a statement that waits has a snapshot, and the holder's
                # CREATE INDEX CONCURRENTLY would wait for that snapshot: a deadlock
                await asyncio.sleep(LOCK_SECONDS)
                acquired = await _try_lock(connection, key)
            try:
                yield acquired
            finally:
                if acquired and not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", key)

    async def _prepare(self, connection: Any) -> None:
        connection.add_termination_listener(self._ended)
        # one transaction, so that a pooler keeps one session for all of it
        async with self._begun(connection, self._connections.begin(read_only=True)):
            await self._connections.prepare(connection)

    def _ended(self, _: object) -> None:
        self.lost_connections += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self._pool is None:
            raise DatabaseDownError(where=self.where, reason="the database is not open")
        async with self._translated(self._pool.acquire(timeout=self._connect_seconds)) as connection:
            yield connection

    @asynccontextmanager
    async def _translated(self, opened: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        """Open a connection, and raise our own errors for those of the driver."""
        own: Exception | None = None
        try:
            async with opened as connection:
                try:
                    yield connection
                except (OSError, TimeoutError) as error:
                    own = None if _is_lost(connection) else error
                    raise
        except asyncpg.UndefinedTableError as error:
            raise SchemaMismatchError(found="none", wanted="its tables") from error
        except DRIVER_ERRORS as error:
            ours = None if error is own else translate(error, self.where)
            if ours is None:  # a mistake in our own SQL, or an error of the caller's own code
                raise
            raise ours from error


async def _begin(connection: Any, begin: str) -> None:
    """Begin a transaction; whoever is cancelled meanwhile leaves none behind."""
    try:
        await connection.execute(begin)
    except LOST_WHILE_IDLE:
        raise
    except BaseException:
        await _roll_back(connection)
        raise


async def _roll_back(connection: Any) -> None:
    """End a transaction that failed; where that can not be said to the server, end the connection: then it knows, too."""
    if _is_lost(connection):
        return
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):
            await connection.execute("ROLLBACK")
    except DRIVER_ERRORS:  # what is raised is the error before it
        _end(connection)
    except BaseException:
        _end(connection)
        raise


def _end(connection: Any) -> None:
    if not _is_lost(connection):
        connection.terminate()


def _is_lost(connection: Any) -> bool:
    """Return whether a connection was closed; one of the pool is given back to it at once."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _keep(_: object) -> None:
    """Leave a connection as it is when it returns to the pool: a transaction sets everything for itself alone."""


async def _try_lock(connection: Any, key: str) -> bool:
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key))
