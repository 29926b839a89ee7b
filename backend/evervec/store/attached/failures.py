"""Rows of attached tables that have no document because they can not be read: recorded with the reason, retried, discarded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from evervec.domain.attachment import Key
from evervec.store.database.session import ReadTx, Tx


@dataclass(frozen=True)
class RowFailure:
    """A row that can not be read. `table` is the name under which its table was attached, `dataset` None if not known."""

    id: int
    table: str
    dataset: str | None
    key: Key
    reason: str


OF_DATASETS = "($1::uuid[] IS NULL OR f.dataset_id = ANY($1)) AND ($2::bigint IS NULL OR f.id = $2)"
"""Which failures are meant: those of some datasets, or of all, also those without one; or a single one of them."""


async def record(tx: Tx, source_id: UUID, failed: Mapping[Key, tuple[UUID | None, str]]) -> None:
    """Record why rows can not be read, with the dataset of each if it is known."""
    await tx.execute(
        "INSERT INTO attached_failures AS f (source_id, key, dataset_id, reason) "
        "SELECT $1, n.* FROM unnest($2::jsonb[], $3::uuid[], $4::text[]) n "
        "ON CONFLICT (source_id, key) DO UPDATE SET dataset_id = EXCLUDED.dataset_id, reason = EXCLUDED.reason, failed_at = now() "
        "WHERE (f.dataset_id, f.reason) IS DISTINCT FROM (EXCLUDED.dataset_id, EXCLUDED.reason)",
        source_id,
        [_json(key) for key in failed],
        [dataset_id for dataset_id, _ in failed.values()],
        [reason for _, reason in failed.values()],
    )


async def clear(tx: Tx, source_id: UUID, keys: Sequence[Key]) -> None:
    """Forget the failures of rows that can be read, or that are gone."""
    await tx.execute(
        "DELETE FROM attached_failures WHERE source_id = $1 AND key = ANY($2::jsonb[])",
        source_id,
        list(map(_json, keys)),
    )


async def clear_all(tx: Tx, source_id: UUID) -> None:
    """Forget all failures of an attachment, whose rows are all read again."""
    await tx.execute("DELETE FROM attached_failures WHERE source_id = $1", source_id)


async def listed(tx: ReadTx, dataset_ids: Collection[UUID] | None, *, limit: int) -> list[RowFailure]:
    """Return the failed rows of some datasets, or of all, oldest first."""
    rows = await tx.fetch(
        "SELECT f.id, s.name, d.slug, f.key, f.reason FROM attached_failures f JOIN sources s ON s.id = f.source_id "
        f"LEFT JOIN datasets d ON d.id = f.dataset_id WHERE {OF_DATASETS} ORDER BY f.id LIMIT $3",
        _ids(dataset_ids),
        None,
        limit,
    )
    return [RowFailure(row[0], row[1], row[2], tuple(orjson.loads(row[3])), row[4]) for row in rows]


async def counts(tx: ReadTx, source_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return how many rows of each attachment failed; one without failures is left out."""
    rows = await tx.fetch(
        "SELECT source_id, count(*) AS count FROM attached_failures WHERE source_id = ANY($1) GROUP BY source_id",
        list(source_ids),
    )
    return {row["source_id"]: row["count"] for row in rows}


async def counts_of_datasets(tx: ReadTx, dataset_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return how many rows of each dataset failed; one without failures is left out."""
    rows = await tx.fetch(
        "SELECT dataset_id, count(*) AS count FROM attached_failures WHERE dataset_id = ANY($1) GROUP BY dataset_id",
        list(dataset_ids),
    )
    return {row["dataset_id"]: row["count"] for row in rows}


async def retry(tx: Tx, dataset_ids: Collection[UUID] | None, *, failure_id: int | None = None) -> int:
    """Let failed rows be read again: forget the failures, and write change records; return how many."""
    count: int = await tx.fetchval(
        f"WITH f AS (DELETE FROM attached_failures f WHERE {OF_DATASETS} RETURNING source_id, key), "
        "w AS (INSERT INTO attached_changes (source_id, key) SELECT source_id, key FROM f) SELECT count(*) FROM f",
        _ids(dataset_ids),
        failure_id,
    )
    return count


async def discard(tx: Tx, dataset_ids: Collection[UUID] | None, *, failure_id: int | None = None) -> int:
    """Forget failures until their rows change; return how many."""
    tag = await tx.execute(f"DELETE FROM attached_failures f WHERE {OF_DATASETS}", _ids(dataset_ids), failure_id)
    return int(tag.rsplit(" ", 1)[-1])


def _ids(dataset_ids: Collection[UUID] | None) -> list[UUID] | None:
    return None if dataset_ids is None else list(dataset_ids)


def _json(key: Key) -> str:
    return orjson.dumps(key).decode()
