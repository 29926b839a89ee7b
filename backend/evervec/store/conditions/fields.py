"""The fields of each kind that a condition may name: one declaration a field, its type and its SQL."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from evervec.errors import ConditionError
from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import ATOM, CHUNK, MESSAGE, TOPIC, Embeddable


class FieldType(StrEnum):
    """What a field holds, and so what it can be compared with."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    TIME = "time"
    JSON = "JSON"


@dataclass(frozen=True)
class SearchField:
    """A field: its type, and its SQL over the tables of its kind. `path` leads to a value inside of JSON."""

    type: FieldType
    sql: str
    path: tuple[str, ...] = ()


def _text(*columns: str) -> dict[str, SearchField]:
    return {column: SearchField(FieldType.TEXT, f"r.{column}") for column in columns}


def _times(*columns: str) -> dict[str, SearchField]:
    return {column: SearchField(FieldType.TIME, f"r.{column}") for column in columns}


ID = {"id": SearchField(FieldType.WHOLE, "r.id")}
DECLARED = SearchField(FieldType.JSON, "d.fields")

SEARCH_FIELDS: Mapping[int, Mapping[str, SearchField]] = {
    MESSAGE.kind: ID
    | _text("chat", "external_id", "author", "reply_to", "signal")
    | _times("sent_at", "edited_at")
    | {"score": SearchField(FieldType.NUMBER, "r.score")},
    TOPIC.kind: ID | _text("name", "description") | _times("created_at", "updated_at"),
    ATOM.kind: ID
    | _text("type", "title")
    | _times("created_at", "updated_at")
    | {
        "topic": SearchField(FieldType.TEXT, "t.name"),
        "confidence": SearchField(FieldType.NUMBER, "r.confidence"),
        "version": SearchField(FieldType.WHOLE, "r.version"),
    },
    CHUNK.kind: ID
    | _text("heading")
    | {
        "document_id": SearchField(FieldType.WHOLE, "r.document_id"),
        "line_start": SearchField(FieldType.WHOLE, "r.line_start"),
        "uri": SearchField(FieldType.TEXT, "d.uri"),
        "title": SearchField(FieldType.TEXT, "d.title"),
        "format": SearchField(FieldType.TEXT, "d.format"),
        "created_at": SearchField(FieldType.TIME, "d.created_at"),
        "updated_at": SearchField(FieldType.TIME, "d.updated_at"),
        "fields": DECLARED,
        "metadata": SearchField(FieldType.JSON, "d.metadata"),
    },
}
"""The fields by kind, over the row `r` and what `TABLES` joins to it."""

TABLES: Mapping[int, str] = {
    MESSAGE.kind: "messages r",
    TOPIC.kind: "topics r",
    ATOM.kind: "atoms r LEFT JOIN topics t ON t.id = r.topic_id",
    CHUNK.kind: "chunks r JOIN documents d ON d.id = r.document_id",
}

DECLARED_NAMES = """
SELECT DISTINCT f.name FROM datasets d JOIN sources s ON s.id = d.source_id
CROSS JOIN LATERAL jsonb_array_elements_text(s.spec #> '{table,fields}') AS f (name)
WHERE d.id = ANY($1::uuid[]) AND jsonb_typeof(s.spec #> '{table,fields}') = 'array'
"""


def find(embeddable: Embeddable, name: str, declared: Collection[str] = ()) -> SearchField | None:
    """Return the field of a kind with this name, or None; `declared` are fields of attached tables, which need no prefix."""
    known = SEARCH_FIELDS[embeddable.kind]
    if name in known and known[name].type is not FieldType.JSON:
        return known[name]
    first, *path = name.split(".")
    if first in known and known[first].type is FieldType.JSON and path:
        return SearchField(FieldType.JSON, known[first].sql, tuple(path))
    if embeddable is CHUNK and name in declared:
        return SearchField(FieldType.JSON, DECLARED.sql, (name,))
    return None


async def declared(tx: ReadTx, dataset_ids: Sequence[UUID]) -> frozenset[str]:
    """Return the names of the fields that attachments declare which fill some datasets."""
    return frozenset(row["name"] for row in await tx.fetch(DECLARED_NAMES, list(dataset_ids)))


def unknown(name: str, kinds: Sequence[Embeddable], names: Collection[str]) -> ConditionError:
    """Return the error for a field that no kind in scope has, with the names that are meant most likely."""
    known = sorted({field for one in kinds for field in SEARCH_FIELDS[one.kind]} | set(names))
    json = [field for one in kinds for field, found in SEARCH_FIELDS[one.kind].items() if found.type is FieldType.JSON]
    if name in json:
        return ConditionError(reason=f"{name} holds values by name: write {name}.name, for example {name}.price > 10.")
    close = difflib.get_close_matches(name, known, 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    kinds_named = ", ".join(one.name for one in kinds)
    return ConditionError(reason=f"No {kinds_named} has a field {name[:100]!r}.{meant} Fields: {', '.join(known)}.")
