"""Sources of the documents of datasets: a dataset has one source at most, a source fills one dataset or many."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from evervec.domain.sources import SourceType
from evervec.errors import Refused
from evervec.store.database.session import ReadTx, Tx


@dataclass(frozen=True)
class SourceRecord:
    """A source as it is stored.

    `cursor` is where its last sync ended; `url_encrypted` is encrypted because it holds a password. `view` is the name of an
    attached table's view in our schema.
    """

    id: UUID
    project_id: UUID
    name: str
    type: str
    spec: dict[str, Any]
    url_encrypted: bytes | None
    cursor: dict[str, Any]
    synced_at: datetime | None
    view: str | None


SELECT_SOURCES = f"SELECT {', '.join(f's.{f.name}' for f in fields(SourceRecord))} FROM sources s "


def _record(row: Any) -> SourceRecord:
    values = dict(row)
    return SourceRecord(**values | {name: orjson.loads(values[name]) for name in ("spec", "cursor")})


async def of_dataset(tx: ReadTx, dataset_id: UUID) -> tuple[SourceRecord, str | None] | None:
    """Return a dataset's source and the tenant that the dataset holds, or None if it has no source."""
    row = await tx.fetchrow(SELECT_SOURCES + "JOIN datasets d ON d.source_id = s.id WHERE d.id = $1", dataset_id)
    if row is None:
        return None
    return _record(row), await tx.fetchval("SELECT tenant FROM datasets WHERE id = $1", dataset_id)


async def by_name(tx: ReadTx, project_id: UUID, name: str) -> SourceRecord | None:
    """Return a project's source with this name, or None."""
    row = await tx.fetchrow(SELECT_SOURCES + "WHERE s.project_id = $1 AND s.name = $2", project_id, name)
    return None if row is None else _record(row)


async def find(tx: ReadTx, project: str, name: str) -> SourceRecord | None:
    """Return the source with this name in the live project with this slug, or None."""
    row = await tx.fetchrow(
        SELECT_SOURCES
        + "JOIN projects p ON p.id = s.project_id WHERE p.slug = $1 AND s.name = $2 AND p.deleted_at IS NULL",
        project,
        name,
    )
    return None if row is None else _record(row)


async def save(
    tx: Tx,
    project_id: UUID,
    name: str,
    type_: str,
    spec: dict[str, Any],
    *,
    url_encrypted: bytes | None = None,
    source_id: UUID | None = None,
) -> SourceRecord:
    """Save a source under its name; a new description replaces the old one, the cursor stays.

    `source_id` is the id of a new source, where something that is named after it is made first.
    """
    row = await tx.fetchrow(
        "INSERT INTO sources AS s (project_id, name, type, spec, url_encrypted, id) "
        "VALUES ($1, $2, $3, $4, $5, coalesce($6, gen_random_uuid())) "
        "ON CONFLICT (project_id, name) DO UPDATE SET spec = EXCLUDED.spec, url_encrypted = EXCLUDED.url_encrypted "
        "WHERE s.type = EXCLUDED.type "
        "RETURNING s.id, s.project_id, s.name, s.type, s.spec, s.url_encrypted, s.cursor, s.synced_at, s.view",
        project_id,
        name,
        type_,
        orjson.dumps(spec).decode(),
        url_encrypted,
        source_id,
    )
    if row is None:
        raise Refused(
            reason=f"There is a source {name!r} of another type than {type_!r} in this project. Choose another name."
        )
    return _record(row)


async def assign(tx: Tx, dataset_id: UUID, source_id: UUID, tenant: str | None = None) -> None:
    """Let a source fill a dataset. Raises `Refused` if another source already does."""
    done = await tx.fetchval(
        "UPDATE datasets SET source_id = $2, tenant = $3 WHERE id = $1 AND (source_id IS NULL OR source_id = $2) "
        "AND (source_id IS NULL OR tenant IS NOT DISTINCT FROM $3) RETURNING true",
        dataset_id,
        source_id,
        tenant,
    )
    if not done:
        raise Refused(
            reason="Another source fills this dataset already, and each would delete the documents of the other. "
            "Give this one a dataset of its own."
        )


