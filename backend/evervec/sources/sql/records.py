"""Turns records into documents: their uris, stamps and texts, and the ids that a caller names; no SQL here."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import quote, unquote
from uuid import UUID

from evervec.domain.documents.document import ChangedIds, IncomingDocument
from evervec.domain.text import clean
from evervec.errors import SourceError, UnknownTableError
from evervec.sources.sql.description import SourceDescription
from evervec.sources.sql.template import render

KeyType = Literal["integer", "text", "uuid"]
RECORD_FORMAT: Final = "plain"

_BIGINT: Final = 1 << 63
_DIGITS: Final = frozenset("0123456789")


def uri_of(table: str, key: int | str) -> str:
    """Return the uri of a record: `orders/17`, `reviews/a%2Fb`."""
    return f"{quote(table, safe='')}/{quote(str(key), safe='')}"


def key_of(uri: str) -> tuple[str, str]:
    """Return the table and the key, as text, of a uri of `uri_of`. Raises `ValueError` for another uri."""
    table, slash, key = uri.partition("/")
    if not slash or "/" in key:
        raise ValueError(f"{uri!r} is not the uri of a record")
    return unquote(table), unquote(key)


def owns(description: SourceDescription, uri: str) -> bool:
    """Return whether this is the uri of a record of one of the described tables."""
    table, slash, key = uri.partition("/")
    return bool(slash) and "/" not in key and unquote(table) in description.tables


def stamp_of(description: SourceDescription, table: str, updated_at: datetime | None) -> str | None:
    """Return the version of a record's text: its time of change, and how it is rendered. None if that is not known."""
    if updated_at is None:
        return None
    described = description.tables[table]
    recipe = sha256(f"{described.title}\0{described.template}".encode()).hexdigest()[:12]
    return f"{updated_at.isoformat()} {recipe}"


def document_of(
    description: SourceDescription,
    table: str,
    key: int | str,
    updated_at: datetime | None,
    values: Mapping[str, object],
) -> IncomingDocument:
    """Return a record as a document; its text is "" when the record has no values for the template's fields."""
    described = description.tables[table]
    title = render(described.title, values) if described.title is not None else ""
    return IncomingDocument(
        uri=uri_of(table, key),
        title=" ".join(title.split()) or f"{table} {key}",
        text=render(described.template, values),
        format=RECORD_FORMAT,
        stamp=stamp_of(description, table, updated_at),
    )


def check_ids(
    description: SourceDescription, changed: ChangedIds, key_types: Mapping[str, KeyType]
) -> dict[str, list[int | str]]:
    """Return the ids that a caller names, by table, each once and in the type of the table's key.

    "17" is 17 where keys are numbers. Raises `UnknownTableError`, and `SourceError` for an id of a wrong type.
    """
    for table in changed:
        if table not in description.tables:
            raise UnknownTableError(table=table, known=", ".join(description.tables))
    return {
        table: list(dict.fromkeys(_id(description.name, table, key_types[table], value) for value in values))
        for table, values in changed.items()
    }


def _id(source: str, table: str, key_type: KeyType, value: object) -> int | str:
    match key_type:
        case "integer":
            found: int | str | None = _integer(value)
        case "uuid":
            found = _uuid(value)
        case "text":
            found = value if isinstance(value, str) and clean(value) == value else None
    if found is None:
        shown = repr(value)
        shown = f"{shown[:80]}…" if len(shown) > 80 else shown
        raise SourceError(
            where=f"Source {source!r}, table {table!r}",
            reason=f"{shown} is not an id, its keys are of type {key_type}.",
        )
    return found


def _integer(value: object) -> int | None:
    if isinstance(value, str) and 0 < len(value) <= 20 and set(value.removeprefix("-")) <= _DIGITS and value != "-":
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_BIGINT <= value < _BIGINT else None


def _uuid(value: object) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None
