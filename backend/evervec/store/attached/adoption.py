"""Vectors that a table has in a column of its own: how they are stored, read by key, and given to the chunks of its rows.

What is being adopted is kept with the attachment's cursor, so that any worker goes on with it after a crash.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import UUID

import numpy as np
import orjson
from numpy.typing import NDArray

from evervec.domain.attachment import AttachedTable, Key
from evervec.domain.vectors import check_vectors
from evervec.errors import SourceError
from evervec.store.attached.changes import KEYS
from evervec.store.attached.keys import json_of, loads, texts
from evervec.store.attached.rows import chosen, reading, relation
from evervec.store.attached.shape import TABLE_COLUMNS
from evervec.store.database.connections import EXTENSION_SCHEMA, quoted
from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import vector_wire, vectors

LARGEST: Final = "3.4e38"
"""What a number of a vector stays below."""

WIDTHS: Final = {
    "vector": "vector_dims({column})",
    "halfvec": "vector_dims({column})",
    "real[]": "cardinality({column})",
    "double precision[]": "cardinality({column})",
    "jsonb": "CASE jsonb_typeof({column}) WHEN 'array' THEN jsonb_array_length({column}) END",
}
"""By type: SQL for the number of dimensions of a value."""

_OF_ARRAY: Final = (
    "array_ndims({column}) = 1 AND NOT EXISTS (SELECT FROM unnest({column}) x WHERE x IS NULL OR NOT abs(x) < "
    f"{LARGEST})"
)
USABLE: Final = {
    "vector": "true",
    "halfvec": "true",
    "real[]": _OF_ARRAY,
    "double precision[]": _OF_ARRAY,
    "jsonb": "NOT EXISTS (SELECT FROM jsonb_array_elements({column}) x WHERE CASE jsonb_typeof(x) WHEN 'number' THEN "
    f"NOT abs(x::numeric) < {LARGEST} ELSE true END)",
}
"""By type: SQL for whether a value of the right width can become a vector: NULLs, NaN and infinity can not."""

# The vector of a row that was changed since it was attached may be that of its former text. Of a table that is attached for
# this, only rows that the walk itself takes in are sure to be as they were.
OF_ROWS = f"""
SELECT d.key::text AS key, d.chunk_count, e.vector_id, e.content_hash, e.embedded_hash = e.content_hash AS embedded,
       CASE WHEN $3 THEN d.xmin <> pg_current_xact_id()::xid ELSE d.version > 1 END
           OR d.key IN (SELECT jsonb_array_elements({KEYS}) FROM attached_changes WHERE source_id = $1) AS changed
FROM documents d JOIN datasets s ON s.id = d.dataset_id
LEFT JOIN chunks c ON c.document_id = d.id AND d.chunk_count = 1 AND c.space_id IN (0, s.space_id)
LEFT JOIN embeddings e ON e.kind = 4 AND e.row_id = c.id AND e.space_id = s.space_id
WHERE d.uri = ANY($2) AND d.key IS NOT NULL AND s.source_id = $1
"""


@dataclass(frozen=True)
class VectorColumn:
    """A column of vectors, and the type that they are stored as: one of `WIDTHS`."""

    name: str
    type: str

    @property
    def sql(self) -> str:
        """Return the column of a row `r` as SQL."""
        return f"r.{quoted(self.name)}"


@dataclass(frozen=True)
class VectorsRead:
    """Vectors by key, `(n, dim) float32` in the order of `keys`; the others are `missing` or `unusable`, by `widths`."""

    keys: Sequence[Key]
    vectors: NDArray[np.float32]
    missing: int
    unusable: int
    widths: Counter[int | None]


@dataclass(frozen=True)
class Adoption:
    """Vectors of a `column` being given to the rows of an attachment, for a space, until all existing rows were walked.

    `fresh` says that the table was attached for it. Rows are counted: `adopted`, those of `several` chunks, those whose vector
    is `missing` or `unusable` (of another width, not finite, or zero), those that were `changed` since they were attached,
    and those that were `embedded` before.
    """

    column: str
    type: str
    space_id: int
    dimensions: int
    fresh: bool
    finished: bool = False
    adopted: int = 0
    several: int = 0
    missing: int = 0
    unusable: int = 0
    changed: int = 0
    embedded: int = 0

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> "Adoption | None":
        """Return what is being adopted, or was, from an attachment's cursor."""
        kept = cursor.get("adoption")
        return None if kept is None else cls(**kept)

    @property
    def source(self) -> VectorColumn:
        """Return where the vectors are."""
        return VectorColumn(self.column, self.type)


async def column(tx: ReadTx, table: AttachedTable, name: str) -> VectorColumn:
    """Return a column of vectors. Raises `SourceError` if there is none, or one of another type."""
    types = {row["name"]: row["type"] for row in await tx.fetch(TABLE_COLUMNS, table.oid)}
    where = f"Table {table.label}"
    if name not in types:
        raise SourceError(where=where, reason=f"--column names {name!r}; its columns are {', '.join(types)}.")
    home = await tx.fetchval(EXTENSION_SCHEMA)
    own = {
        await tx.fetchval("SELECT format('%I.%I', $1::text, $2::text)", home, one): one for one in ("vector", "halfvec")
    }
    type_ = own.get(types[name], types[name])
    if type_ not in WIDTHS:
        raise SourceError(
            where=where,
            reason=f"column {name!r} is of type {types[name]}; vectors are adopted from {', '.join(WIDTHS)}.",
        )
    return VectorColumn(name, type_)


