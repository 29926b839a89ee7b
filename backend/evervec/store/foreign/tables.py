"""Describes a foreign table as its catalog does, and makes the SQL that reads it; `reader` runs that SQL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

import asyncpg

from evervec.errors import SourceError
from evervec.store.database.session import ReadTx

KeyType = Literal["integer", "text", "uuid"]

COLUMN_KEY_TYPES: Final[Mapping[str, KeyType]] = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "text": "text",
    "character varying": "text",
    "uuid": "uuid",
}
# an index on an integer column of any width can be searched for a bigint: both belong to one operator family
CASTS: Final[Mapping[KeyType, str]] = {"integer": "bigint", "text": "text", "uuid": "uuid"}
NAIVE: Final = "timestamp without time zone"
TIMESTAMP_TYPES: Final = ("timestamp with time zone", NAIVE)

READABLE_KINDS: Final = "rpvmf"
"""pg_class.relkind of what can be read: tables, partitioned ones, views, materialized ones, foreign ones."""

RELATION = "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass($1::text)"
# typmod -1: the type without a length, so that a cast to it truncates nothing
SELECT_COLUMNS = """
SELECT a.attname, a.attnotnull,
       format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, -1) AS type
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
# a deferred constraint or a partial index does not prove that all rows are unique now
UNIQUE = """
SELECT EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
      AND i.indimmediate AND i.indpred IS NULL
)
"""
INDEXED = """
SELECT EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid
)
"""


class DescribedTable(Protocol):
    """What is needed of the description of one table; names are unquoted."""

    @property
    def relation(self) -> Sequence[str]:
        """Return the table's name, with its schema before it if one is given."""
        ...

    @property
    def key(self) -> str:
        """Return the column that identifies a row."""
        ...

    @property
    def updated_at(self) -> str | None:
        """Return the column with the time when a row was written."""
        ...

    @property
    def dataset_column(self) -> str | None:
        """Return the column with the tenant."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """Return the columns that the text is made of."""
        ...

    @property
    def filter(self) -> str | None:
        """Return a condition in SQL that rows must meet."""
        ...


@dataclass(frozen=True)
class Query:
    """A SELECT and the values of its parameters."""

    sql: str
    values: Sequence[object] = ()


class _Where:
    """Conditions, each with at most one value of its own."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._conditions: list[str] = []

    def add(self, condition: str) -> None:
        self._conditions.append(condition)

    def add_value(self, condition: Callable[[str], str], value: object) -> None:
        """Add a condition; it is called with the placeholder of its value, such as `$1`."""
        self.values.append(value)
        self._conditions.append(condition(f"${len(self.values)}"))

    def __str__(self) -> str:
        return f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


@dataclass(frozen=True)
class Columns:
    """A table that was checked against its description.

    `types` are those of all its columns, `nullable` the ones that may be NULL. `unique` tells whether an index proves that
    keys are; of a view that must be checked while reading.
    """

    where: str
    oid: int
    described: DescribedTable
    types: Mapping[str, str]
    key_type: KeyType
    unique: bool
    nullable: frozenset[str]

    @property
    def relation(self) -> str:
        """Return the table's name, quoted for SQL."""
        return ".".join(map(quoted, self.described.relation))

    @property
    def record(self) -> str:
        """Return the select list of a record: key, time, tenant, and the columns that its text needs."""
        return ", ".join([self._head, *map(quoted, self.described.fields)])

    def by_keys(self, ids: Sequence[int | str], tenant: str | None = None) -> Query:
        """Return the query for the records with these keys."""
        where = self._where(tenant)
        where.add_value(lambda it: f"{self._key} = ANY({it}::{CASTS[self.key_type]}[])", ids)
        return self._select(self.record, where, "ORDER BY 1")

    def all(self, tenant: str | None = None, after: int | str | None = None) -> Query:
        """Return the query for every record, ordered by key, after the key `after`."""
        where = self._where(tenant)
        if after is not None:
            where.add_value(lambda it: f"{self._key} > {it}::{CASTS[self.key_type]}", after)
        return self._select(self.record, where, "ORDER BY 1")

    def keys(self, tenant: str | None = None) -> Query:
        """Return the query for the keys alone, in order."""
        return self._select(self._key, self._where(tenant), "ORDER BY 1")

    def changed(self, since: datetime | None, tenant: str | None = None) -> Query:
        """Return the query for key, time and tenant of what was written at `since` or later, oldest first.

        If `since` is None, the query is for everything.
        """
        where = self._where(tenant)
        if since is not None:
            where.add_value(lambda it: f"{quoted(self.described.updated_at or '')} >= {self._moment(it)}", since)
        return self._select(self._head, where, "ORDER BY 2, 1")

    def tenants(self) -> Query:
        """Return the query for every tenant, as text."""
        column = quoted(self.described.dataset_column or "")
        where = self._where()
        where.add(f"{column} IS NOT NULL")
        found = self._select(f"DISTINCT {column}", where)
        return Query(f"SELECT {column}::text FROM ({found.sql}) AS found")

    def any_without(self, column: str) -> Query:
        """Return the query that tells whether a row has NULL in this column."""
        where = self._where()
        where.add(f"{quoted(column)} IS NULL")
        return Query(f"SELECT EXISTS ({self._select('', where).sql})")

    @property
    def _key(self) -> str:
        return quoted(self.described.key)

    @property
    def _head(self) -> str:
        described = self.described
        written = quoted(described.updated_at) if described.updated_at else "NULL::timestamptz"
        tenant = f"{quoted(described.dataset_column)}::text" if described.dataset_column else "NULL::text"
        return f"{self._key}, {written}, {tenant}"

    def _select(self, what: str, where: _Where, order: str = "") -> Query:
        return Query(f"SELECT {what} FROM {self.relation}{where} {order}".rstrip(), where.values)

    def _where(self, tenant: str | None = None) -> _Where:
        where, column = _Where(), self.described.dataset_column
        if tenant is not None:
            if column is None:
                raise SourceError(where=self.where, reason=f"no dataset_column tells what belongs to {tenant!r}.")
            # the value is cast to the column's type, not the column to text, so that its index is used
            where.add_value(lambda it: f"{quoted(column)} = {it}::text::{self.types[column]}", tenant)
        if self.described.filter is not None:
            where.add(f"({self.described.filter}\n)")
        return where

    def _moment(self, it: str) -> str:
        if self.types[self.described.updated_at or ""] != NAIVE:
            return f"{it}::timestamptz"
        # the time zone of such values is unknown: UTC, or the server's own
        return f"least({it}::timestamptz AT TIME ZONE 'UTC', {it}::timestamptz::timestamp)"


