"""Rows that wait to be embedded: claim with a lease, renew, release, back off, fail, retry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings.in_space import in_space
from evervec.store.schema.embeddables import BY_KIND, Embeddable
from evervec.store.schema.predicates import PENDING


@dataclass(frozen=True)
class ClaimedRow:
    """A row under lease; `content_hash` is the digest of `text`, `last_code` what it failed with before."""

    vector_id: int
    kind: int
    row_id: int
    dataset_id: UUID
    content_hash: bytes
    attempts: int
    text: str
    last_code: str | None = None


# A delayed row is due after `not_before`; a job may also take a row that is delayed only because it waits for a job.
DUE = "w.not_before <= now()"
DUE_FOR_BATCH = "(w.deferred OR w.not_before <= now())"

# A row can be claimed if it has no lease, if its lease expired, or if its text changed since it was leased.
CLAIMABLE = "(w.content_hash <> e.content_hash OR ({due} AND (w.lease_until IS NULL OR w.lease_until < now())))"
CLAIMABLE_NOW = CLAIMABLE.format(due=DUE)

CLAIM_ROWS = """
WITH picked AS (
    SELECT e.vector_id, e.kind, e.row_id, e.dataset_id, e.content_hash
    FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id
    WHERE {scope} AND e.space_id = {{space}} AND e.pending_id IS NOT NULL AND (w.vector_id IS NULL OR {free})
      AND EXISTS (SELECT FROM datasets d JOIN projects p ON p.id = d.project_id
                  WHERE d.id = e.dataset_id AND d.deleted_at IS NULL AND p.deleted_at IS NULL)
    -- oldest first, so that no row starves
    ORDER BY e.pending_id LIMIT $3
    FOR UPDATE OF e SKIP LOCKED
), leased AS (
    INSERT INTO embed_work AS w (vector_id, content_hash, lease_owner, lease_until, deferred)
    SELECT vector_id, content_hash, $4, now() + $5, {for_batch} FROM picked p
    -- a text that another worker embeds now is not sent a second time, its vector is copied later; but online embedding
    -- does not wait a day for a batch job. Checked for the picked rows alone, since many rows may wait
    WHERE NOT EXISTS (SELECT FROM embed_work o WHERE o.content_hash = p.content_hash AND o.vector_id <> p.vector_id
                      AND o.lease_until > now() AND o.lease_owner <> $4 AND o.deferred <= {for_batch}
                      AND EXISTS (SELECT FROM embeddings s WHERE s.vector_id = o.vector_id AND s.space_id = {{space}}))
    ON CONFLICT (vector_id) DO UPDATE SET
        content_hash = EXCLUDED.content_hash, lease_owner = EXCLUDED.lease_owner, lease_until = EXCLUDED.lease_until,
        -- a lease that expired means that its owner died: that counts as a failure, since the text may crash workers
        attempts = CASE WHEN w.content_hash = EXCLUDED.content_hash
                        THEN w.attempts + (w.lease_until IS NOT NULL)::int ELSE 0 END,
        -- delays and errors belong to a text, not to the row: another text starts without them
        not_before = CASE WHEN w.content_hash = EXCLUDED.content_hash THEN w.not_before ELSE now() END,
        last_code = CASE WHEN w.content_hash = EXCLUDED.content_hash THEN w.last_code END,
        last_error = CASE WHEN w.content_hash = EXCLUDED.content_hash THEN w.last_error END,
        deferred = EXCLUDED.deferred,
        batch_tries = CASE WHEN w.content_hash = EXCLUDED.content_hash THEN w.batch_tries ELSE 0 END
    -- another claim may have come between our snapshot and this insert
    WHERE w.content_hash <> EXCLUDED.content_hash
       OR ({due} AND (w.lease_until IS NULL OR w.lease_until < now()))
    RETURNING vector_id, attempts, last_code
)
SELECT p.vector_id, p.kind, p.row_id, p.dataset_id, p.content_hash, l.attempts, l.last_code
FROM leased l JOIN picked p USING (vector_id) ORDER BY p.vector_id
"""


OF_DATASET = "e.dataset_id = $1 AND ($2::smallint IS NULL OR e.kind = $2)"
OF_IDS = "e.kind = $1 AND e.row_id = ANY($2) AND e.dataset_id = $6"
CLAIM_IDS = CLAIM_ROWS.format(scope=OF_IDS, free=CLAIMABLE_NOW, due=DUE, for_batch=False)
CLAIM_DATASET = CLAIM_ROWS.format(scope=OF_DATASET, free=CLAIMABLE_NOW, due=DUE, for_batch=False)


# One claim at a time in a dataset: two concurrent ones could not see that they take the same text. And a custom plan each
# time: one that was cached while no row was leased takes seconds once thousands are.
LOCK_CLAIMS = """
SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 2)), set_config('plan_cache_mode', 'force_custom_plan', true)
"""

# Those of a dataset are taken by the order of their index: while the statistics do not know yet that a hundred thousand rows
# have come, the planner would collect and sort all of them for each claim.
LOCK_CLAIMS_IN_ORDER = f"{LOCK_CLAIMS.rstrip()}, set_config('enable_sort', 'off', true)"


async def datasets_of(tx: ReadTx, embeddable: Embeddable, row_ids: Sequence[int]) -> dict[UUID, list[int]]:
    """Return some rows of a kind by the dataset that they are in."""
    found = await tx.fetch(
        f"SELECT r.{embeddable.dataset}, array_agg(r.{embeddable.key}) FROM {embeddable.table} r "
        f"WHERE r.{embeddable.key} = ANY($1) GROUP BY 1 ORDER BY 1",
        list(row_ids),
    )
    return {row[0]: row[1] for row in found}


async def claim_ids(
    tx: Tx,
    dataset_id: UUID,
    embeddable: Embeddable,
    row_ids: Sequence[int],
    *,
    space_id: int,
    limit: int,
    owner: UUID,
    lease: float,
) -> list[ClaimedRow]:
    """Lease those of the given rows of a dataset that are pending in a space and free, for `lease` seconds."""
    await tx.execute(LOCK_CLAIMS, dataset_id)
    picked = await tx.fetch(
        in_space(CLAIM_IDS, space_id),
        embeddable.kind,
        list(row_ids),
        limit,
        owner,
        timedelta(seconds=lease),
        dataset_id,
    )
    return await with_text(tx, picked, owner)


async def claim_dataset(
    tx: Tx, dataset_id: UUID, *, space_id: int, kind: int | None = None, limit: int, owner: UUID, lease: float
) -> list[ClaimedRow]:
    """Lease up to `limit` rows of a dataset that are pending in a space, oldest first, for `lease` seconds."""
    await tx.execute(LOCK_CLAIMS_IN_ORDER, dataset_id)
    picked = await tx.fetch(in_space(CLAIM_DATASET, space_id), dataset_id, kind, limit, owner, timedelta(seconds=lease))
    return await with_text(tx, picked, owner)


async def with_text(tx: Tx, picked: Sequence[Mapping[str, Any]], owner: UUID) -> list[ClaimedRow]:
    """Return leased rows with their texts.

    A row whose text does not match its digest is released: it was edited meanwhile, or while the trigger was disabled.
    """
    texts: dict[tuple[int, int], str] = {}
    for kind in {row["kind"] for row in picked}:
        embeddable = BY_KIND[kind]
        ids = [row["row_id"] for row in picked if row["kind"] == kind]
        found = await tx.fetch(
            f"SELECT r.{embeddable.key}, {embeddable.text} FROM {embeddable.table} r WHERE r.{embeddable.key} = ANY($1)",
            ids,
        )
        texts.update({(kind, row[0]): row[1] for row in found})
    claimed: list[ClaimedRow] = []
    strays: list[int] = []
    for row in picked:
        text = texts.get((row["kind"], row["row_id"]))
        if text is not None and sha256(text.encode()).digest() == row["content_hash"]:
            claimed.append(ClaimedRow(**row, text=text))
        else:
            strays.append(row["vector_id"])
    if strays:
        await release(tx, owner, strays)
    return claimed


async def renew(tx: Tx, owner: UUID, *, lease: float) -> int:
    """Extend every lease of an owner, and return how many it still holds."""
    tag = await tx.execute(
        "UPDATE embed_work SET lease_until = now() + $2 WHERE lease_owner = $1", owner, timedelta(seconds=lease)
    )
    return int(tag.rsplit(" ", 1)[-1])


async def release(tx: Tx, owner: UUID, vector_ids: Sequence[int]) -> None:
    """Release rows as they were: no failure is counted."""
    await tx.execute(
        "DELETE FROM embed_work WHERE lease_owner = $1 AND vector_id = ANY($2) AND last_error IS NULL AND attempts = 0 "
        "AND NOT deferred AND batch_tries = 0",
        owner,
        list(vector_ids),
    )
    await tx.execute(
        "UPDATE embed_work SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = $1 AND vector_id = ANY($2)",
        owner,
        list(vector_ids),
    )


async def back_off(tx: Tx, owner: UUID, vector_id: int, *, delay: float, code: str, error: str) -> None:
    """Count a failure against one row and delay it by `delay` seconds."""
    await tx.execute(
        "UPDATE embed_work SET attempts = attempts + 1, not_before = now() + $3, last_code = $4, last_error = $5, "
        "lease_owner = NULL, lease_until = NULL WHERE lease_owner = $1 AND vector_id = $2",
        owner,
        vector_id,
        timedelta(seconds=delay),
        code,
        error,
    )


@dataclass(frozen=True)
class FailedRow:
    """A row whose text can not be embedded, and why."""

    vector_id: int
    content_hash: bytes
    code: str
    error: str


GIVE_UP = """
WITH given AS (
    SELECT * FROM unnest($2::bigint[], $3::bytea[], $4::text[], $5::text[]) AS t (vector_id, hash, code, error)
), marked AS (
    UPDATE embeddings e SET failed_hash = e.content_hash FROM given t
    WHERE e.vector_id = t.vector_id AND e.vector_id = ANY($2) AND e.content_hash = t.hash AND e.pending_id IS NOT NULL
      AND EXISTS (SELECT FROM embed_work w WHERE w.vector_id = e.vector_id AND w.lease_owner = $1)
    RETURNING e.vector_id
)
UPDATE embed_work w SET attempts = w.attempts + 1, not_before = now(), last_code = t.code, last_error = t.error,
    lease_owner = NULL, lease_until = NULL, deferred = false
