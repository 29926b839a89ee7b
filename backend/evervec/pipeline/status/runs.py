"""Index runs as people look at them: one as a document, the newest ones, one that is followed to its end."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.store import datasets, monitor, runs, sources
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord
from evervec.store.session import Database

POLL = 0.2
"""Seconds between two looks at a run that another process works on."""


def run_document(run: RunRecord) -> dict[str, Any]:
    """A run for JSON; seconds by stage, dollars where the provider's price is known, else None.

    `full` is what a run without memory would have sent, None until a run is done. `saved` is the difference to what was
    sent; None as well for a run that left the embedding to workers. `changed` counts the ids of a delta, by table.
    """
    counts = run.counts
    return {
        "run": str(run.id),
        "dataset_id": str(run.dataset_id),
        "mode": run.mode,
        "trigger": run.trigger,
        "embeds": run.embeds,
        "lane": "batch" if run.deferred else "online",
        "state": run.state,
        "error": run.error,
        "attempts": run.attempts,
        "changed": None if run.changed is None else {table: len(ids) for table, ids in run.changed.items()},
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "documents": {
            name: getattr(counts, f"documents_{name}")
            for name in ("new", "changed", "unchanged", "moved", "deleted", "skipped")
        },
        "chunks": {name: getattr(counts, f"chunks_{name}") for name in ("new", "updated", "skipped", "deleted")},
        "texts_sent": counts.texts_sent,
        "embeddings_generated": counts.embeddings_generated,
        "embeddings_reused": counts.embeddings_reused,
        "requests": counts.requests,
        "tokens": counts.tokens,
        "cost_usd": run.cost_usd,
        "full": _full(run),
        "saved": _saved(run),
        "seconds": {stage: round(seconds, 3) for stage, seconds in asdict(run.seconds).items()},
        "skipped": run.skipped,
        "examples": run.examples,
    }


def _full(run: RunRecord) -> dict[str, Any] | None:
    if run.state != "done":
        return None
    return {"texts": run.counts.full_texts, "tokens": run.counts.full_tokens, "cost_usd": run.full_cost_usd}


def _saved(run: RunRecord) -> dict[str, Any] | None:
    full = _full(run)
    if full is None or not run.embeds:
        return None
    cost = None if run.cost_usd is None or run.full_cost_usd is None else max(0.0, run.full_cost_usd - run.cost_usd)
    return {
        # a text that was sent twice, because the provider failed the first time, is no saving below nothing
        "texts": max(0, run.counts.full_texts - run.counts.texts_sent),
        "tokens": max(0, run.counts.full_tokens - run.counts.tokens),
        "cost_usd": cost,
    }


async def recent(database: Database, name: str | None, *, limit: int) -> list[tuple[DatasetRef, RunRecord]]:
    """The newest runs of one dataset, or of all, the newest first. Raises `UnknownDatasetError`."""
    found: list[tuple[DatasetRef, RunRecord]] = []
    async with database.read() as tx:
        for one in await datasets.find(tx, name):
            found += [(one, run) for run in await runs.recent(tx, one.id, limit=limit)]
    return sorted(found, key=lambda pair: pair[1].created_at, reverse=True)[:limit]


async def sourced(database: Database) -> list[DatasetRef]:
    """The live datasets that have a source, by project and name."""
    async with database.read() as tx:
        filled = set(await sources.assigned_datasets(tx))
        return [one for one in await datasets.live(tx) if one.id in filled]


async def one(resources: Resources, run_id: UUID) -> RunRecord:
    """A run as it is now. Raises `Refused` when it went with its dataset."""
    async with resources.database.read() as tx:
        run = await runs.by_id(tx, run_id)
    if run is None:
        raise Refused(reason=f"There is no run {run_id} any more: its dataset was deleted.")
    return run


async def follow(resources: Resources, run_id: UUID) -> RunRecord:
    """See a run through: worked off here, or watched while another process is at it.

    One that has to be tried again later, because its source is away, is answered as it waits: queued, with an error.
    """
    while True:
        dataset_id = (await one(resources, run_id)).dataset_id
        await requests.run_due(resources, dataset_id)
        run = await one(resources, run_id)
        if run.state not in ("queued", "running") or (run.state == "queued" and run.error is not None):
            return run
        await asyncio.sleep(POLL)


async def pending(database: Database, dataset_ids: Sequence[UUID]) -> int:
    """Rows of some datasets that still have to be embedded."""
    async with database.read() as tx:
        return await monitor.pending(tx, dataset_ids)