async def remove_roots(tx: Tx, dataset_id: UUID, roots: Sequence[str]) -> None:
    """Remove roots from the source of a dataset; a source without any root is deleted."""
    await tx.fetchval("SELECT 1 FROM datasets WHERE id = $1 FOR UPDATE", dataset_id)
    source_id = await tx.fetchval(
        "UPDATE sources s SET spec = jsonb_set(s.spec, '{roots}', (s.spec -> 'roots') - $2::text[]) "
        "FROM datasets d WHERE d.id = $1 AND s.id = d.source_id RETURNING s.id",
        dataset_id,
        list(roots),
    )
    await tx.execute("DELETE FROM sources WHERE id = $1 AND spec -> 'roots' = '[]'", source_id)


async def tenants(tx: ReadTx, source_id: UUID) -> dict[str | None, UUID]:
    """Return the live datasets that a source fills, by tenant."""
    rows = await tx.fetch(
        "SELECT d.tenant, d.id FROM datasets d JOIN projects p ON p.id = d.project_id "
        "WHERE d.source_id = $1 AND d.deleted_at IS NULL AND p.deleted_at IS NULL",
        source_id,
    )
    return {row["tenant"]: row["id"] for row in rows}


async def assigned_datasets(tx: ReadTx) -> list[UUID]:
    """Return every live dataset that is indexed from a source; an attached table is followed instead."""
    rows = await tx.fetch(
        "SELECT d.id FROM datasets d JOIN projects p ON p.id = d.project_id JOIN sources s ON s.id = d.source_id "
        "WHERE s.type <> $1 AND d.deleted_at IS NULL AND p.deleted_at IS NULL ORDER BY p.slug, d.slug",
        SourceType.ATTACHED,
    )
    return [row["id"] for row in rows]


@dataclass(frozen=True)
class FilledDataset:
    """A dataset that a source fills, or filled until it was deleted."""

    id: UUID
    project: str
    slug: str
    is_live: bool
    space_id: int


async def filled(tx: ReadTx, source_id: UUID) -> dict[str | None, FilledDataset]:
    """Return the datasets that a source fills, also deleted ones, by tenant."""
    rows = await tx.fetch(
        "SELECT d.tenant, d.id, p.slug AS project, d.slug, d.deleted_at IS NULL AND p.deleted_at IS NULL AS live, d.space_id "
        "FROM datasets d JOIN projects p ON p.id = d.project_id WHERE d.source_id = $1 ORDER BY p.slug, d.slug",
        source_id,
    )
    return {row["tenant"]: FilledDataset(*row[1:]) for row in rows}


async def of_type(tx: ReadTx, type_: str, project: str | None = None) -> list[SourceRecord]:
    """Return the sources of a type in the live project with this slug, or in all, by name."""
    rows = await tx.fetch(
        SELECT_SOURCES + "JOIN projects p ON p.id = s.project_id WHERE s.type = $1 "
        "AND ($2::text IS NULL OR (p.slug = $2 AND p.deleted_at IS NULL)) ORDER BY s.name, s.id",
        type_,
        project,
    )
    return [_record(row) for row in rows]


async def by_id(tx: ReadTx, source_id: UUID) -> SourceRecord | None:
    """Return a source, or None if it does not exist any more."""
    row = await tx.fetchrow(SELECT_SOURCES + "WHERE s.id = $1", source_id)
    return None if row is None else _record(row)


async def remove(tx: Tx, source_id: UUID) -> None:
    """Remove a source; the datasets that it filled stay."""
    await tx.execute("DELETE FROM sources WHERE id = $1", source_id)


async def save_cursor(tx: Tx, source_id: UUID, cursor: dict[str, Any]) -> None:
    """Save where a sync ended, in the transaction that requests the indexing of what it found."""
    await tx.execute(
        "UPDATE sources SET cursor = $2, synced_at = now() WHERE id = $1", source_id, orjson.dumps(cursor).decode()
    )