async def count(tx: ReadTx, table: AttachedTable, given: VectorColumn) -> tuple[int, int]:
    """Return how many rows meet the attachment's condition, and how many of them have a value in the column."""
    row = await tx.fetchrow(
        f"SELECT count(*) AS rows, count({given.sql}) AS vectors FROM {relation(table)} r WHERE {_condition(table)}"
    )
    return (row["rows"], row["vectors"]) if row else (0, 0)


async def sample(tx: ReadTx, table: AttachedTable, given: VectorColumn, size: int) -> list[Key]:
    """Return the keys of rows with a vector, drawn at random."""
    rows = await tx.fetch(
        f"SELECT {json_of(table, 'r')}::text AS key FROM {relation(table)} r "
        f"WHERE {given.sql} IS NOT NULL AND {_condition(table)} ORDER BY random() LIMIT $1",
        size,
    )
    return [loads(row["key"]) for row in rows]


async def read(
    tx: ReadTx, table: AttachedTable, given: VectorColumn, dimensions: int, keys: Sequence[Key]
) -> VectorsRead:
    """Return the vectors of some rows that have the width of a space, are finite and not zero."""
    width, usable = (by_type[given.type].format(column=given.sql) for by_type in (WIDTHS, USABLE))
    value = f"{given.sql}::text::vector" if given.type == "jsonb" else f"{given.sql}::vector"
    async with reading(tx, table):
        rows = await tx.fetch(
            f"SELECT {json_of(table, 'r')}::text AS key, {given.sql} IS NULL AS missing, {width} AS width, "
            f"CASE WHEN {width} = {dimensions:d} THEN CASE WHEN {usable} THEN {value} END END AS vector "
            f"FROM {relation(table)} r WHERE {chosen(table)}",
            *texts(keys, len(table.key)),
        )
    found = [row for row in rows if row["vector"] is not None]
    read_vectors = vector_wire.unpack([row["vector"] for row in found], dimensions)
    valid = check_vectors(read_vectors, count=len(found), dimensions=dimensions, provider=table.label)
    missing = sum(row["missing"] for row in rows)
    return VectorsRead(
        [loads(row["key"]) for row, is_valid in zip(found, valid, strict=True) if is_valid],
        read_vectors[valid],
        missing,
        len(rows) - missing - int(valid.sum()),
        Counter(row["width"] for row in rows if not row["missing"]),
    )


async def save(tx: Tx, source_id: UUID, adoption: Adoption | None) -> None:
    """Save what is being adopted with the attachment; None ends it."""
    kept = None if adoption is None else asdict(adoption)
    await tx.execute(
        "UPDATE sources SET cursor = cursor || $2 WHERE id = $1", source_id, orjson.dumps({"adoption": kept}).decode()
    )


async def of(tx: ReadTx, source_id: UUID) -> Adoption | None:
    """Return what is being adopted for an attachment, or was."""
    cursor = await tx.fetchval("SELECT cursor FROM sources WHERE id = $1", source_id)
    return None if cursor is None else Adoption.of(orjson.loads(cursor))


@dataclass(frozen=True)
class _Pending:
    vector_id: int
    content_hash: bytes


async def adopt(tx: Tx, source_id: UUID, table: AttachedTable, adoption: Adoption, uris: Sequence[str]) -> Adoption:
    """Give rows that are one chunk, and have no vector yet, those of the column; return the counts so far.

    In the transaction that writes the chunks: then no worker ever sees them without a vector.
    """
    rows = await tx.fetch(OF_ROWS, source_id, list(uris), adoption.fresh)
    pending = {
        loads(row["key"]): _Pending(row["vector_id"], row["content_hash"])
        for row in rows
        if row["content_hash"] is not None and not row["embedded"] and not row["changed"]
    }
    written, found = set[int](), VectorsRead([], np.empty((0, adoption.dimensions), np.float32), 0, 0, Counter())
    if pending:
        found = await read(tx, table, adoption.source, adoption.dimensions, list(pending))
    if found.keys:
        hashed = [pending[key] for key in found.keys]
        written = await vectors.update_vectors_bulk(tx, adoption.space_id, hashed, found.vectors)
    return replace(
        adoption,
        adopted=adoption.adopted + len(written),
        several=adoption.several + sum(row["chunk_count"] > 1 for row in rows),
        missing=adoption.missing + found.missing,
        unusable=adoption.unusable + found.unusable,
        changed=adoption.changed
        + sum(row["changed"] and row["chunk_count"] == 1 and not row["embedded"] for row in rows),
        embedded=adoption.embedded + sum(bool(row["embedded"]) for row in rows),
    )


def _condition(table: AttachedTable) -> str:
    return f"({table.where}\n)" if table.where else "true"
