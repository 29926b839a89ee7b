"""Rows that wait for a batch job: marked, claimed, returned. Until their deadline they are not embedded online."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import rows
from evervec.store.embeddings.in_space import in_space
from evervec.store.embeddings.rows import (
    CLAIM_ROWS,
    CLAIMABLE,
    CLAIMABLE_NOW,
    DUE_FOR_BATCH,
    LOCK_CLAIMS_IN_ORDER,
    OF_DATASET,
    ClaimedRow,
)
from evervec.store.schema.embeddables import BY_KIND, Embeddable

TRIES = "(CASE WHEN w.content_hash = e.content_hash THEN w.batch_tries ELSE 0 END)"
MARKED = "(w.deferred AND w.content_hash = e.content_hash)"
FREE_FOR_BATCH = CLAIMABLE.format(due=DUE_FOR_BATCH)
# Checked before the limit is applied: a job takes a day, and for so long many rows with its text would fill every claim and
# keep the rows behind them from being sent.
NOT_IN_FLIGHT = (
    "NOT EXISTS (SELECT FROM embed_work o WHERE o.content_hash = e.content_hash AND o.vector_id <> e.vector_id "
    "AND o.lease_until > now() AND o.lease_owner <> $4 "
    "AND EXISTS (SELECT FROM embeddings s WHERE s.vector_id = o.vector_id AND s.space_id = {space}))"
)
CLAIM_FOR_BATCH = CLAIM_ROWS.format(
    scope=f"{OF_DATASET} AND {TRIES} = $6 AND (NOT $7 OR {MARKED}) AND {NOT_IN_FLIGHT}",
    free=FREE_FOR_BATCH,
    due=DUE_FOR_BATCH,
    for_batch=True,
)

# A row that is delayed after a failure, or leased, is not changed.
MARK = f"""
INSERT INTO embed_work AS w (vector_id, content_hash, deferred, not_before)
SELECT e.vector_id, e.content_hash, true, now() + $1 FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id
WHERE {{scope}} AND e.pending_id IS NOT NULL AND (w.vector_id IS NULL OR {CLAIMABLE_NOW})
ON CONFLICT (vector_id) DO UPDATE SET
    content_hash = EXCLUDED.content_hash, deferred = true, not_before = EXCLUDED.not_before,
    attempts = CASE WHEN w.content_hash = EXCLUDED.content_hash THEN w.attempts ELSE 0 END, batch_tries = 0,
    lease_owner = NULL, lease_until = NULL
