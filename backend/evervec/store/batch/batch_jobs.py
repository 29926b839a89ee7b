"""Jobs of a provider's batch API: the intent, saved before anything is sent, and the rows still without an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from evervec.domain.batch import DISCOUNT, TAG, JobStatus, JobType
from evervec.domain.spending import cost
from evervec.domain.text import clean
from evervec.errors import Refused, UnknownBatchJobError
from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import rows
from evervec.store.embeddings.rows import ClaimedRow

JOB_COUNTS = ("rows", "texts", "ready", "failed", "dropped", "returned", "strays")
"""The counters in `stats`: rows in the job and texts sent for them; rows that got a vector, that failed, that changed or
vanished meanwhile, that went back to the queue; lines of the answer with an unknown key. See also `InputFileSize`."""

JOB_SIZES = ("tokens", "reserved_tokens", "bytes")


@dataclass(frozen=True)
class BatchJobRecord:
    """One job: `id` is the intent, which everything at the provider carries, `said` the provider's last word on its state."""

    id: UUID
    external_id: str | None
    job_type: JobType
    status: JobStatus
    created_at: datetime
    updated_at: datetime
    provider_id: UUID | None
    space_id: int | None
    model: str
    input_file: str | None
    stats: Mapping[str, int]
    listings: int
    usd_per_million_tokens: float | None
    said: str | None
    error: str | None
    submitting_at: datetime | None
    submitted_at: datetime | None
    deadline: datetime | None
    finished_at: datetime | None
    cleaned_at: datetime | None
    budget_tokens: int | None
    late: bool

    @property
    def cost_usd(self) -> float | None:
        """Return the cost of the job in dollars, by its estimated tokens; None if no price is known."""
        online = cost(self.stats["tokens"], self.usd_per_million_tokens)
        return None if online is None else online * DISCOUNT


JOB_FIELDS = tuple(f.name for f in fields(BatchJobRecord) if f.name not in ("stats", "late"))
JOB_COLUMNS = f"{', '.join((*JOB_FIELDS, *JOB_COUNTS, *JOB_SIZES))}, coalesce(deadline < now(), false) AS late"


@dataclass(frozen=True)
class JobRow:
    """A row in a job, with the digest of the text that was sent under `key`."""

    vector_id: int
    key: str
    content_hash: bytes
    dataset_id: UUID | None = None


def _job(row: Mapping[str, Any]) -> BatchJobRecord:
    values = dict(row)
    stats = {name: values.pop(name) for name in (*JOB_COUNTS, *JOB_SIZES)}
    job_type, status = JobType(values.pop("job_type")), JobStatus(values.pop("status"))
    return BatchJobRecord(**values, job_type=job_type, status=status, stats=stats)


TAG_SQL = """
SELECT c.system_identifier::text || '/' || p.timeline_id::text || '/' || d.oid::text
FROM pg_control_system() c, pg_control_checkpoint() p, pg_database d
WHERE d.datname = current_database()
"""


async def database_tag(tx: ReadTx) -> bytes:
    """Return four bytes that this database's intents begin with: other databases may use the same API key."""
    return sha256(str(await tx.fetchval(TAG_SQL)).encode()).digest()[:TAG]


async def add(
    tx: Tx,
    job_id: UUID,
    job_type: JobType,
    *,
    provider_id: UUID,
    space_id: int | None,
    model: str,
    price: float | None,
    hours: float,
) -> None:
    """Save an intent before anything is sent; it must be sent within `hours`. An existing one stays as it is."""
    await tx.execute(
        "INSERT INTO batch_jobs (id, job_type, provider_id, space_id, model, usd_per_million_tokens, deadline) "
        "VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)) ON CONFLICT (id) DO NOTHING",
        job_id,
        job_type,
        provider_id,
        space_id,
        model,
        price,
        hours * 3600,
    )


async def by_id(tx: ReadTx, job_id: UUID) -> BatchJobRecord:
    """Return a job. Raises `UnknownBatchJobError`."""
    row = await tx.fetchrow(f"SELECT {JOB_COLUMNS} FROM batch_jobs WHERE id = $1", job_id)
    if row is None:
        raise UnknownBatchJobError(job=str(job_id))
    return _job(row)


