"""Rows of attached tables whose text could not be made, with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from evervec.domain.attachment import Key
from evervec.store.attached import keys
from evervec.store.session import ReadTx, Tx

RECORD = """
INSERT INTO attached_failures AS f (source_id, key, reason) SELECT $1, n.key::jsonb, n.reason
FROM unnest($2::text[], $3::text[]) n (key, reason)
ON CONFLICT (source_id, key) DO UPDATE SET reason = EXCLUDED.reason, failed_at = now()
"""
LIST_FAILURES = """
SELECT source_id, key::text AS key, reason, failed_at FROM attached_failures WHERE source_id = ANY($1)
ORDER BY source_id, key LIMIT $2
"""
COUNTS = "SELECT source_id, count(*) AS failed FROM attached_failures WHERE source_id = ANY($1) GROUP BY source_id"


@dataclass(frozen=True)
class RowFailure:
    """A row that failed."""

    source_id: UUID
    key: Key
    reason: str
    failed_at: datetime


async def record(tx: Tx, source_id: UUID, reasons: Mapping[Key, str]) -> None:
    """Record rows that failed; a newer reason replaces the old one."""
    await tx.execute(RECORD, source_id, [keys.dumps(key) for key in reasons], list(reasons.values()))


async def clear(tx: Tx, source_id: UUID, cleared: Sequence[Key]) -> None:
    """Forget failures of rows that could be read, or are gone."""
    await tx.execute(
        "DELETE FROM attached_failures WHERE source_id = $1 AND key = ANY($2::text[]::jsonb[])",
        source_id,
        [keys.dumps(key) for key in cleared],
    )


async def listed(tx: ReadTx, source_ids: Sequence[UUID], *, limit: int = 1000) -> list[RowFailure]:
    """Return the failures of some attachments, by key."""
    rows = await tx.fetch(LIST_FAILURES, list(source_ids), limit)
    return [RowFailure(**{**dict(row), "key": keys.loads(row["key"])}) for row in rows]


async def counts(tx: ReadTx, source_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many rows of each of some attachments failed, where any did."""
    return {row["source_id"]: row["failed"] for row in await tx.fetch(COUNTS, list(source_ids))}