def quoted(name: str) -> str:
    """Return an identifier quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


async def inspect(tx: ReadTx, where: str, described: DescribedTable) -> Columns:
    """Check a table and return its columns.

    Raises `SourceError`, which names it `where`, if it can not be read as it is described.
    """
    name = ".".join(map(quoted, described.relation))
    relation = await tx.fetchrow(RELATION, name)
    if relation is None or relation["relkind"] not in READABLE_KINDS:
        raise SourceError(
            where=where, reason=f"there is no table or view {name} in this database. Name it with its schema."
        )
    found = await tx.fetch(SELECT_COLUMNS, relation["oid"])
    types = {row["attname"]: row["type"] for row in found}
    _require_columns(where, described, types)
    unique = bool(await tx.fetchval(UNIQUE, relation["oid"], described.key))
    if not unique and relation["relkind"] == "r":
        raise SourceError(
            where=where,
            reason=f"nothing makes its key {described.key!r} unique. Name the column of its primary key, or make a "
            "unique index on that column alone.",
        )
    nullable = frozenset(row["attname"] for row in found if not row["attnotnull"])
    key_type = COLUMN_KEY_TYPES[types[described.key]]
    columns = Columns(where, relation["oid"], described, types, key_type, unique, nullable)
    await tx.fetch(f"EXPLAIN SELECT {columns.record} FROM {columns.relation}")  # fails if we may not read it
    await _require_filter(tx, columns)
    return columns


def _require_columns(where: str, described: DescribedTable, types: Mapping[str, str]) -> None:
    named = [("key", described.key), ("updated_at", described.updated_at), ("dataset_column", described.dataset_column)]
    for what, name in named + [("template", field) for field in described.fields]:
        if name is not None and name not in types:
            raise SourceError(where=where, reason=f"its {what} names {name!r}; its columns are {', '.join(types)}.")
    if types[described.key] not in COLUMN_KEY_TYPES:
        raise SourceError(
            where=where,
            reason=f"its key {described.key!r} is of type {types[described.key]}; a key is one of {', '.join(COLUMN_KEY_TYPES)}.",
        )
    written = described.updated_at
    if written is not None and types[written] not in TIMESTAMP_TYPES:
        raise SourceError(
            where=where, reason=f"its updated_at {written!r} is of type {types[written]}; it has to be a timestamp."
        )


async def _require_filter(tx: ReadTx, columns: Columns) -> None:
    """Check that the filter is one whole condition: PostgreSQL takes it both bare and in parentheses."""
    condition = columns.described.filter
    if condition is None:
        return
    for sql in (f"SELECT FROM {columns.relation} WHERE {condition}", columns.all().sql):
        try:
            await tx.fetch(f"EXPLAIN {sql}")
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.InterfaceError) as error:
            if isinstance(error, asyncpg.InterfaceError) and "expects" not in str(error):
                raise
            raise SourceError(where=columns.where, reason=f"its filter {condition!r} is refused: {error}.") from error