async def find(tx: ReadTx, name: str) -> BatchJobRecord:
    """Return a job by its id, the first digits of it, or its external id. Raises `UnknownBatchJobError`, or `Refused` if several match."""
    if not name or clean(name) != name:
        raise UnknownBatchJobError(job=name)
    found = await tx.fetch(
        f"SELECT {JOB_COLUMNS} FROM batch_jobs WHERE external_id = $1 OR starts_with(id::text, lower($1)) LIMIT 2", name
    )
    if not found:
        raise UnknownBatchJobError(job=name)
    if len(found) > 1:
        raise Refused(reason=f"Several batch jobs begin with {name!r}. Give more of the id.")
    return _job(found[0])


async def every(tx: ReadTx, *, limit: int = 100) -> list[BatchJobRecord]:
    """Return the newest jobs, newest first."""
    rows_ = await tx.fetch(f"SELECT {JOB_COLUMNS} FROM batch_jobs ORDER BY created_at DESC, id LIMIT $1", limit)
    return [_job(row) for row in rows_]


async def unfinished(tx: ReadTx) -> list[BatchJobRecord]:
    """Return jobs that still have something to send, to wait for or to clean up, oldest first."""
    return [
        _job(row)
        for row in await tx.fetch(
            f"SELECT {JOB_COLUMNS} FROM batch_jobs WHERE cleaned_at IS NULL ORDER BY created_at, id LIMIT 10000"
        )
    ]


