"""Read-only counts for every user interface: status, doctor, dashboard."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from evervec.errors import TooLargeError
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import changes
from evervec.store.schema.embeddables import BY_KIND, EMBEDDABLES, Embeddable
from evervec.store.schema.predicates import PENDING


@dataclass
class Coverage:
    """Rows by state. `rows` = embedded + pending + failed + empty."""

    rows: int = 0
    embedded: int = 0
    pending: int = 0
    failed: int = 0
    empty: int = 0

    def add(self, other: "Coverage") -> None:
        """Add another coverage to this one."""
        for name in ("rows", "embedded", "pending", "failed", "empty"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class DatasetCoverage(Coverage):
    """The coverage of one dataset, in total and by kind."""

    kinds: dict[str, Coverage] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A text that could not be embedded, or a message that could not be extracted, with the reason."""

    kind: str
    id: int
    dataset: str
    code: str
    reason: str
    text: str


@dataclass(frozen=True)
class LongText:
    """A text that is longer than the model takes: embedded in that many `windows`, or refused, with the reason."""

    kind: str
    id: int
    dataset: str
    windows: int | None
    reason: str | None
    text: str


CURRENT = "embeddings e JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id"
"""The records of the spaces that are searched."""

COVERAGE = f"""
SELECT e.dataset_id, e.kind, count(*) AS rows,
       count(*) FILTER (WHERE e.content_hash IS NULL) AS empty,
       count(*) FILTER (WHERE e.embedded_hash = e.content_hash) AS embedded,
       count(*) FILTER (WHERE {PENDING}) AS pending
FROM {CURRENT} WHERE e.dataset_id = ANY($1) GROUP BY e.dataset_id, e.kind ORDER BY e.kind
"""


async def coverage(tx: ReadTx, dataset_ids: Sequence[UUID]) -> dict[UUID, DatasetCoverage]:
    """Return the coverage of each dataset."""
    found = {dataset_id: DatasetCoverage() for dataset_id in dataset_ids}
    for row in await tx.fetch(COVERAGE, list(dataset_ids)):
        failed = row["rows"] - row["empty"] - row["embedded"] - row["pending"]
        counts = Coverage(row["rows"], row["embedded"], row["pending"], failed, row["empty"])
        found[row["dataset_id"]].kinds[BY_KIND[row["kind"]].name] = counts
        found[row["dataset_id"]].add(counts)
    return found


# what failed in the space that is searched, and what failed only in one that is built beside it or kept
FAILED_SOMEWHERE = """
(e.space_id = d.space_id
 OR (EXISTS (SELECT FROM dataset_spaces o WHERE o.dataset_id = d.id AND o.space_id = e.space_id AND o.state <> 'dropped')
     AND NOT EXISTS (SELECT FROM embeddings c WHERE c.kind = e.kind AND c.row_id = e.row_id AND c.space_id = d.space_id
                     AND c.failed_hash = c.content_hash)))
"""
ONLY_IN = """
CASE WHEN e.space_id <> d.space_id
     THEN (SELECT format(' (in %s/%s, which is not searched)', s.provider, s.model) FROM embedding_spaces s WHERE s.id = e.space_id)
     ELSE '' END
"""


def failed_sql(embeddable: Embeddable) -> str:
    """Return the query for failed rows of a kind: `$1` dataset ids, `$2` the limit."""
    return f"""
        SELECT e.row_id, d.slug, coalesce(w.last_code, 'unknown') AS code,
               coalesce(w.last_error, 'given up on by hand') || {ONLY_IN} AS reason, left({embeddable.text}, 200) AS text
        FROM embeddings e JOIN datasets d ON d.id = e.dataset_id AND {FAILED_SOMEWHERE}
        JOIN {embeddable.table} r ON r.{embeddable.key} = e.row_id
        LEFT JOIN embed_work w ON w.vector_id = e.vector_id
        WHERE e.failed_hash = e.content_hash AND e.kind = {embeddable.kind} AND e.dataset_id = ANY($1)
        ORDER BY e.dataset_id, e.vector_id LIMIT $2
    """


async def failures(
    tx: ReadTx, dataset_ids: Sequence[UUID], *, kind: str | None = None, most: int = 100
) -> list[Failure]:
    """Return failed texts, oldest first, and messages that could not be scored or extracted."""
    found: list[Failure] = []
    for embeddable in (embeddable for embeddable in EMBEDDABLES if kind in (None, embeddable.name)):
        rows = await tx.fetch(failed_sql(embeddable), list(dataset_ids), most)
        found += [Failure(embeddable.name, *row) for row in rows]
    if kind in (None, "extraction"):
        found += await _unextracted(tx, dataset_ids, most)
    return found[:most]


