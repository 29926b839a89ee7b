"""Index runs from the database: the newest ones, one of them, one that is followed to its end."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.store import datasets, monitor, runs, sources
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord

POLL = 0.2
"""Seconds between two looks at a run that another process works on."""


async def recent(database: Database, name: str | None, *, limit: int) -> list[tuple[DatasetRef, RunRecord]]:
    """Return the newest runs of one dataset, or of all, the newest first. Raises `UnknownDatasetError`."""
    found: list[tuple[DatasetRef, RunRecord]] = []
    async with database.read() as tx:
        for one in await datasets.find(tx, name):
            found += [(one, run) for run in await runs.recent(tx, one.id, limit=limit)]
    return sorted(found, key=lambda pair: pair[1].created_at, reverse=True)[:limit]


async def with_source(database: Database) -> list[DatasetRef]:
    """Return the live datasets that have a source, by project and name."""
    async with database.read() as tx:
        filled = set(await sources.assigned_datasets(tx))
        return [one for one in await datasets.live(tx) if one.id in filled]


async def one(resources: Resources, run_id: UUID) -> RunRecord:
    """Return a run as it is now. Raises `Refused` when it was deleted with its dataset."""
    async with resources.database.read() as tx:
        run = await runs.by_id(tx, run_id)
    if run is None:
        raise Refused(reason=f"There is no run {run_id} any more: its dataset was deleted.")
    return run


async def follow(resources: Resources, run_id: UUID) -> RunRecord:
    """Do a run here, or wait while another process does it, and return it when it has ended.

    A run that has to be tried again later, because its source is away, is returned while it waits: queued, with an error.
    """
    while True:
        dataset_id = (await one(resources, run_id)).dataset_id
        await requests.run_due(resources, dataset_id)
        run = await one(resources, run_id)
        if run.state not in ("queued", "running") or (run.state == "queued" and run.error is not None):
            return run
        await asyncio.sleep(POLL)


async def pending(database: Database, dataset_ids: Sequence[UUID]) -> int:
    """Count the rows of some datasets that still have to be embedded."""
    async with database.read() as tx:
        return await monitor.pending(tx, dataset_ids)