async def open_jobs(tx: ReadTx, job_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """Return those of these intents whose jobs are not finished, with the provider's names for them."""
    found = await tx.fetch(
        "SELECT id, external_id FROM batch_jobs WHERE id = ANY($1) AND finished_at IS NULL", list(job_ids)
    )
    return {row["id"]: row["external_id"] for row in found}


async def in_flight(tx: ReadTx, provider_id: UUID) -> tuple[int, int]:
    """Return `(jobs, tokens)` that a provider has in work or is just being asked for; tokens on the high side."""
    row = await tx.fetchrow(
        "SELECT count(*) AS jobs, coalesce(sum(reserved_tokens), 0)::bigint AS tokens FROM batch_jobs "
        "WHERE provider_id = $1 AND finished_at IS NULL",
        provider_id,
    )
    assert row is not None  # an aggregate always has a row
    return row["jobs"], row["tokens"]


async def add_items(tx: Tx, job_id: UUID, items: Sequence[JobRow]) -> None:
    """Save rows of a job, and the digest that is sent for each."""
    await tx.copy("batch_items", ("job_id", "vector_id", "key", "content_hash"), [
        (job_id, item.vector_id, item.key, item.content_hash) for item in items
    ])  # fmt: skip
    await tx.execute("UPDATE batch_jobs SET rows = rows + $2, updated_at = now() WHERE id = $1", job_id, len(items))


@dataclass(frozen=True)
class InputFileSize:
    """The size of an input file; `reserved_tokens` are at least what the provider counts against its quota."""

    texts: int
    tokens: int
    reserved_tokens: int
    bytes: int


async def record_size(tx: Tx, job_id: UUID, weight: InputFileSize) -> None:
    """Save the size of the input file; writing the file again does not count it twice."""
    await tx.execute(
        "UPDATE batch_jobs SET texts = $2, tokens = $3, reserved_tokens = $4, bytes = $5, updated_at = now() WHERE id = $1",
        job_id,
        weight.texts,
        weight.tokens,
        weight.reserved_tokens,
        weight.bytes,
    )


async def record_budget(tx: Tx, job_id: UUID, tokens: int | None) -> None:
    """Save how many tokens of the budgets are taken for a job that is not submitted yet; None for none."""
    await tx.execute("UPDATE batch_jobs SET budget_tokens = $2, updated_at = now() WHERE id = $1", job_id, tokens)


SELECT_ITEMS = "SELECT i.vector_id, i.key, i.content_hash, e.dataset_id FROM batch_items i "


async def items(tx: ReadTx, job_id: UUID, keys: Sequence[str]) -> list[JobRow]:
    """Return the rows that wait for the answers to some keys."""
    found = await tx.fetch(
        SELECT_ITEMS
        + "LEFT JOIN embeddings e USING (vector_id) WHERE i.job_id = $1 AND i.key = ANY($2) ORDER BY i.vector_id",
        job_id,
        list(keys),
    )
    return [JobRow(**row) for row in found]


async def unanswered(tx: ReadTx, job_id: UUID, *, limit: int) -> list[JobRow]:
    """Return rows of a job that have no answer so far."""
    found = await tx.fetch(
        SELECT_ITEMS + "LEFT JOIN embeddings e USING (vector_id) WHERE i.job_id = $1 ORDER BY i.vector_id LIMIT $2",
        job_id,
        limit,
    )
    return [JobRow(**row) for row in found]


async def is_wanted(tx: ReadTx, job_id: UUID) -> bool:
    """Return whether any row of a job still waits for the vector of the text that was sent."""
    return bool(
        await tx.fetchval(
            # row by row by key, since the first row usually decides: a plain join would scan both tables
            "SELECT EXISTS (SELECT FROM (SELECT vector_id, content_hash FROM batch_items WHERE job_id = $1 "
            "ORDER BY vector_id) i CROSS JOIN LATERAL (SELECT FROM embeddings e "
            "JOIN datasets d ON d.id = e.dataset_id JOIN projects p ON p.id = d.project_id "
            "WHERE e.vector_id = i.vector_id AND e.content_hash = i.content_hash AND e.pending_id IS NOT NULL "
            "AND d.deleted_at IS NULL AND p.deleted_at IS NULL LIMIT 1) wanted)",
            job_id,
        )
    )


LEASED_ROWS = """
SELECT e.vector_id, e.kind, e.row_id, e.dataset_id, e.content_hash, w.attempts
FROM batch_items i JOIN embeddings e USING (vector_id) JOIN embed_work w USING (vector_id)
WHERE i.job_id = $1 AND i.vector_id > $2 AND w.lease_owner = $1 AND e.content_hash = i.content_hash
  AND w.content_hash = i.content_hash AND e.pending_id IS NOT NULL
ORDER BY i.vector_id LIMIT $3
"""


async def leased_rows(tx: Tx, job_id: UUID, *, after: int, limit: int) -> list[ClaimedRow]:
    """Return rows that an intent still leases, with their texts, ordered by id."""
    found = await tx.fetch(LEASED_ROWS, job_id, after, limit)
    return await rows.with_text(tx, found, job_id)


async def drop_lost(tx: Tx, job_id: UUID) -> int:
    """Delete rows that an intent does not lease any more, or whose text changed; return how many."""
    dropped = await tx.fetchval(
        """
        WITH gone AS (
            DELETE FROM batch_items i WHERE i.job_id = $1 AND NOT EXISTS (
                SELECT FROM embeddings e JOIN embed_work w USING (vector_id)
                WHERE e.vector_id = i.vector_id AND w.lease_owner = $1 AND e.content_hash = i.content_hash
                  AND w.content_hash = i.content_hash AND e.pending_id IS NOT NULL)
            RETURNING 1
        ), counted AS (SELECT count(*) AS n FROM gone)
        UPDATE batch_jobs SET dropped = dropped + counted.n FROM counted WHERE id = $1 RETURNING counted.n
        """,
        job_id,
    )
    return int(dropped or 0)


async def has_lost(tx: ReadTx, job_id: UUID) -> bool:
    """Return whether a row of an intent was taken or embedded by another, with the text that it would send."""
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT FROM batch_items i JOIN embeddings e USING (vector_id) "
            "LEFT JOIN embed_work w USING (vector_id) WHERE i.job_id = $1 AND e.content_hash = i.content_hash "
            "AND w.lease_owner IS DISTINCT FROM $1)",
            job_id,
        )
    )


