"""How values of key columns become JSON and come back, the same in every session; only types for which that holds are keys."""

from collections.abc import Sequence
from typing import Final

import orjson

from evervec.domain.attachment import AttachedTable, Key
from evervec.store.database.connections import quoted

AS_IT_IS: Final = ("{}", "{}::{}")
# JSON shows a time in the zone of the session that writes it, and a number with the zeros that it was written with
UTC: Final = ("pg_catalog.timezone('UTC', {})", "pg_catalog.timezone('UTC', {}::timestamp)")
FORMS: Final = {
    "smallint": AS_IT_IS,
    "integer": AS_IT_IS,
    "bigint": AS_IT_IS,
    "text": AS_IT_IS,
    "character varying": AS_IT_IS,
    "bpchar": AS_IT_IS,
    "uuid": AS_IT_IS,
    "date": AS_IT_IS,
    "boolean": AS_IT_IS,
    "timestamp without time zone": AS_IT_IS,
    "timestamp with time zone": UTC,
    "numeric": ("pg_catalog.trim_scale({})::pg_catalog.text", "{}::{}"),
    "bytea": ("pg_catalog.encode({}, 'hex')", "pg_catalog.decode({}, 'hex')"),
}
"""By type: the value as it is put into JSON, and a text of it as a value again."""


def json_of(table: AttachedTable, alias: str) -> str:
    """Return SQL for the key of a row as a JSON array."""
    values = (_form(column.type)[0].format(f"{alias}.{quoted(column.name)}") for column in table.key)
    return f"pg_catalog.jsonb_build_array({', '.join(values)})"


def json_of_texts(table: AttachedTable) -> str:
    """Return the query that makes JSON arrays of keys, whose texts are given column by column as this session writes them."""
    names = [f"v{place}" for place in range(1, len(table.key) + 1)]
    values = (
        _form(column.type)[0].format(f"k.{name}::{column.type}") for column, name in zip(table.key, names, strict=True)
    )
    given = ", ".join(f"${place}::text[]" for place in range(1, len(names) + 1))
    return f"SELECT pg_catalog.jsonb_build_array({', '.join(values)})::text AS key FROM unnest({given}) k ({', '.join(names)})"


def value_of(type_: str, text: str) -> str:
    """Return SQL for a value of a type, from SQL for its text."""
    return _form(type_)[1].format(text, type_)


def _form(type_: str) -> tuple[str, str]:
    return FORMS.get(type_, ("{}::pg_catalog.text", "{}::{}"))  # an enum


def texts(keys: Sequence[Key], width: int) -> list[list[str]]:
    """Return the texts of keys, column by column."""
    return [[_text(key[place]) for key in keys] for place in range(width)]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def loads(stored: str) -> Key:
    """Return a key from its JSON."""
    return tuple(orjson.loads(stored))


def listed(stored: str) -> list[Key]:
    """Return keys from the JSON of one, or of a list of them."""
    found = orjson.loads(stored)
    return [tuple(key) for key in found] if isinstance(found[0], list) else [tuple(found)]


def dumps(key: Key) -> str:
    """Return the JSON of a key."""
    return orjson.dumps(list(key)).decode()
