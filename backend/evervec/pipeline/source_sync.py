"""A sync of an SQL source: what was written since the last one, by dataset and table; and its indexing, asked for at once."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from evervec.pipeline import index, origins
from evervec.pipeline.resources import Resources
from evervec.sources.sql import records
from evervec.sources.sql.description import Description
from evervec.store import datasets, documents, runs, sources
from evervec.store.datasets import Dataset
from evervec.store.foreign import Change, Foreign
from evervec.store.session import Tx
from evervec.store.sources import SourceRecord

OVERLAP = timedelta(seconds=60)
"""Behind the source's own horizon, for transactions that we may not see. What is known by its stamp is not told twice."""

TRIGGER = "sync"

Ids = dict[str, list[int | str]]


@dataclass
class DatasetChanges:
    """What changed in one dataset, by table, and the run that indexes it."""

    project: str
    dataset: str
    dataset_id: UUID
    changed_ids: Ids
    run_id: UUID


@dataclass
class Synced:
    """A finished sync. `since` is where it began, None for the first one; `warnings` say what it can not see."""

    source: str
    since: datetime | None
    datasets: list[DatasetChanges] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed_ids(self) -> Ids:
        """The changed ids of all datasets, by table."""
        merged: Ids = {}
        for one in self.datasets:
            for table, ids in one.changed_ids.items():
                merged.setdefault(table, []).extend(ids)
        return merged


async def sync(resources: Resources, description: Description) -> Synced:
    """Find what changed since the last sync and ask for the indexing of it, or do nothing at all.

    The cursor moves, new tenants get their datasets and the runs wait in one transaction: a sync that failed has
    triggered nothing, and the next one sees the same changes. Raises `SourceDownError` or `SourceError`.
    """
    record = await origins.keep_sql(resources, description)
    async with aclosing(await origins.open_foreign_of(resources, record)) as foreign:
        # asked for before anything is read: what is written while we read is seen by the next sync
        horizon = await foreign.horizon()
        since = record.cursor.get("since")
        synced = Synced(description.name, None if since is None else datetime.fromisoformat(since))
        synced.warnings = await foreign.warnings()
        changed = await _changed(resources, description, record, foreign, synced.since)
    async with resources.database.transaction() as tx:
        for tenant in sorted(changed, key=str):
            dataset = await _dataset(tx, description, record, tenant)
            run_id = await runs.enqueue(tx, dataset.id, "delta", TRIGGER, changed[tenant])
            synced.datasets.append(DatasetChanges(dataset.project, dataset.slug, dataset.id, changed[tenant], run_id))
        await sources.advance(tx, record.id, {"since": horizon.isoformat()})
    await index.ring(resources, [one.dataset_id for one in synced.datasets])
    return synced


async def _dataset(tx: Tx, description: Description, record: SourceRecord, tenant: str | None) -> Dataset:
    dataset = await datasets.ensure(tx, description.project, description.dataset_of(tenant))
    await sources.fill(tx, dataset.id, record.id, tenant)
    return dataset


async def _changed(
    resources: Resources, description: Description, record: SourceRecord, foreign: Foreign, since: datetime | None
) -> dict[str | None, Ids]:
    """Changed ids by tenant and table, without the versions that are indexed already."""
    async with resources.database.read() as tx:
        known = await sources.tenants(tx, record.id)
    found: dict[str | None, Ids] = {}
    for table, described in description.tables.items():
        if described.updated_at is None:
            continue
        async for some in foreign.changed_since(table, since, OVERLAP):
            for change in await _unknown(resources, description, known, table, some):
                if described.dataset_column is None or change.tenant is not None:
                    found.setdefault(change.tenant, {}).setdefault(table, []).append(change.key)
    return found


async def _unknown(
    resources: Resources,
    description: Description,
    known: dict[str | None, UUID],
    table: str,
    some: Sequence[Change],
) -> list[Change]:
    by_tenant: dict[str | None, dict[str, Change]] = {}
    for change in some:
        by_tenant.setdefault(change.tenant, {})[records.uri_of(table, change.key)] = change
    new: list[Change] = []
    async with resources.database.read() as tx:
        for tenant, changes in by_tenant.items():
            dataset_id = known.get(tenant)
            there = {} if dataset_id is None else await documents.known(tx, dataset_id, list(changes))
            for uri, change in changes.items():
                stamp = records.stamp_of(description, table, change.updated_at)
                if uri not in there or there[uri].stamp != stamp:
                    new.append(change)
    return new
