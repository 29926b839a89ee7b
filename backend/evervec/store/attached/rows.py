"""Reads rows of attached tables: by key, with their text, and their keys alone, along the key's index."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import RowsUnreadableError, SourceError
from evervec.store.attached.keys import dumps, json_of, loads, texts, value_of
from evervec.store.database.connections import quoted
from evervec.store.database.session import ReadTx

PARAMETER_TYPES = ("bigint", "bigint", "text[]")
"""Of the parameters of `read` after the keys: most bytes of a text, most bytes together, the keys as JSON."""

OF_A_ROW = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.CardinalityViolationError,
    asyncpg.CaseNotFoundError,
    # what a function of theirs raises, also with a code of its own
    asyncpg.PLPGSQLError,
    asyncpg.ExternalRoutineError,
    asyncpg.ExternalRoutineInvocationError,
    asyncpg.UnknownPostgresError,
)
OF_ITS_SIZE = (asyncpg.ProgramLimitExceededError, asyncpg.OutOfMemoryError, asyncpg.StatementTooComplexError)


@dataclass(frozen=True)
class AttachedRow:
    """A row as it is now. `text` is None if there is none, or if it has more than the `bytes` that were allowed."""

    key: Key
    text: str | None
    title: str | None
    tenant: str | None
    fields: Mapping[str, Any]
    bytes: int


def relation(table: AttachedTable) -> str:
    """Return the table's name, quoted for SQL."""
    return f"{quoted(table.schema)}.{quoted(table.name)}"


@dataclass(frozen=True)
class RowsRead:
    """Rows by key, and the last of the keys whose rows are there but were too much text to be read with the others."""

    rows: Mapping[Key, AttachedRow]
    unread: Sequence[Key]


async def read(
    tx: ReadTx, table: AttachedTable, keys: Sequence[Key], *, most_bytes: int, together_bytes: int
) -> RowsRead:
    """Return the rows with these keys that meet the condition; the others are gone.

    Texts of more than `most_bytes` are left out, and so is what is more than `together_bytes` together, from the end.

    Raises `RowsUnreadableError` if an expression fails for one of them: the transaction is over then, and the caller asks
    again for fewer rows, until the one at fault is alone.
    """
    if not keys:
        return RowsRead({}, [])
    try:
        async with reading(tx, table):
            rows = await tx.fetch(
                _read(table), *texts(keys, len(table.key)), most_bytes, together_bytes, list(map(dumps, keys))
            )
    except (*OF_A_ROW, *OF_ITS_SIZE) as error:
        raise RowsUnreadableError(table=table.label, reason=str(error).partition("\n")[0]) from error
    found: dict[Key, AttachedRow] = {}
    for row in rows:
        key = loads(row["key"])
        if key in found:
            raise RowsUnreadableError(table=table.label, reason=f"two rows have the key {row['key']}")
        found[key] = AttachedRow(
            key, row["text"], row["title"], row["tenant"], orjson.loads(row["fields"]), row["bytes"] or 0
        )
    unread = [loads(row["key"]) for row in rows if row["late"]]
    return RowsRead({key: row for key, row in found.items() if key not in set(unread)}, unread)


def _read(table: AttachedTable) -> str:
    """Return the query of `read`; OFFSET 0 keeps the text from being made once for each place that names it."""
    most, together, given = (f"${len(table.key) + place}::{type_}" for place, type_ in enumerate(PARAMETER_TYPES, 1))
    fields = ", ".join(f"'{_literal(name)}', r.{quoted(name)}" for name in table.fields)
    tenant = f"r.{quoted(table.dataset_column)}::text" if table.dataset_column else "NULL::text"
    where = f"({table.where}\n) AND " if table.where else ""
    return f"""
    SELECT key::text AS key, CASE WHEN bytes <= {most} AND NOT late THEN text END AS text, title, tenant, fields, bytes, late
    FROM (
        SELECT found.*, octet_length(text) AS bytes, row_number() OVER listed > 1 AND {together} <
               sum(CASE WHEN octet_length(text) <= {most} THEN octet_length(text) ELSE 0 END) OVER listed AS late
        FROM (SELECT {json_of(table, "r")} AS key, ({table.text}\n)::text AS text,
                     ({table.title or "NULL"}\n)::text AS title, {tenant} AS tenant,
                     jsonb_build_object({fields})::text AS fields
              FROM {relation(table)} r WHERE {where}{chosen(table)} OFFSET 0) AS found
        LEFT JOIN unnest({given}::jsonb[]) WITH ORDINALITY AS g (key, place) ON g.key = found.key
        WINDOW listed AS (ORDER BY g.place)
    ) AS sized
    """


