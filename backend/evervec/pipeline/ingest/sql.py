"""A sync of an SQL source: it finds what was written since the last one, and requests runs that index it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from evervec.domain.naming import slug
from evervec.pipeline.batch import router
from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.resources import Resources
from evervec.sources.sql import records
from evervec.sources.sql.description import SourceDescription
from evervec.store import datasets, documents, runs, sources
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.foreign.reader import Change, ForeignTables, open_foreign
from evervec.store.sources import SourceRecord

OVERLAP = timedelta(seconds=60)
"""Time before the source's own horizon that is read again, for transactions that were not visible. Stamps show duplicates."""

SYNC_TRIGGER = "sync"

ChangedKeys = dict[str, list[int | str]]


@dataclass
class DatasetChanges:
    """The changed ids of one dataset, by table, and the run that indexes them; without ids in a preview."""

    project: str
    dataset: str
    dataset_id: UUID | None
    changed_ids: ChangedKeys
    run_id: UUID | None


@dataclass
class SourceSync:
    """A finished sync. `since` is its start, None for the first one; `warnings` say which changes it can not see."""

    source: str
    since: datetime | None
    datasets: list[DatasetChanges] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed_ids(self) -> ChangedKeys:
        """Return the changed ids of all datasets, by table."""
        merged: ChangedKeys = {}
        for one in self.datasets:
            for table, ids in one.changed_ids.items():
                merged.setdefault(table, []).extend(ids)
        return merged


async def sync(
    resources: Resources, description: SourceDescription, *, full: bool = False, deferred: bool = False
) -> SourceSync:
    """Find what changed since the last sync and request runs that index it.

    The cursor, the datasets of new tenants and the runs are saved in one transaction: a sync that failed has triggered
    nothing, and the next one finds the same changes. With `full` every dataset of the source is rebuilt, also where
    nothing changed; with `deferred` embedding is left to batch jobs. Raises `NoBatchError`,
    `SourceDownError` or `SourceError`.
    """
    if deferred:
        await router.require_batch_api(resources, description.project, description.dataset)
    record = await source_registry.register_sql(resources, description)
    async with aclosing(await source_registry.open_foreign_of(resources, record)) as foreign:
        # read before everything else: what is written meanwhile is found by the next sync
        horizon = await foreign.horizon()
        found, changed = await _find_changes(resources.database, description, record, foreign, full=full)
    async with resources.database.transaction() as tx:
        for tenant in sorted(changed, key=str):
            dataset = await _dataset(tx, description, record, tenant)
            # in a source that was never synced everything is new: a comparison needs no list of ids
            mode = "full" if full else "compare" if found.since is None else "delta"
            ids = changed[tenant] if mode == "delta" else None
            run_id = await runs.enqueue(tx, dataset.id, mode, SYNC_TRIGGER, ids, deferred=deferred)
            found.datasets.append(DatasetChanges(dataset.project, dataset.slug, dataset.id, changed[tenant], run_id))
        await sources.save_cursor(tx, record.id, {"since": horizon.isoformat()})
    await requests.ring(resources, [one.dataset_id for one in found.datasets if one.dataset_id is not None])
    return found


async def look(database: Database, description: SourceDescription, *, full: bool = False) -> SourceSync:
    """Find what a sync would index, without any change to the database. Raises as `sync` does."""
    async with open_looked(database, description, full=full) as (found, changed, _):
        for tenant in sorted(changed, key=str):
            project, dataset = slug("Project", description.project), slug("Dataset", description.dataset_of(tenant))
            found.datasets.append(DatasetChanges(project, dataset, None, changed[tenant], None))
        return found


@asynccontextmanager
async def open_looked(
    database: Database, description: SourceDescription, *, full: bool
) -> AsyncIterator[tuple[SourceSync, dict[str | None, ChangedKeys], ForeignTables]]:
    """Find what a sync would index; yield the sync without datasets, the changed ids by tenant, and the tables."""
    async with database.read() as tx:
        record = await sources.find(tx, slug("Project", description.project), description.name)
    at = database if description.url is None else description.url.get_secret_value()
    async with aclosing(await open_foreign(description, at)) as foreign:
        yield *await _find_changes(database, description, record, foreign, full=full), foreign


async def _find_changes(
    database: Database,
    description: SourceDescription,
    record: SourceRecord | None,
    foreign: ForeignTables,
    *,
    full: bool,
) -> tuple[SourceSync, dict[str | None, ChangedKeys]]:
    """Return a sync without datasets, and the changed ids by tenant; with `full`, of every tenant there is or was."""
    known: dict[str | None, UUID] = {}
    if record is not None:
        async with database.read() as tx:
            known = await sources.tenants(tx, record.id)
    since = None if record is None else record.cursor.get("since")
    found = SourceSync(description.name, None if since is None else datetime.fromisoformat(since))
    found.warnings = await foreign.warnings()
    changed = await _changed(database, description, known, foreign, found.since)
    if full:
        every = [None] if description.dataset is not None else [*await foreign.tenants(), *known]
        changed = {tenant: changed.get(tenant, {}) for tenant in every}
    return found, changed


async def _dataset(tx: Tx, description: SourceDescription, record: SourceRecord, tenant: str | None) -> DatasetRef:
    dataset = await datasets.ensure(tx, description.project, description.dataset_of(tenant))
    await sources.assign(tx, dataset.id, record.id, tenant)
    return dataset


async def _changed(
    database: Database,
    description: SourceDescription,
    known: dict[str | None, UUID],
    foreign: ForeignTables,
    since: datetime | None,
) -> dict[str | None, ChangedKeys]:
    """Return changed ids by tenant and table, without the versions that are indexed already."""
    found: dict[str | None, ChangedKeys] = {}
    for table, described in description.tables.items():
        if described.updated_at is None:
            continue
        async for some in foreign.changed_since(table, since, OVERLAP):
            for change in await _not_indexed(database, description, known, table, some):
                if described.dataset_column is None or change.tenant is not None:
                    found.setdefault(change.tenant, {}).setdefault(table, []).append(change.key)
    return found


async def _not_indexed(
    database: Database,
    description: SourceDescription,
    known: dict[str | None, UUID],
    table: str,
    some: Sequence[Change],
) -> list[Change]:
    by_tenant: dict[str | None, dict[str, Change]] = {}
    for change in some:
        by_tenant.setdefault(change.tenant, {})[records.uri_of(table, change.key)] = change
    new: list[Change] = []
    async with database.read() as tx:
        for tenant, changes in by_tenant.items():
            dataset_id = known.get(tenant)
            indexed = {} if dataset_id is None else await documents.by_uri(tx, dataset_id, list(changes))
            for uri, change in changes.items():
                stamp = records.stamp_of(description, table, change.updated_at)
                if uri not in indexed or indexed[uri].stamp != stamp:
                    new.append(change)
    return new