async def settle_items(
    tx: Tx,
    job_id: UUID,
    vector_ids: Sequence[int],
    *,
    ready: int = 0,
    failed: int = 0,
    dropped: int = 0,
    returned: int = 0,
    strays: int = 0,
) -> None:
    """Delete items and count them; whatever happened to their rows happened in this transaction."""
    await tx.execute("DELETE FROM batch_items WHERE job_id = $1 AND vector_id = ANY($2)", job_id, list(vector_ids))
    await tx.execute(
        "UPDATE batch_jobs SET ready = ready + $2, failed = failed + $3, dropped = dropped + $4, "
        "returned = returned + $5, strays = strays + $6, updated_at = now() WHERE id = $1",
        job_id,
        *(ready, failed, dropped, returned, strays),
    )


async def mark_uploaded(tx: Tx, job_id: UUID, file: str) -> None:
    """Save the name of the input file at the provider."""
    await tx.execute("UPDATE batch_jobs SET input_file = $2, updated_at = now() WHERE id = $1", job_id, file)


async def mark_submitting(tx: Tx, job_id: UUID, *, hours: float) -> None:
    """Save that a job may exist at the provider from now on: look for it before creating another one."""
    await tx.execute(
        "UPDATE batch_jobs SET submitting_at = now(), listings = 0, deadline = now() + make_interval(secs => $2), "
        "updated_at = now() WHERE id = $1",
        job_id,
        hours * 3600,
    )


async def record_error(tx: Tx, job_id: UUID, error: str) -> None:
    """Save why a job is not at the provider yet."""
    await tx.execute(
        "UPDATE batch_jobs SET error = $2, updated_at = now() WHERE id = $1 AND finished_at IS NULL",
        job_id,
        error[:500],
    )


async def mark_not_sent(tx: Tx, job_id: UUID) -> None:
    """Save that the provider surely refused: there is no job of this intent."""
    await tx.execute("UPDATE batch_jobs SET submitting_at = NULL, updated_at = now() WHERE id = $1", job_id)


async def count_listing(tx: Tx, job_id: UUID) -> tuple[int, float]:
    """Count a complete listing without the job; return how many there were, and the seconds since it was sent."""
    row = await tx.fetchrow(
        "UPDATE batch_jobs SET listings = listings + 1, updated_at = now() WHERE id = $1 "
        "RETURNING listings, extract(epoch FROM now() - submitting_at)::float8 AS seconds",
        job_id,
    )
    assert row is not None  # a job is never deleted
    return row["listings"], row["seconds"]


async def mark_submitted(tx: Tx, job_id: UUID, external_id: str) -> None:
    """Save that the provider has the job, and its name for it."""
    await tx.execute(
        "UPDATE batch_jobs SET status = 'SUBMITTED', external_id = $2, error = NULL, submitted_at = now(), updated_at = now() "
        "WHERE id = $1 AND finished_at IS NULL",
        job_id,
        external_id,
    )


async def mark_processing(tx: Tx, job_id: UUID, said: str) -> None:
    """Save that the provider works on the job, with its own word for the state."""
    await tx.execute(
        "UPDATE batch_jobs SET status = 'PROCESSING', said = $2, updated_at = now() "
        "WHERE id = $1 AND finished_at IS NULL",
        job_id,
        said[:200],
    )


async def finish(tx: Tx, job_id: UUID, status: JobStatus, *, said: str | None, error: str | None) -> None:
    """Save the end of a job; what is left at the provider is removed after this."""
    await tx.execute(
        "UPDATE batch_jobs SET status = $2, said = coalesce($3, said), error = $4, finished_at = now(), "
        "updated_at = now() WHERE id = $1 AND finished_at IS NULL",
        job_id,
        status,
        None if said is None else said[:200],
        None if error is None else error[:500],
    )


async def mark_cleaned(tx: Tx, job_id: UUID) -> None:
    """Save that nothing of the job is left at the provider."""
    await tx.execute("UPDATE batch_jobs SET cleaned_at = now(), updated_at = now() WHERE id = $1", job_id)


async def release_other_spaces(tx: Tx, space_id: int) -> None:
    """Release the rows of jobs for another space than the active one: their vectors would be of no use."""
    await tx.execute(
        "UPDATE embed_work SET lease_owner = NULL, lease_until = NULL, not_before = now(), deferred = false "
        "WHERE lease_owner IN (SELECT id FROM batch_jobs WHERE finished_at IS NULL AND space_id <> $1)",
        space_id,
    )