def chosen(table: AttachedTable, given: Callable[[int], str] = "${}::text[]".format) -> str:
    """Return the condition that a row `r` has one of some keys, in their own types, so that the key's index is used.

    `given` returns SQL for the array of the texts of one key column, by its number.
    """
    if len(table.key) == 1:
        (column,) = table.key
        value = value_of(column.type, "k.v")
        return f"r.{quoted(column.name)} = ANY(ARRAY(SELECT {value} FROM unnest({given(1)}) k (v)))"
    columns = ", ".join(f"r.{quoted(column.name)}" for column in table.key)
    names = [f"v{place}" for place in range(1, len(table.key) + 1)]
    values = ", ".join(value_of(column.type, f"k.{name}") for column, name in zip(table.key, names, strict=True))
    arrays = ", ".join(given(place) for place in range(1, len(table.key) + 1))
    return f"({columns}) IN (SELECT {values} FROM unnest({arrays}) k ({', '.join(names)}))"


def _literal(name: str) -> str:
    return name.replace("'", "''")


async def keys_after(
    tx: ReadTx, table: AttachedTable, after: Key | None, limit: int, *, newest_first: bool = False
) -> list[Key]:
    """Return the next keys in the order of the key's index, from either end; no expression is evaluated.

    A row whose key is NULL has none: the table was changed after it was attached, as its status says.
    """
    columns = [f"r.{quoted(column.name)}" for column in table.key]
    order = ", ".join(f"{column} DESC" if newest_first else column for column in columns)
    values = [value_of(column.type, f"${place}::text") for place, column in enumerate(table.key, 2)]
    named = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    beyond = (
        f"AND ({', '.join(columns)}) {'<' if newest_first else '>'} ({', '.join(values)})" if after is not None else ""
    )
    given = [column[0] for column in texts([after], len(table.key))] if after is not None else []
    sql = f"SELECT {json_of(table, 'r')}::text AS key FROM {relation(table)} r WHERE {named} {beyond} ORDER BY {order} LIMIT $1"
    async with reading(tx, table):
        return [loads(row["key"]) for row in await tx.fetch(sql, limit, *given)]


async def existing(tx: ReadTx, table: AttachedTable, keys: Sequence[Key]) -> set[Key]:
    """Return those of some keys that have a row, whether it meets the condition or not."""
    if not keys:
        return set()
    sql = f"SELECT {json_of(table, 'r')}::text AS key FROM {relation(table)} r WHERE {chosen(table)}"
    async with reading(tx, table):
        return {loads(row["key"]) for row in await tx.fetch(sql, *texts(keys, len(table.key)))}


@asynccontextmanager
async def reading(tx: ReadTx, table: AttachedTable) -> AsyncIterator[None]:
    """Raise `SourceError` for a table that can not be read as it was attached: another shape, no rights, hidden rows."""
    try:
        # rows that a policy hides would be taken for deleted ones
        await tx.execute("SET LOCAL row_security = off")
        yield
    except asyncpg.SyntaxOrAccessError as error:
        raise SourceError(
            where=f"Table {table.label}",
            reason=f"it can not be read as it was attached: {str(error).partition(chr(10))[0]}. Its documents stay as they "
            "were. `evervec attach … --replace` gives it another text, `evervec detach` removes it.",
        ) from error
