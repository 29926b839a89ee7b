"""Reads rows of attached tables: by key, with their text, and their keys alone, along the key's index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import RowsUnreadableError
from evervec.store.attached.keys import json_of, loads, texts, value_of
from evervec.store.connections import quoted
from evervec.store.session import ReadTx, Tx

SAVE_KEYS = """
UPDATE documents d SET key = n.key::jsonb, fields = n.fields::jsonb
FROM unnest($2::text[], $3::text[], $4::text[]) n (uri, key, fields)
WHERE d.dataset_id = $1 AND d.uri = n.uri AND d.uri = ANY($2)
  AND (d.key IS DISTINCT FROM n.key::jsonb OR d.fields IS DISTINCT FROM n.fields::jsonb)
"""

OF_A_ROW = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError)
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


async def read(tx: ReadTx, table: AttachedTable, keys: Sequence[Key], most_bytes: int) -> dict[Key, AttachedRow]:
    """Return the rows with these keys that meet the condition; the others are gone.

    Raises `RowsUnreadableError` if an expression fails for one of them: the transaction is over then, and the caller asks
    again for fewer rows, until the one at fault is alone.
    """
    if not keys:
        return {}
    try:
        rows = await tx.fetch(_read(table), *texts(keys, len(table.key)), most_bytes)
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
    return found


def _read(table: AttachedTable) -> str:
    """Return the query of `read`; OFFSET 0 keeps the text from being made once for each place that names it."""
    size = f"${len(table.key) + 1}::bigint"
    fields = ", ".join(f"'{_literal(name)}', r.{quoted(name)}" for name in table.fields)
    tenant = f"r.{quoted(table.dataset_column)}::text" if table.dataset_column else "NULL::text"
    where = f"({table.where}\n) AND " if table.where else ""
    return f"""
    SELECT key, CASE WHEN octet_length(text) <= {size} THEN text END AS text, title, tenant, fields,
           octet_length(text) AS bytes
    FROM (SELECT {json_of(table, "r")}::text AS key, ({table.text}\n)::text AS text,
                 ({table.title or "NULL"}\n)::text AS title, {tenant} AS tenant,
                 jsonb_build_object({fields})::text AS fields
          FROM {relation(table)} r WHERE {where}{_chosen(table)} OFFSET 0) AS found
    """


def _chosen(table: AttachedTable) -> str:
    """Return the condition on the keys, in their own types, so that the key's index is used."""
    if len(table.key) == 1:
        (column,) = table.key
        value = value_of(column.type, "k.v")
        return f"r.{quoted(column.name)} = ANY(ARRAY(SELECT {value} FROM unnest($1::text[]) k (v)))"
    columns = ", ".join(f"r.{quoted(column.name)}" for column in table.key)
    names = [f"v{place}" for place in range(1, len(table.key) + 1)]
    values = ", ".join(value_of(column.type, f"k.{name}") for column, name in zip(table.key, names, strict=True))
    given = ", ".join(f"${place}::text[]" for place in range(1, len(table.key) + 1))
    return f"({columns}) IN (SELECT {values} FROM unnest({given}) k ({', '.join(names)}))"


def _literal(name: str) -> str:
    return name.replace("'", "''")


async def keys_after(
    tx: ReadTx, table: AttachedTable, after: Key | None, limit: int, *, newest_first: bool = False
) -> list[Key]:
    """Return the next keys in the order of the key's index, from either end; no expression is evaluated."""
    columns = [f"r.{quoted(column.name)}" for column in table.key]
    order = ", ".join(f"{column} DESC" if newest_first else column for column in columns)
    values = [value_of(column.type, f"${place}::text") for place, column in enumerate(table.key, 2)]
    beyond = (
        f"WHERE ({', '.join(columns)}) {'<' if newest_first else '>'} ({', '.join(values)})"
        if after is not None
        else ""
    )
    given = [column[0] for column in texts([after], len(table.key))] if after is not None else []
    sql = f"SELECT {json_of(table, 'r')}::text AS key FROM {relation(table)} r {beyond} ORDER BY {order} LIMIT $1"
    return [loads(row["key"]) for row in await tx.fetch(sql, limit, *given)]


async def save_keys(tx: Tx, dataset_id: Any, rows: Mapping[str, AttachedRow]) -> None:
    """Save keys and fields of rows with their documents, by uri; call it after the documents were written."""
    await tx.execute(
        SAVE_KEYS,
        dataset_id,
        list(rows),
        [orjson.dumps(row.key).decode() for row in rows.values()],
        [orjson.dumps(row.fields).decode() for row in rows.values()],
    )
