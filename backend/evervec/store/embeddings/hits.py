"""What a search returns: the rows that were found, with their texts, places and fields."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import orjson

from evervec.store.database.session import ReadTx
from evervec.store.schema.embeddables import CHUNK, MESSAGE, Embeddable

PLACE_PARTS = 4
"""Values of a chunk's place; the key and fields of the row of an attached table that its document is follow, and its metadata."""


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk is: its document's URI, the heading or qualified name, the first and the last line, from 1."""

    document: str
    heading: str
    line_start: int | None
    line_end: int | None


@dataclass(frozen=True)
class MessageOrigin:
    """Where a message is from: its chat, its id there, who wrote it, and when."""

    chat: str
    external_id: str
    author: str
    sent_at: datetime


@dataclass(frozen=True)
class Surroundings:
    """The texts of the chunks before and after a chunk, in the order of their document."""

    before: Sequence[str]
    after: Sequence[str]


@dataclass(frozen=True)
class HitRanks:
    """The places of a row, from 1, among those nearest in meaning and among those with the question's words."""

    vector: int | None
    words: int | None


@dataclass(frozen=True)
class SearchHit:
    """A row near a query. `score` orders the hits: the cosine similarity in a search by meaning, else a number from 0 to 1.

    `similarity` is the cosine similarity, 1 for the same direction, None of a row that has no vector yet; `words` the share of the
    question's words that the row has, by their rarity, where they were searched. `ranks` are there where
    both lists were ranked together, `around` and `snippet` if they were asked for.

    Only a message has an `origin`, only a chunk a `place` and the `metadata` of its document. A chunk of a row of an attached table has that `table`, the values of its `key`, and those of the declared `fields`.
    """

    kind: str
    id: int
    dataset: str
    score: float
    text: str
    stale: bool
    place: ChunkPlace | None = None
    table: str | None = None
    key: list[Any] | None = None
    fields: dict[str, Any] | None = None
    origin: MessageOrigin | None = None
    metadata: dict[str, Any] | None = None
    similarity: float | None = None
    words: float | None = None
    around: Surroundings | None = None
    snippet: str | None = None
    ranks: HitRanks | None = None


def hit_of(row: Any, embeddable: Embeddable) -> SearchHit:
    """Return the hit of a record of a search."""
    cosine = row["score"]
    score = 0.0 if cosine is None else cosine
    hit = SearchHit(embeddable.name, row["id"], row["dataset"], score, row["text"], row["stale"], similarity=cosine)
    if embeddable is MESSAGE:
        return replace(hit, origin=MessageOrigin(*row["place"]))
    place = place_of(row, embeddable)
    if place is None:
        return hit
    key, fields, metadata = row["place"][PLACE_PARTS:]
    hit = replace(hit, place=place, metadata=orjson.loads(metadata))
    if key is None:
        return hit
    table = unquote(place.document.partition("/")[0])
    return replace(hit, table=table, key=orjson.loads(key), fields=orjson.loads(fields or "{}"))


def place_of(row: Any, embeddable: Embeddable) -> ChunkPlace | None:
    """Return the place of a chunk, None of any other row."""
    return None if embeddable is not CHUNK or row["place"] is None else ChunkPlace(*row["place"][:PLACE_PARTS])


async def texts_of(
    tx: ReadTx, embeddable: Embeddable, row_ids: Collection[int]
) -> dict[int, tuple[str, ChunkPlace | None]]:
    """Return the texts and places of some rows of a kind, by row id; rows that do not exist are left out."""
    rows = await tx.fetch(
        f"SELECT r.{embeddable.key} AS id, {embeddable.text} AS text, {embeddable.place} AS place "
        f"FROM {embeddable.table} r WHERE r.{embeddable.key} = ANY($1)",
        list(row_ids),
    )
    return {row["id"]: (row["text"], place_of(row, embeddable)) for row in rows}
