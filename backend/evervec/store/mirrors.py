"""Which process holds a mirror of which dataset, how far each one is, and its measured recall. Independent of FAISS."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings.changes import HAS_UNSEEN

HOLDER_TIMEOUT = "interval '15 seconds'"
"""A holder that has not reported for this long counts as dead."""
HOLDER_KEPT = "interval '1 day'"


@dataclass(frozen=True)
class MirrorHolder:
    """A process that keeps mirrors in a folder of a host."""

    id: UUID
    host: str
    folder: str
    pid: int


@dataclass(frozen=True)
class LiveMirror:
    """The mirror of a dataset, in the space that is searched, as its live holder reported it last.

    `watermark` is a PostgreSQL snapshot. `behind_ms` is how long the oldest change that it has not seen has been committed.
    """

    dataset_id: UUID
    host: str
    folder: str
    pid: int
    state: str
    reason: str
    vectors: int
    bytes: int
    watermark: str | None
    behind_ms: float
    in_sync: bool | None
    checked_at: datetime | None
    missing: int
    extra: int
    stale: int


@dataclass(frozen=True)
class MirrorProgress:
    """The report of a holder about one mirror."""

    dataset_id: UUID
    space_id: int
    state: str
    reason: str
    vectors: int
    bytes: int
    watermark: str | None


REPORT = """
INSERT INTO mirrors
    (holder, dataset_id, space_id, host, folder, pid, state, reason, vectors, bytes, watermark, watermark_at)
