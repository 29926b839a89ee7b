"""Reads the tables of an SQL source, in this or in another database, and never writes; no templates and no URIs here.

Every query runs in a read-only transaction. A generator holds a connection until it is used up or closed: a caller that
may leave it early wraps it in `contextlib.aclosing`.
"""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol, Self

import asyncpg

from evervec.errors import (
    ConflictError,
    DatabaseAddressError,
    DatabaseDownError,
    DatabaseRefusedError,
    SchemaMismatchError,
    SourceDownError,
    SourceError,
)
from evervec.store.database.session import Database, ReadTx
from evervec.store.foreign.tables import INDEXED, Columns, DescribedTable, Query, inspect

RECORD_BATCH: Final = 1_000
"""Records that are yielded at a time, and ids that one query looks up."""

POOL: Final = 4

# Rows have the time at which their transaction began, and become visible when it ends. So a cursor stays before the begin
# of the oldest open transaction that the server shows us, and before what a standby has not replayed.
HORIZON: Final = """
SELECT least(
    now(),
    CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END,
    (SELECT min(xact_start) FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()),
    (SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database())
)
"""

_CURSORS = itertools.count()

_OURS = (DatabaseAddressError, DatabaseDownError, DatabaseRefusedError, ConflictError, SchemaMismatchError)
_AWAY = (DatabaseDownError, DatabaseRefusedError, ConflictError)


class DescribedSource(Protocol):
    """What the reader needs of the description of a source."""

    @property
    def name(self) -> str:
        """Return the name of the source in messages."""
        ...

    @property
    def tables(self) -> Mapping[str, DescribedTable]:
        """Return its tables, by the names that it gives them."""
        ...


class Record(NamedTuple):
    """A row: its key (a UUID as text), when it was written, its tenant as text, and the columns its text is made of."""

    table: str
    key: int | str
    updated_at: datetime | None
    tenant: str | None
    values: Mapping[str, object]


class Change(NamedTuple):
    """A row that was written: its key, when, and its tenant as text."""

    key: int | str
    updated_at: datetime | None
    tenant: str | None


async def open_foreign(description: DescribedSource, at: str | Database) -> "ForeignTables":
    """Open the tables of a source, at a URL of their own or in a database that is already open.

    Raises `SourceError` for a table that is not as it is described or may not be read, `SourceDownError` for a
    database that does not answer, does not exist or does not let us in.
    """
    owned = isinstance(at, str)
    return await ForeignTables(
        description, Database(at, pool_size=POOL) if isinstance(at, str) else at, owned=owned
    ).open()