def long_sql(embeddable: Embeddable) -> str:
    """Return the query for rows of a kind with long texts: `$1` dataset ids, `$2` the limit, `$3` the code of a refusal."""
    columns = f"e.row_id, d.slug, e.windows, e.dataset_id, e.vector_id, left({embeddable.text}, 200) AS text"
    rows = f"FROM {CURRENT} JOIN {embeddable.table} r ON r.{embeddable.key} = e.row_id"
    chosen = f"e.kind = {embeddable.kind} AND e.dataset_id = ANY($1)"
    return f"""
        SELECT row_id, slug, windows, reason, text FROM (
            (SELECT {columns}, NULL AS reason {rows}
             WHERE {chosen} AND e.windows IS NOT NULL AND e.embedded_hash = e.content_hash
             ORDER BY e.dataset_id, e.vector_id LIMIT $2)
            UNION ALL
            (SELECT {columns}, w.last_error {rows} JOIN embed_work w ON w.vector_id = e.vector_id
             WHERE {chosen} AND e.failed_hash = e.content_hash AND w.last_code = $3
             ORDER BY e.dataset_id, e.vector_id LIMIT $2)
        ) found ORDER BY dataset_id, vector_id LIMIT $2
    """


async def long_texts(tx: ReadTx, dataset_ids: Sequence[UUID], *, most: int = 100) -> list[LongText]:
    """Return rows whose text is longer than the model takes, oldest first, by kind."""
    found: list[LongText] = []
    for embeddable in EMBEDDABLES:
        rows = await tx.fetch(long_sql(embeddable), list(dataset_ids), most, TooLargeError.code)
        found += [LongText(embeddable.name, *row) for row in rows]
    return found[:most]


async def _unextracted(tx: ReadTx, dataset_ids: Sequence[UUID], most: int) -> list[Failure]:
    rows = await tx.fetch(
        "SELECT m.id, d.slug, w.last_code, w.last_error, left(m.content, 200) FROM extract_work w "
        "JOIN messages m ON m.id = w.message_id AND m.revision = w.revision JOIN datasets d ON d.id = m.dataset_id "
        "WHERE w.dead_at IS NOT NULL AND m.dataset_id = ANY($1) ORDER BY m.id LIMIT $2",
        list(dataset_ids),
        most,
    )
    return [Failure("extraction", *row) for row in rows]


async def watermark(tx: ReadTx) -> str:
    """Return the transaction id below which every transaction has ended."""
    return str((await changes.watermark(tx)).xmin)


# dataset by dataset, so that no record of a space is read that is only being filled: that may be each row once more
PENDING_ROWS = f"""
FROM datasets d CROSS JOIN LATERAL (
    SELECT {{found}} FROM embeddings e
    WHERE e.dataset_id = d.id AND e.space_id = d.space_id AND e.{PENDING} {{more}}
) waiting WHERE $1::uuid[] IS NULL OR d.id = ANY($1)
"""
PENDING_IN = f"SELECT coalesce(sum(waiting.rows), 0)::bigint {PENDING_ROWS.format(found='count(*) AS rows', more='')}"
PENDING_AT = (
    f"SELECT EXISTS (SELECT {PENDING_ROWS.format(found='1', more='AND e.changed_xid <= $2::text::xid8 LIMIT 1')})"
)


async def pending(tx: ReadTx, dataset_ids: Sequence[UUID] | None) -> int:
    """Count the rows that wait for a vector in some datasets, or in all."""
    found: int = await tx.fetchval(PENDING_IN, None if dataset_ids is None else list(dataset_ids))
    return found


async def pending_at(tx: ReadTx, dataset_ids: Sequence[UUID], xid: int) -> bool:
    """Return whether a row that existed when a transaction committed still waits for a vector in some datasets."""
    found: bool = await tx.fetchval(PENDING_AT, list(dataset_ids), str(xid))
    return found


async def count_without_vector(tx: ReadTx) -> tuple[int, int]:
    """Return `(rows with text, those of them whose embedding is NULL or of an older text)`."""
    row = await tx.fetchrow(
        "SELECT count(*) AS with_text, count(*) FILTER (WHERE embedded_hash IS DISTINCT FROM content_hash) AS missing "
        f"FROM {CURRENT} WHERE e.content_hash IS NOT NULL"
    )
    return (0, 0) if row is None else (row["with_text"], row["missing"])
