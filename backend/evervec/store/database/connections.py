"""Opens connections to one database as Evervec needs them: directly or through a pooler, and with pgvector's types.

Nothing here keeps state in a session, except on a direct connection: through a pooler in transaction mode, each transaction
may run in another session of the server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from evervec.errors import PoolerError
from evervec.store.address.connecting import connect
from evervec.store.address.parsing import DIRECT, MAIN

STATEMENT_SECONDS = 600
"""Longest statement of a transaction; what may take longer runs on a direct connection."""

ROW_LOCK_SECONDS = 30
"""Longest wait for a lock on a row or a table; then the transaction is retried or reported."""

IDLE_IN_TRANSACTION_SECONDS = 60
"""Longest pause inside a transaction: a process that is frozen in one loses it, and holds nobody up."""

# not every version of PostgreSQL has each of them
UNLIMITED = """
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN (
    'statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout'
)
"""

CLIENT_CHECKED = """
SELECT pg_catalog.set_config(name, '5s', false) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'
"""
"""Lets the server end the statement of a process that is gone: nobody waits for an index that a killed one was building."""

EXTENSION_SCHEMA = """
SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""


def quoted(name: str) -> str:
    """Return a name as SQL writes it, in quotation marks."""
    return '"' + name.replace('"', '""') + '"'


class Connections:
    """Opens the connections of one database.

    `schema` is where our own tables are; without one (somebody else's database) names are resolved as the server is set.
    """

    def __init__(self, url: str, direct_url: str | None, schema: str | None, seconds: float) -> None:
        self.schema = schema
        self.pooled = False
        """Whether a pooler stands before the server, as PgBouncer does; known once a connection was opened."""
        self._url, self._direct_url = url, direct_url
        self._seconds = seconds
        self._extension_schema: str | None = None

    @property
    def path(self) -> str:
        """Return the search path of our own statements: our tables, then pgvector's types and operators."""
        schemas = [self.schema, self._extension_schema]
        return ", ".join([*dict.fromkeys(quoted(schema) for schema in schemas if schema), "pg_temp"])

    def begin(self, *, read_only: bool, own_names: bool = True) -> str:
        """Return the statements that begin a transaction, sent to the server as one message.

        What the server, the database or the role sets otherwise does not reach our statements. Without `own_names`, names
        without a schema mean what they mean to everybody else.
        """
        mode = "REPEATABLE READ READ ONLY" if read_only else "READ COMMITTED"
        begin = (
            f"BEGIN ISOLATION LEVEL {mode}; SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; "
            f"SET LOCAL lock_timeout = '{ROW_LOCK_SECONDS}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'"
        )
        return f"{begin}; SET LOCAL search_path = {self.path}" if self.schema and own_names else begin

    async def open(self, *_: object, **options: Any) -> Any:
        """Open a connection of the pool; it prepares no statement by name if a pooler is found."""
        connection = await self._connect(self._url, statement_cache_size=0 if self.pooled else 100, **options)
        try:
            found = not self.pooled and await _is_pooled(connection)
        except BaseException:  # also a cancellation, after which nobody else would close it
            connection.terminate()
            raise
        if found:
            self.pooled = True
            await connection.close(timeout=self._seconds)
            connection = await self._connect(self._url, statement_cache_size=0, **options)
        return connection

    async def prepare(self, connection: Any) -> None:
        """Let vectors cross the wire as bytes: the store packs and unpacks them with numpy, never one by one."""
        self._extension_schema = await connection.fetchval(EXTENSION_SCHEMA)
        if self._extension_schema is not None:
            await connection.set_type_codec(
                "vector", schema=self._extension_schema, encoder=bytes, decoder=bytes, format="binary"
            )

    @asynccontextmanager
    async def direct(self, purpose: str) -> AsyncIterator[Any]:
        """Open a connection with a session of its own for something that needs one; no statement has a time limit.

        Raises `PoolerError` if the address leads to a pooler.
        """
        connection = await self.open_direct(purpose)
        try:
            yield connection
        finally:
            await connection.close(timeout=self._seconds)

    async def open_direct(self, purpose: str) -> Any:
        """Open a connection that the caller closes, with the search path and the limits set for its whole session."""
        connection = await self._connect(self._direct_url or self._url)
        try:
            if await _is_pooled(connection):
                raise PoolerError(purpose=purpose)
            await self.prepare(connection)
            await connection.execute(UNLIMITED)
            with suppress(asyncpg.InvalidParameterValueError):  # a server on Windows can not tell
                await connection.execute(CLIENT_CHECKED)
            if self.schema:
                await connection.execute(f"SET search_path = {self.path}")
        except BaseException:
            await connection.close(timeout=self._seconds)
            raise
        return connection

    async def _connect(self, url: str, **options: Any) -> Any:
        setting = MAIN if url == self._url else DIRECT
        return await connect(url, timeout=self._seconds, setting=setting, **options)


async def _is_pooled(connection: Any) -> bool:
    """Return whether a pooler answered: it makes up the process id that a server sends to a new client.

    A simple query, because its command tag tells enough: a statement that is prepared here would stay in a session that
    the pooler gives to others.
    """
    tag: str = await connection.execute(f"SELECT WHERE pg_catalog.pg_backend_pid() = {connection.get_server_pid():d}")
    return tag == "SELECT 0"