FROM given t WHERE w.vector_id = t.vector_id AND t.vector_id IN (SELECT vector_id FROM marked) AND w.lease_owner = $1
"""


async def give_up(tx: Tx, owner: UUID, given_up: Sequence[FailedRow]) -> int:
    """Mark texts as failed, if the owner still leases them; return how many.

    Another text in the same row, or `retry`, makes the row pending again.
    """
    if not given_up:
        return 0
    tag = await tx.execute(
        GIVE_UP,
        owner,
        [one.vector_id for one in given_up],
        [one.content_hash for one in given_up],
        [one.code for one in given_up],
        [one.error for one in given_up],
    )
    return int(tag.rsplit(" ", 1)[-1])


async def retry(tx: Tx, dataset_ids: Sequence[UUID], *, row: tuple[int, int] | None = None) -> int:
    """Make failed rows pending again, all of the datasets or one `(kind, row id)`; return how many."""
    reopened = await tx.fetch(
        REOPEN_FAILED.format(verb="SET failed_hash = NULL"), list(dataset_ids), *(row or (None, None))
    )
    ids = [r["vector_id"] for r in reopened]
    await tx.execute("DELETE FROM embed_work WHERE vector_id = ANY($1)", ids)
    return len(ids)


async def discard(tx: Tx, dataset_ids: Sequence[UUID], *, row: tuple[int, int] | None = None) -> int:
    """Stop counting failed rows as failures: they count as empty until their text changes. Return how many.

    The digest stays in `failed_hash`, so that `populate` does not take the same text for a new one.
    """
    dropped = await tx.fetch(
        REOPEN_FAILED.format(verb="SET content_hash = NULL"), list(dataset_ids), *(row or (None, None))
    )
    ids = [r["vector_id"] for r in dropped]
    await tx.execute("DELETE FROM embed_work WHERE vector_id = ANY($1)", ids)
    return len(ids)


REOPEN_FAILED = (
    # in every space of the dataset: what failed for one may fail for another
    "UPDATE embeddings {verb} WHERE failed_hash = content_hash AND dataset_id = ANY($1) "
    "AND ($2::smallint IS NULL OR (kind = $2 AND row_id = $3)) RETURNING vector_id"
)

COUNT_WAITING = f"""
SELECT count(*) FILTER (WHERE w.vector_id IS NULL OR {CLAIMABLE_NOW}) AS free, count(*) AS pending
FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id
WHERE e.dataset_id = $1 AND e.space_id = {{space}} AND e.pending_id IS NOT NULL
"""


async def waiting(tx: ReadTx, dataset_id: UUID, space_id: int) -> tuple[int, int]:
    """Return `(free, pending)`: rows of a dataset in a space that could be claimed now, and all pending ones."""
    row = await tx.fetchrow(in_space(COUNT_WAITING, space_id), dataset_id)
    return (0, 0) if row is None else (row["free"], row["pending"])


LIVE_ROWS_WAIT = f"""
SELECT EXISTS (
    -- dataset by dataset: while a space is filled, every row of it waits, and none of those is asked for here
    SELECT FROM datasets d CROSS JOIN LATERAL (
        SELECT FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id
        WHERE e.dataset_id = d.id AND e.space_id = d.space_id AND e.pending_id IS NOT NULL
          AND (w.vector_id IS NULL OR {CLAIMABLE_NOW}) LIMIT 1
    ) waiting WHERE d.deleted_at IS NULL
)
"""


async def live_rows_wait(tx: ReadTx) -> bool:
    """Return whether a row could be claimed that people search, and not one of a space that is being filled."""
    return bool(await tx.fetchval(LIVE_ROWS_WAIT))


PENDING_BY_KIND = f"SELECT kind, count(*) AS pending FROM embeddings WHERE dataset_id = $1 AND space_id = {{space}} AND {PENDING} GROUP BY kind"


async def pending_by_kind(tx: ReadTx, dataset_id: UUID, space_id: int) -> dict[int, int]:
    """Count the rows of a dataset that are pending in a space, by kind."""
    return {row["kind"]: row["pending"] for row in await tx.fetch(in_space(PENDING_BY_KIND, space_id), dataset_id)}
