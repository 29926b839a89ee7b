"""Turns rows of an attached table into documents: their uris, titles and texts; no SQL here."""

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol
from urllib.parse import quote, unquote

from evervec.domain.attachment import AttachedTable, Key, KeyValue
from evervec.domain.documents.document import IncomingDocument
from evervec.domain.text import clean
from evervec.sources.sql.records import RECORD_FORMAT

INTEGERS: Final = ("smallint", "integer", "bigint")


class TableRow(Protocol):
    """What is needed of a row: its key, its title, its text and its fields."""

    @property
    def key(self) -> Key:
        """Return the values of its key columns."""
        ...

    @property
    def title(self) -> str | None:
        """Return its title, None without one."""
        ...

    @property
    def text(self) -> str | None:
        """Return its text, None without one."""
        ...

    @property
    def fields(self) -> Mapping[str, object]:
        """Return the values of the declared fields, as JSON holds them."""
        ...


def uri_of(table: AttachedTable, key: Key) -> str:
    """Return the uri of a row, one part a key column: `public.articles/17`, `shop.lines/8/a%2Fb`."""
    return "/".join([_place(table), *map(_part, key)])


def key_of(table: AttachedTable, uri: str) -> Key:
    """Return the key in a uri of `uri_of`. Raises `ValueError` for another uri."""
    place, *parts = uri.split("/")
    if place != _place(table) or len(parts) != len(table.key):
        raise ValueError(f"{uri!r} is not the uri of a row of {table.label}")
    return tuple(_value(column.type, unquote(part)) for column, part in zip(table.key, parts, strict=True))


def owns(table: AttachedTable, uri: str) -> bool:
    """Return whether this is the uri of a row of the table."""
    place, *parts = uri.split("/")
    return place == _place(table) and len(parts) == len(table.key)


def document_of(table: AttachedTable, row: TableRow) -> IncomingDocument:
    """Return a row as a document; its text is "" when the row has none.

    Its stamp is that of its fields: documents of the same text and another stamp differ in them alone.
    """
    title = " ".join(clean(row.title or "").split())
    return IncomingDocument(
        uri=uri_of(table, row.key),
        title=title or f"{table.name} {' '.join(map(_shown, row.key))}",
        text=clean(row.text or ""),
        format=RECORD_FORMAT,
        stamp=_stamp(row.fields) if row.fields else None,
        key=row.key,
        fields=row.fields,
    )


def _stamp(fields: Mapping[str, object]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _place(table: AttachedTable) -> str:
    return _quoted_place(table.schema, table.name)


@lru_cache
def _quoted_place(schema: str, name: str) -> str:
    return f"{quote(schema, safe='')}.{quote(name, safe='')}"


def _part(value: KeyValue) -> str:
    return str(value) if type(value) is int else quote(_shown(value), safe="")


def _shown(value: KeyValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(type_: str, shown: str) -> KeyValue:
    if type_ in INTEGERS:
        return int(shown)
    return shown == "true" if type_ == "boolean" else shown
