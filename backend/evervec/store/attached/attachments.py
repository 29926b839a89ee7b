"""Attachments: those with work, where the taking in of each is, and whether it is still the one that was read."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import orjson

from evervec.domain.sources import SourceType
from evervec.store import leases
from evervec.store.database.session import ReadTx, Tx

ATTACHMENT_LEASE = "attached:"
"""The lease of whoever takes rows of an attachment in, followed by the id of its source."""

PARTS: Final = "parts"
"""The place in a source's cursor of the fingerprint of its table's partitions."""

IS_RECORDED_HERE = "(s.url_encrypted IS NULL AND s.spec #>> '{description,capture}' = 'triggers')"
"""The condition that all changes of an attachment are recorded in our own database."""

HAS_WORK = """
(s.cursor ->> 'done' IS DISTINCT FROM 'true' OR s.cursor ->> 'checked' IS NOT NULL
 OR EXISTS (SELECT FROM attached_changes c WHERE c.source_id = s.id))
"""
IS_FREE = f"""
s.type = '{SourceType.ATTACHED}' AND coalesce((s.cursor ->> 'retry_at')::timestamptz <= now(), true)
AND NOT {leases.IS_HELD.format(name=f"'{ATTACHMENT_LEASE}' || s.id")}
"""
# both are asked many times a second: a probe of the records' index for each attachment
DUE_ATTACHMENTS = (
    f"SELECT s.id FROM sources s WHERE {IS_RECORDED_HERE} AND {IS_FREE} AND {HAS_WORK} ORDER BY s.created_at"
)
WATCHED_ATTACHMENTS = f"""
SELECT s.id, {HAS_WORK} AS has_work FROM sources s WHERE NOT {IS_RECORDED_HERE} AND {IS_FREE} ORDER BY s.created_at
"""


async def due(tx: ReadTx) -> list[UUID]:
    """Return the attachments with work that nobody does now, and that did not just fail."""
    return [row["id"] for row in await tx.fetch(DUE_ATTACHMENTS)]


async def watched(tx: ReadTx) -> dict[UUID, bool]:
    """Return the attachments that have to be looked at to see whether they have work, and whether some is known already.

    One that somebody works on, or that just failed, is left out.
    """
    return {row["id"]: row["has_work"] for row in await tx.fetch(WATCHED_ATTACHMENTS)}


@dataclass(frozen=True)
class Made:
    """What attachments made beside triggers in our schema: `published` in our database, and of which tables in another."""

    published: list[UUID]
    elsewhere: list[str]


async def made(tx: ReadTx) -> Made:
    """Return what attachments made that does not go with our schema; an older installation has none of it."""
    if await tx.fetchval("SELECT to_regclass('sources') IS NULL"):
        return Made([], [])
    rows = await tx.fetch(
        "SELECT id, name, url_encrypted IS NULL AS is_here, spec #>> '{description,capture}' AS capture FROM sources "
        "WHERE type = 'attached' ORDER BY name"
    )
    return Made(
        [row["id"] for row in rows if row["is_here"] and row["capture"] == "logical"],
        [row["name"] for row in rows if not row["is_here"] and row["capture"] != "poll"],
    )


async def keep(tx: Tx, source_id: UUID, generation: int) -> bool:
    """Prevent that an attachment is removed or replaced until the transaction ends; return False if it already is."""
    # an attachment that was replaced is read again from its begin by its new generation
    return bool(
        await tx.fetchval(
            "SELECT true FROM sources WHERE id = $1 AND coalesce((cursor ->> 'generation')::int, 0) = $2 FOR SHARE",
            source_id,
            generation,
        )
    )


async def merge_cursor(tx: Tx, source_id: UUID, changed: dict[str, object]) -> None:
    """Change some values of where the taking in of an attachment is."""
    await tx.execute(
        "UPDATE sources SET cursor = cursor || $2, synced_at = now() WHERE id = $1",
        source_id,
        orjson.dumps(changed).decode(),
    )


async def save_parts(tx: Tx, source_id: UUID, parts: str | None) -> bool:
    """Keep the fingerprint of a table's partitions; return whether it is another one than before."""
    kept = await tx.fetchval(
        f"UPDATE sources SET cursor = cursor || jsonb_build_object('{PARTS}', $2::text) "
        f"WHERE id = $1 AND cursor ->> '{PARTS}' IS DISTINCT FROM $2::text RETURNING id",
        source_id,
        parts,
    )
    return kept is not None


async def delay(tx: Tx, source_id: UUID, error: str, *, seconds: float) -> bool:
    """Leave an attachment that could not be read alone for a while; return whether it is another error than before."""
    new: bool = await tx.fetchval(
        "UPDATE sources s SET cursor = s.cursor || jsonb_build_object('error', $2::text, 'retry_at', now() + $3) FROM sources o "
        "WHERE s.id = $1 AND o.id = s.id RETURNING o.cursor ->> 'error' IS DISTINCT FROM $2::text",
        source_id,
        error,
        timedelta(seconds=seconds),
    )
    return bool(new)


async def recovered(tx: Tx, source_id: UUID) -> None:
    """Forget the error of an attachment that can be read again."""
    await tx.execute("UPDATE sources SET cursor = cursor - 'error' - 'retry_at' WHERE id = $1", source_id)


async def dimensions(tx: ReadTx) -> int | None:
    """Return the width of the active space's vectors, None while no space is active."""
    found: int | None = await tx.fetchval("SELECT dimensions FROM embedding_spaces WHERE state = 'active'")
    return found