"""
SEARCHED = "e.space_id = (SELECT s.space_id FROM datasets s WHERE s.id = e.dataset_id)"
"""Whether a record is of the space that is searched: the next one is filled by its build."""
MARK_IDS = MARK.format(scope=f"e.kind = $2 AND e.row_id = ANY($3) AND {SEARCHED}")
IN_SPACE = "e.space_id = coalesce({space}::integer, (SELECT s.space_id FROM datasets s WHERE s.id = e.dataset_id))"
MARK_DATASETS = MARK.format(
    scope=f"e.dataset_id = ANY($2) AND ($3::smallint IS NULL OR e.kind = $3) AND {IN_SPACE.format(space='$4')}"
)


async def mark(tx: Tx, embeddable: Embeddable, row_ids: Sequence[int], *, hours: float) -> int:
    """Let pending rows of a kind wait for a batch job for so many hours; return how many."""
    if not row_ids:
        return 0
    return _count(await tx.execute(MARK_IDS, timedelta(hours=hours), embeddable.kind, list(row_ids)))


async def mark_datasets(
    tx: Tx, dataset_ids: Sequence[UUID], *, kind: int | None = None, space_id: int | None = None, hours: float
) -> int:
    """Let all pending rows of some datasets that are not leased wait for a batch job; return how many.

    `space_id` None is the space that is searched.
    """
    return _count(await tx.execute(MARK_DATASETS, timedelta(hours=hours), list(dataset_ids), kind, space_id))


async def unmark(tx: Tx, dataset_ids: Sequence[UUID] | None = None) -> int:
    """Let rows that no job holds be embedded online again, in some datasets or all; return how many."""
    return _count(
        await tx.execute(
            "UPDATE embed_work w SET deferred = false, not_before = now() FROM embeddings e "
            "WHERE e.vector_id = w.vector_id AND w.deferred AND w.lease_owner IS NULL "
            "AND ($1::uuid[] IS NULL OR e.dataset_id = ANY($1))",
            None if dataset_ids is None else list(dataset_ids),
        )
    )


async def claim(
    tx: Tx,
    dataset_id: UUID,
    *,
    space_id: int,
    tries: int,
    limit: int,
    owner: UUID,
    lease: float,
    marked: bool = False,
) -> list[ClaimedRow]:
    """Lease rows of a dataset that are pending in a space for a job, oldest first; `tries` is how many jobs have returned them.

    With `marked` only those that were marked for a batch job, else whatever waits.
    """
    await tx.execute(LOCK_CLAIMS_IN_ORDER, dataset_id)
    picked = await tx.fetch(
        in_space(CLAIM_FOR_BATCH, space_id), dataset_id, None, limit, owner, timedelta(seconds=lease), tries, marked
    )
    return await rows.with_text(tx, picked, owner)


# A row that is returned once waits for a smaller job; the second time it is embedded online like any other.
RETURN_ROWS = """
UPDATE embed_work SET batch_tries = least(batch_tries + $4, 100), deferred = batch_tries + $4 < 2,
    not_before = CASE WHEN batch_tries + $4 < 2 THEN now() + $3 ELSE now() END,
    last_code = $5, last_error = $6, lease_owner = NULL, lease_until = NULL
WHERE lease_owner = $1 AND vector_id = ANY($2)
"""


async def return_rows(
    tx: Tx, job_id: UUID, vector_ids: Sequence[int], *, hours: float, online: bool, code: str, error: str
) -> None:
    """Release rows that a job could not do: first to a smaller job, then, or at once with `online`, to online."""
    await tx.execute(
        RETURN_ROWS, job_id, list(vector_ids), timedelta(hours=hours), 2 if online else 1, code, error[:500]
    )


async def extend_leases(tx: Tx, job_id: UUID, *, hours: float) -> int:
    """Extend the leases of all rows of a job to so many hours from now; return how many it still has."""
    return await rows.renew(tx, job_id, lease=hours * 3600)


WAITING_FOR_BATCH = f"""
SELECT e.dataset_id, count(*) AS pending FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id
WHERE e.pending_id IS NOT NULL AND e.dataset_id = ANY($1) AND e.space_id = $4 AND (w.vector_id IS NULL OR {FREE_FOR_BATCH}) AND {TRIES} = $2
  AND (NOT $3 OR {MARKED})
GROUP BY e.dataset_id ORDER BY pending, e.dataset_id
"""


async def waiting(
    tx: ReadTx, dataset_ids: Sequence[UUID], *, space_id: int, tries: int, marked: bool = False
) -> list[tuple[UUID, int]]:
    """Return `(dataset, rows of a space that a job could take)`, smallest first; `tries` and `marked` as in `claim`."""
    found = await tx.fetch(WAITING_FOR_BATCH, list(dataset_ids), tries, marked, space_id)
    return [(row["dataset_id"], row["pending"]) for row in found]


async def returned_rows(tx: ReadTx, *, limit: int) -> dict[int, list[int]]:
    """Return rows that jobs have returned for the last time, `{kind: row ids}`: they are to be embedded online.

    Those of a space that is built beside the one that is searched are embedded by its build.
    """
    found = await tx.fetch(
        f"SELECT e.kind, e.row_id FROM embed_work w JOIN embeddings e USING (vector_id) WHERE {SEARCHED} AND w.batch_tries >= 2 "
        "AND w.content_hash = e.content_hash AND w.lease_owner IS NULL AND w.not_before <= now() "
        "AND e.pending_id IS NOT NULL ORDER BY e.vector_id LIMIT $1",
        limit,
    )
    kinds: dict[int, list[int]] = {}
    for row in found:
        kinds.setdefault(row["kind"], []).append(row["row_id"])
    return kinds


COPYABLE = f"""
SELECT e.vector_id, e.content_hash, e.dataset_id FROM embed_work w JOIN embeddings e USING (vector_id)
WHERE w.deferred AND e.pending_id IS NOT NULL AND e.space_id = $1 AND {FREE_FOR_BATCH}
  AND EXISTS (SELECT FROM embeddings o WHERE o.embedded_hash = e.content_hash AND o.space_id = $1)