SELECT $1, t.dataset_id, t.space_id, $2, $3, $4, t.state, t.reason, t.vectors, t.bytes, t.watermark, now()
FROM unnest($5::uuid[], $6::integer[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::text[])
    AS t (dataset_id, space_id, state, reason, vectors, bytes, watermark)
JOIN datasets d ON d.id = t.dataset_id
ON CONFLICT (holder, dataset_id, space_id) DO UPDATE
SET state = EXCLUDED.state, reason = EXCLUDED.reason, vectors = EXCLUDED.vectors, bytes = EXCLUDED.bytes,
    watermark = EXCLUDED.watermark, seen_at = now(),
    watermark_at = CASE WHEN mirrors.watermark = EXCLUDED.watermark THEN mirrors.watermark_at ELSE now() END
RETURNING dataset_id, space_id, CASE WHEN answered_at IS NULL OR answered_at < asked_at THEN asked END AS asked
"""


async def report(tx: Tx, holder: MirrorHolder, mirrors: Sequence[MirrorProgress]) -> dict[tuple[UUID, int], str]:
    """Save how far each mirror is; return what is requested of the holder: check, rebuild or compact, by dataset and space."""
    columns = zip(
        *((m.dataset_id, m.space_id, m.state, m.reason, m.vectors, m.bytes, m.watermark) for m in mirrors), strict=True
    )
    values = [list(column) for column in columns] or [[], [], [], [], [], [], []]
    rows = await tx.fetch(REPORT, holder.id, holder.host, holder.folder, holder.pid, *values)
    await tx.execute(
        "DELETE FROM mirrors m WHERE (holder = $1 AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::integer[]) t (id, space) "
        "WHERE t.id = m.dataset_id AND t.space = m.space_id)) OR seen_at < now() - " + HOLDER_KEPT,
        holder.id,
        values[0],
        values[1],
    )
    return {(row["dataset_id"], row["space_id"]): row["asked"] for row in rows if row["asked"] is not None}


async def record_check(
    tx: Tx, holder: MirrorHolder, dataset_id: UUID, space_id: int, *, missing: int, extra: int, stale: int, answer: bool
) -> None:
    """Save the result of a check of a mirror; `answer` if it had been requested."""
    await tx.execute(
        "UPDATE mirrors SET checked_at = clock_timestamp(), in_sync = $3::bigint + $4::bigint + $5::bigint = 0, missing = $3, extra = $4, "
        "stale = $5, answered_at = CASE WHEN $6 THEN clock_timestamp() ELSE answered_at END "
        "WHERE holder = $1 AND dataset_id = $2 AND space_id = $7",
        holder.id,
        dataset_id,
        missing,
        extra,
        stale,
        answer,
        space_id,
    )


async def decline(tx: Tx, holder: MirrorHolder, dataset_id: UUID, space_id: int) -> None:
    """Close a request without doing it; the process that asked does the work itself."""
    await tx.execute(
        "UPDATE mirrors SET answered_at = clock_timestamp() WHERE holder = $1 AND dataset_id = $2 AND space_id = $3",
        holder.id,
        dataset_id,
        space_id,
    )


async def remove_holder(tx: Tx, holder: MirrorHolder) -> None:
    """Remove the mirrors of a holder that stops; its files stay."""
    await tx.execute("DELETE FROM mirrors WHERE holder = $1", holder.id)


async def request(tx: Tx, host: str, folder: str, dataset_ids: Sequence[UUID], what: str) -> list[UUID]:
    """Ask the live holders of a folder for something; return the datasets that one of them has."""
    rows = await tx.fetch(
        f"UPDATE mirrors m SET asked = $4, asked_at = clock_timestamp() FROM datasets d WHERE m.host = $1 AND m.folder = $2 "
        f"AND m.dataset_id = ANY($3) AND d.id = m.dataset_id AND d.space_id = m.space_id "
        f"AND m.seen_at > now() - {HOLDER_TIMEOUT} RETURNING m.dataset_id",
        host,
        folder,
        list(dataset_ids),
        what,
    )
    return [row["dataset_id"] for row in rows]


async def open_requests(tx: ReadTx, host: str, folder: str) -> int:
    """Count the requests that the live holders of a folder have not answered yet."""
    count: int = await tx.fetchval(
        "SELECT count(*) FROM mirrors WHERE host = $1 AND folder = $2 AND asked IS NOT NULL "
        f"AND (answered_at IS NULL OR answered_at < asked_at) AND seen_at > now() - {HOLDER_TIMEOUT}",
        host,
        folder,
    )
    return count


LIVE_MIRRORS = f"""
SELECT m.dataset_id, m.host, m.folder, m.pid, m.state, m.reason, m.vectors, m.bytes, m.watermark,
       CASE WHEN m.watermark IS NOT NULL AND {HAS_UNSEEN.format(dataset="m.dataset_id", space="m.space_id", mark="m.watermark::pg_snapshot")}
       THEN extract(epoch FROM clock_timestamp() - m.watermark_at) * 1000 ELSE 0 END::float8 AS behind_ms,
       m.in_sync, m.checked_at, coalesce(m.missing, 0) AS missing, coalesce(m.extra, 0) AS extra,
       coalesce(m.stale, 0) AS stale
FROM mirrors m JOIN datasets d ON d.id = m.dataset_id AND d.space_id = m.space_id
WHERE m.dataset_id = ANY($1) AND m.seen_at > now() - {HOLDER_TIMEOUT}
ORDER BY m.dataset_id, m.host, m.folder, m.pid
"""


async def live(tx: ReadTx, dataset_ids: Sequence[UUID]) -> list[LiveMirror]:
    """Return the live mirrors of some datasets; `behind_ms` is 0 for one that has seen everything committed."""
    return [LiveMirror(*row) for row in await tx.fetch(LIVE_MIRRORS, list(dataset_ids))]


async def lowest_watermark(tx: ReadTx, dataset_id: UUID) -> str | None:
    """Return the oldest snapshot among the live mirrors of a dataset."""
    found: str | None = await tx.fetchval(
        f"SELECT watermark FROM mirrors WHERE dataset_id = $1 AND watermark IS NOT NULL AND seen_at > now() - {HOLDER_TIMEOUT} "
        "ORDER BY pg_snapshot_xmin(watermark::pg_snapshot) LIMIT 1",
        dataset_id,
    )
    return found


@dataclass(frozen=True)
class MeasuredRecall:
    """A recall@10 of one engine, measured on samples against exact answers."""

    engine: str
    recall: float
    target: float
    sampled: int
    measured_at: datetime


async def record_recall(tx: Tx, dataset_id: UUID, engine: str, recall: float, target: float, sampled: int) -> None:
    """Save a measured recall@10; the last hundred measurements of an engine are kept."""
    await tx.execute(
        "INSERT INTO recall_checks (dataset_id, engine, recall, target, sampled) VALUES ($1, $2, $3, $4, $5)",
        dataset_id,
        engine,
        recall,
        target,
        sampled,
    )
    await tx.execute(
        "DELETE FROM recall_checks WHERE dataset_id = $1 AND engine = $2 AND id < (SELECT min(id) FROM (SELECT id "
        "FROM recall_checks WHERE dataset_id = $1 AND engine = $2 ORDER BY id DESC LIMIT 100) newest)",
        dataset_id,
        engine,
    )


async def recalls(tx: ReadTx, dataset_id: UUID) -> list[MeasuredRecall]:
    """Return the newest measurement of each engine."""
    rows = await tx.fetch(
        "SELECT DISTINCT ON (engine) engine, recall::float8, target::float8, sampled, measured_at FROM recall_checks "
        "WHERE dataset_id = $1 ORDER BY engine, measured_at DESC, id DESC",
        dataset_id,
    )
    return [MeasuredRecall(*row) for row in rows]
