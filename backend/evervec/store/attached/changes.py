"""What the triggers on attached tables recorded: counted, taken, and forgotten once it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from evervec.domain.attachment import Key
from evervec.store.attached import keys
from evervec.store.database.session import ReadTx, Tx

EVERY_ROW = "[]"
"""The key that stands for all rows: the table was truncated, or was written while its triggers were off."""

IS_LIST = "jsonb_typeof(key -> 0) = 'array'"
KEYS = f"CASE WHEN {IS_LIST} THEN key ELSE jsonb_build_array(key) END"
"""The keys of a record: it has one, or a list of those that a statement inserted together."""

TAKE = f"""
SELECT id, changed_at, key::text AS key FROM (
    SELECT c.*, sum(count) OVER (ORDER BY id, changed_at) - count AS before FROM (
        SELECT id, changed_at, key, CASE WHEN {IS_LIST} THEN jsonb_array_length(key) ELSE 1 END AS count
        FROM attached_changes WHERE source_id = $1 ORDER BY id, changed_at LIMIT $2
    ) c
) r WHERE before < $2 ORDER BY id, changed_at
"""
FORGET = """
DELETE FROM attached_changes c USING unnest($2::bigint[], $3::timestamptz[]) t (id, changed_at)
WHERE c.source_id = $1 AND c.id = t.id AND c.changed_at = t.changed_at
"""
BACKLOG = f"""
SELECT source_id, sum(jsonb_array_length({KEYS})) AS records, extract(epoch FROM clock_timestamp() - min(changed_at))::float8 AS oldest_seconds
FROM attached_changes WHERE source_id = ANY($1) GROUP BY source_id
"""
# each source is looked up once, however many records it has
ABANDONED = """
WITH RECURSIVE one AS (
    (SELECT source_id FROM attached_changes ORDER BY source_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.source_id FROM attached_changes c WHERE c.source_id > one.source_id ORDER BY c.source_id LIMIT 1)
    FROM one WHERE one.source_id IS NOT NULL
)
SELECT source_id FROM one WHERE source_id IS NOT NULL AND NOT EXISTS (SELECT FROM sources s WHERE s.id = one.source_id)
"""
CLEAR = """
DELETE FROM attached_changes WHERE (source_id, id, changed_at) IN
    (SELECT source_id, id, changed_at FROM attached_changes WHERE source_id = $1 ORDER BY id LIMIT $2)
"""


@dataclass(frozen=True)
class Taken:
    """Records of one attachment, and the keys of their rows, each once; `everything` asks to compare all rows.

    `compares` asks to look whether the rows of all documents are still there.
    """

    records: Sequence[tuple[int, datetime]]
    keys: Sequence[Key]
    everything: bool
    compares: bool = False

    @property
    def is_empty(self) -> bool:
        """Return whether there was nothing to take."""
        return not (self.records or self.keys or self.everything or self.compares)


@dataclass(frozen=True)
class Backlog:
    """How many keys an attachment's records name, and how long the oldest has waited; or bytes of a log kept for its slot."""

    records: int
    oldest_seconds: float
    kept_bytes: int = 0


async def take(tx: ReadTx, source_id: UUID, limit: int) -> Taken:
    """Return the oldest records of an attachment, up to those that name the key `limit`; they stay until `forget`.

    A row that is read after this is at least as new as its record, since a later change has a record of its own.
    """
    rows = await tx.fetch(TAKE, source_id, limit)
    recorded = dict.fromkeys(row["key"] for row in rows)
    named = dict.fromkeys(key for stored in recorded if stored != EVERY_ROW for key in keys.listed(stored))
    return Taken([(row["id"], row["changed_at"]) for row in rows], list(named), EVERY_ROW in recorded)


async def forget(tx: Tx, source_id: UUID, taken: Taken) -> int:
    """Delete exactly the records that were taken; return how many there still were."""
    ids = [id_ for id_, _ in taken.records]
    tag = await tx.execute(FORGET, source_id, ids, [moment for _, moment in taken.records])
    return int(tag.rsplit(" ", 1)[-1])


async def any_of(tx: ReadTx, source_id: UUID) -> bool:
    """Return whether an attachment has any record."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM attached_changes WHERE source_id = $1)", source_id))


async def backlog(tx: ReadTx, source_ids: Sequence[UUID]) -> dict[UUID, Backlog]:
    """Return what waits of each of some attachments that have any records."""
    rows = await tx.fetch(BACKLOG, list(source_ids))
    return {row["source_id"]: Backlog(row["records"], row["oldest_seconds"]) for row in rows}


async def ask_comparison(tx: Tx, source_id: UUID) -> None:
    """Record that all rows of an attachment are to be compared with their documents."""
    await tx.execute("INSERT INTO attached_changes (source_id, key) VALUES ($1, $2)", source_id, EVERY_ROW)


async def clear(tx: Tx, source_id: UUID, limit: int) -> int:
    """Delete records of an attachment, a batch; return how many."""
    return int((await tx.execute(CLEAR, source_id, limit)).rsplit(" ", 1)[-1])


async def abandoned(tx: ReadTx) -> list[UUID]:
    """Return the attachments that are gone and have records left, since their detaching was interrupted."""
    return [row["source_id"] for row in await tx.fetch(ABANDONED)]