ORDER BY e.vector_id LIMIT $2
"""


@dataclass(frozen=True)
class CopyableRow:
    """A row that waits for a batch job although another row has the vector of its text."""

    vector_id: int
    content_hash: bytes
    dataset_id: UUID


async def waiting_spaces(tx: ReadTx) -> list[int]:
    """Return the spaces in which rows wait for a batch job."""
    rows = await tx.fetch(
        "SELECT DISTINCT e.space_id FROM embed_work w JOIN embeddings e USING (vector_id) WHERE w.deferred ORDER BY 1"
    )
    return [row["space_id"] for row in rows]


async def copyable(tx: ReadTx, space_id: int, *, limit: int) -> list[CopyableRow]:
    """Return rows that wait for a batch job although their vector can be copied by now."""
    return [CopyableRow(**row) for row in await tx.fetch(COPYABLE, space_id, limit)]


async def characters(tx: ReadTx, dataset_ids: Sequence[UUID], *, space_id: int, marked: bool = False) -> int:
    """Estimate how many characters wait in a space of some datasets, for a plan of tokens; `marked` as in `claim`."""
    total = 0
    for embeddable in BY_KIND.values():
        total += await tx.fetchval(
            f"SELECT coalesce(sum(length({embeddable.text})), 0)::bigint FROM embeddings e "
            f"JOIN {embeddable.table} r ON r.{embeddable.key} = e.row_id LEFT JOIN embed_work w ON w.vector_id = e.vector_id "
            "WHERE e.kind = $1 AND e.pending_id IS NOT NULL AND e.dataset_id = ANY($2) "
            f"AND (w.vector_id IS NULL OR {FREE_FOR_BATCH}) AND {TRIES} = 0 AND (NOT $3 OR {MARKED}) AND e.space_id = $4",
            embeddable.kind,
            list(dataset_ids),
            marked,
            space_id,
        )
    return total


async def summary(tx: ReadTx) -> dict[str, int]:
    """Count `jobs` that are not finished, `rows` in them, and rows `waiting` to be sent."""
    row = await tx.fetchrow(
        "SELECT (SELECT count(*) FROM batch_jobs WHERE finished_at IS NULL) AS jobs, "
        "(SELECT count(*) FROM batch_items i JOIN batch_jobs j ON j.id = i.job_id WHERE j.finished_at IS NULL) AS rows, "
        "(SELECT count(*) FROM embed_work WHERE deferred AND not_before > now() AND lease_owner IS NULL) AS waiting"
    )
    assert row is not None  # an aggregate always has a row
    return dict(row)


def _count(tag: str) -> int:
    return int(tag.rsplit(" ", 1)[-1])


async def datasets_of(tx: ReadTx, job_id: UUID) -> dict[UUID | None, int]:
    """Count the rows of a job by dataset; rows that are gone meanwhile belong to none."""
    found = await tx.fetch(
        "SELECT e.dataset_id, count(*) AS rows FROM batch_items i LEFT JOIN embeddings e ON e.vector_id = i.vector_id "
        "WHERE i.job_id = $1 GROUP BY 1 ORDER BY 1",
        job_id,
    )
    return {row["dataset_id"]: row["rows"] for row in found}