class ForeignTables:
    """The tables of one source, checked against their description. Whoever opened it closes it.

    A tenant is a value of a table's `dataset_column`, as text; None reads the rows of all of them.
    """

    def __init__(self, description: DescribedSource, database: Database, *, owned: bool) -> None:
        self._name, self._tables = description.name, description.tables
        self._database, self._owned = database, owned
        self.columns: dict[str, Columns] = {}
        """By table, what its catalog says of it; `key_type` among it."""

    async def open(self) -> Self:
        """Connect if the connection is our own, and check every table."""
        try:
            if self._owned:
                with self._translated(self._place()):
                    await self._database.open(check=False)
            await self.verify()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Close the connections that are our own; may be called twice."""
        if self._owned:
            await self._database.aclose()

    async def verify(self) -> Mapping[str, Columns]:
        """Check every table as it is now and return its columns. Raises `SourceError` or `SourceDownError`.

        A table must exist and be readable, its key be unique, its columns be the described ones, its filter be a condition.
        """
        for table, described in self._tables.items():
            async with self._reading(table) as tx:
                self.columns[table] = await inspect(tx, self._place(table), described)
        return self.columns

    async def warnings(self) -> list[str]:
        """Return what works but has a drawback: changes without an index, rows that no sync sees or no dataset holds."""
        return [line for table in self.columns for line in await self._warnings(table)]

    async def extract_data_by_ids(
        self, table: str, ids: Iterable[int | str], tenant: str | None = None
    ) -> AsyncGenerator[list[Record], None]:
        """Yield the records with these keys, looked up in the key's index; no transaction is open between batches.

        A key that does not exist, does not meet the filter or belongs to another tenant is left out.
        """
        columns = self.columns[table]
        wanted = list(dict.fromkeys(_key(columns, one) for one in ids))
        for start in range(0, len(wanted), RECORD_BATCH):
            query = columns.by_keys(wanted[start : start + RECORD_BATCH], tenant)
            async with self._reading(table) as tx:
                rows = await tx.fetch(query.sql, *query.values)
            _require_keys(columns, rows, None)
            yield _records(table, columns, rows)

    async def extract_all(
        self, table: str, tenant: str | None = None, after: int | str | None = None
    ) -> AsyncGenerator[list[Record], None]:
        """Yield every record of one snapshot, ordered by key, after the key `after`."""
        columns, last = self.columns[table], None
        query = columns.all(tenant, None if after is None else _key(columns, after))
        async with aclosing(self._stream(table, query)) as batches:
            async for rows in batches:
                last = _require_keys(columns, rows, last)
                yield _records(table, columns, rows)

    async def keys(self, table: str, tenant: str | None = None) -> AsyncGenerator[list[int | str], None]:
        """Yield every key of one snapshot: all of them, or it raises."""
        columns, last = self.columns[table], None
        async with aclosing(self._stream(table, columns.keys(tenant))) as batches:
            async for rows in batches:
                last = _require_keys(columns, rows, last)
                yield [_shown(row[0]) for row in rows]

    async def changed_since(
        self, table: str, since: datetime | None, overlap: timedelta, tenant: str | None = None
    ) -> AsyncGenerator[list[Change], None]:
        """Yield what was written at `since` less `overlap` or later, oldest first; everything if `since` is None.

        The overlap repeats what is already known. Raises `SourceError` for a table without `updated_at`.
        """
        columns = self.columns[table]
        if columns.described.updated_at is None:
            raise SourceError(where=columns.where, reason="it has no updated_at, so only a full run finds its changes.")
        query = columns.changed(None if since is None else since - overlap, tenant)
        async with aclosing(self._stream(table, query)) as batches:
            async for rows in batches:
                _require_some_key(columns, rows)
                yield [Change(_shown(key), written, whose) for key, written, whose in rows]

    async def horizon(self) -> datetime:
        """Return the next `since`, on the source's own clock; ask for it before the changes are read.

        What is written at an earlier time is visible, unless a transaction that we may not see is still open.
        """
        async with self._reading() as tx:
            found: datetime = await tx.fetchval(HORIZON)
            return found

    async def tenants(self) -> list[str]:
        """Return the values of all tables' dataset columns, as text, in order; rows without one belong to nobody."""
        found = set[str]()
        for table, columns in self.columns.items():
            if columns.described.dataset_column is not None:
                async with self._reading(table) as tx:
                    found.update(row[0] for row in await tx.fetch(columns.tenants().sql))
        return sorted(found)

    async def _stream(self, table: str, query: Query) -> AsyncGenerator[list[Any], None]:
        """Yield the rows of a query through a cursor: neither side ever holds all of them."""
        # a new name each time: the driver caches the result types of a FETCH from a name
        cursor = f"evervec_{next(_CURSORS)}"
        async with self._reading(table) as tx:
            await tx.execute(f"DECLARE {cursor} NO SCROLL CURSOR FOR {query.sql}", *query.values)
            while rows := await tx.fetch(f"FETCH {RECORD_BATCH} FROM {cursor}"):
                yield rows

    async def _warnings(self, table: str) -> list[str]:
        columns, found = self.columns[table], list[str]()
        written, tenant = columns.described.updated_at, columns.described.dataset_column
        async with self._reading(table) as tx:
            if written is None:
                found.append("it has no updated_at: only a full run finds what changed.")
            elif columns.unique and not await tx.fetchval(INDEXED, columns.oid, written):
                found.append(f"no index begins with {written!r}: every sync reads the whole table.")
            if written in columns.nullable and await tx.fetchval(columns.any_without(written).sql):
                found.append(f"there are rows without {written!r}: only a full run finds them.")
            if tenant in columns.nullable and await tx.fetchval(columns.any_without(tenant).sql):
                found.append(f"there are rows without {tenant!r}: they belong to no dataset.")
        return [f"{columns.where}: {line}" for line in found]

    def _place(self, table: str | None = None) -> str:
        return f"Source {self._name!r}" + (f", table {table!r}" if table is not None else "")

    @asynccontextmanager
    async def _reading(self, table: str | None = None) -> AsyncIterator[ReadTx]:
        with self._translated(self._place(table)):
            async with self._database.read(own_names=False) as tx:
                yield tx

    @contextmanager
    def _translated(self, place: str) -> Iterator[None]:
        try:
            yield
        except (*_OURS, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise self._translate(error, place) from error

    def _translate(self, error: Exception, place: str) -> SourceError | SourceDownError:
        """Return our error: the database is unavailable, or rejects what was described."""
        if isinstance(error, DatabaseAddressError):
            return SourceError(where=place, reason=f"its url can not be used: {error.values['reason']}.")
        cause = error.__cause__ or error
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            return SourceError(where=place, reason=f"{cause}. Grant the source's user SELECT on it.")
        if isinstance(error, _AWAY) and not isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
            return SourceDownError(name=self._name, where=self._database.where, reason=error.values["reason"])
        return SourceError(where=place, reason=f"it can not be read as it is described ({cause}).")


def _records(table: str, columns: Columns, rows: Sequence[Any]) -> list[Record]:
    fields = columns.described.fields
    return [Record(table, _shown(row[0]), row[1], row[2], dict(zip(fields, row[3:], strict=True))) for row in rows]


def _key(columns: Columns, key: int | str) -> int | str:
    """Return a key in its column's type; one that comes out of a URI is text."""
    if columns.key_type != "integer":
        return str(key)
    try:
        return int(key)
    except ValueError:
        raise SourceError(
            where=columns.where, reason=f"{str(key)[:80]!r} is not an id, its keys are numbers."
        ) from None


def _shown(key: object) -> int | str:
    return key if isinstance(key, int) else str(key)


def _require_keys(columns: Columns, rows: Sequence[Any], last: object) -> object:
    """Check that each row has a key of its own, in order; return the last one."""
    for row in rows:
        if row[0] == last and last is not None:
            raise SourceError(
                where=columns.where,
                reason=f"two rows have the key {str(last)[:80]!r}. Nothing was deleted; make {columns.described.key!r} unique.",
            )
        last = row[0]
    _require_some_key(columns, rows)
    return last


def _require_some_key(columns: Columns, rows: Sequence[Any]) -> None:
    if any(row[0] is None for row in rows):
        raise SourceError(
            where=columns.where,
            reason=f"there is a row without a key. Leave it out by a filter: {columns.described.key!r} IS NOT NULL.",
        )
