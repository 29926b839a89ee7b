"""How the indexing of a dataset stands, and what its runs cost and saved: read only, nothing is started here."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from evervec.domain.sources import SourceType
from evervec.errors import Refused
from evervec.pipeline import chunking
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.due import next_due
from evervec.pipeline.status.runs import run_document
from evervec.sources.files.file_uris import path_of
from evervec.store import documents, monitor, runs, sources
from evervec.store.datasets import DatasetRef
from evervec.store.monitor import Coverage
from evervec.store.runs import RunCounts, RunRecord, RunSeconds
from evervec.store.schema.embeddables import CHUNK
from evervec.store.session import Database, ReadTx, where
from evervec.store.sources import SourceRecord


async def status(resources: Resources, name: str) -> dict[str, Any]:
    """What a dataset holds and what happens to it: its source, its runs, the next full rebuild.

    Of the run at work `is_indexing` tells whether a process is at it; one that died is taken up by the next worker that looks.
    Raises `UnknownDatasetError`, or `Refused` for a name that several datasets have.
    """
    dataset = await requests.dataset(resources.database, name)
    found = await _status(resources, dataset)
    if found["running"] is not None and not found["running"]["alive"]:
        # it may have ended between the look at its row and the look at its lock
        found = await _status(resources, dataset)
    return found


async def _status(resources: Resources, dataset: DatasetRef) -> dict[str, Any]:
    chunker = await chunking.active(resources)
    async with resources.database.read() as tx:
        filled = await sources.of_dataset(tx, dataset.id)
        totals = await documents.totals(tx, dataset.id)
        covered = (await monitor.coverage(tx, [dataset.id]))[dataset.id].kinds.get(CHUNK.name, Coverage())
        waiting = await documents.count_unchunked(tx, dataset.id, chunker.recipe.key)
        standing = await runs.of_dataset(tx, dataset.id)
        alive = await runs.is_indexing(tx, dataset.id)
        due = await _next_full_rebuild(resources, tx) if filled is not None else None
    return {
        **_named(dataset),
        "source": None if filled is None else _source(resources, filled[0]),
        "documents": totals.documents,
        "chunks": totals.chunks,
        "embedded": covered.embedded,
        "pending": covered.pending,
        "failed": covered.failed,
        "waiting_documents": waiting,
        "running": None if standing.running is None else _running(standing.running, alive),
        "queued": None if standing.queued is None else run_document(standing.queued),
        "last": None if standing.last is None else run_document(standing.last),
        "next_full_rebuild": due,
    }


def _named(dataset: DatasetRef) -> dict[str, Any]:
    return {"dataset_id": str(dataset.id), "project": dataset.project, "dataset": dataset.slug}


def _source(resources: Resources, record: SourceRecord) -> dict[str, Any]:
    return {
        "type": record.type,
        "name": record.name,
        "where": _where(resources, record),
        "synced_at": record.synced_at,
    }


def _where(resources: Resources, record: SourceRecord) -> str:
    """Where a source is, without credentials."""
    if record.type == SourceType.FILES:
        return ", ".join(str(path_of(root)) for root in record.spec["roots"])
    if record.url_encrypted is None:
        return resources.database.where
    try:
        return where(resources.unseal(record.url_encrypted))
    except Refused as error:
        return f"an address that can not be read: {error}"


def _running(run: RunRecord, alive: bool) -> dict[str, Any]:
    """A run at work, and how far it is: what was written of it so far. Only a delta knows how many there will be."""
    document = run_document(run)
    done = sum(document["documents"].values())
    of = None if run.changed is None else sum(map(len, run.changed.values()))
    return {**document, "alive": alive, "progress": {"documents": done, "of": of, "at": run.cursor}}


async def _next_full_rebuild(resources: Resources, tx: ReadTx) -> datetime | None:
    cron = resources.settings.index_cron
    return next_due(cron, await tx.now()) if cron else None


async def metrics(database: Database, name: str, *, newest: int = 20) -> dict[str, Any]:
    """What the runs of a dataset did, cost and saved: all that are kept together, and the newest one by one.

    Saved is what a run without memory would have sent, less what was sent. Its seconds are those of `full_run`, the newest
    run that did everything from nothing, less the run's own; never below 0, and None while no such run was measured.
    Only a run that came to its end and embedded by itself has saved anything. Raises as `status` does.
    """
    dataset = await requests.dataset(database, name)
    async with database.read() as tx:
        kept = await runs.finished(tx, dataset.id)
        shown = await runs.recent(tx, dataset.id, limit=newest)
        full = await runs.last_full(tx, dataset.id)
    if full is not None and not full.embeds:
        full = None  # its embedding took place elsewhere and was not timed
    return {
        **_named(dataset),
        "full_run": None if full is None else _measured(full, full),
        "totals": _totals(kept, full),
        "runs": [_measured(run, full) for run in shown],
    }


def _measured(run: RunRecord, full: RunRecord | None) -> dict[str, Any]:
    """A run as everybody shows it, with the seconds that it saved."""
    document = run_document(run)
    if document["saved"] is not None:
        seconds = None if full is None else round(max(0.0, full.seconds.total - run.seconds.total), 3)
        document["saved"] = {**document["saved"], "seconds": seconds}
    return document


def _totals(kept: Sequence[RunRecord], full: RunRecord | None) -> dict[str, Any]:
    whole = [_measured(run, full) for run in kept]
    counts = sum((run.counts for run in kept), RunCounts())
    seconds = {stage: round(sum(getattr(run.seconds, stage) for run in kept), 3) for stage in asdict(RunSeconds())}
    saved = [document["saved"] for document in whole if document["saved"] is not None]
    return {
        "runs": len(kept),
        "documents": _of(counts, "documents_"),
        "chunks": _of(counts, "chunks_"),
        "texts_sent": counts.texts_sent,
        "embeddings_generated": counts.embeddings_generated,
        "embeddings_reused": counts.embeddings_reused,
        "requests": counts.requests,
        "tokens": counts.tokens,
        "cost_usd": _sum(run.cost_usd for run in kept),
        "seconds": seconds,
        "saved": {name: _sum(one[name] for one in saved) for name in ("texts", "tokens", "cost_usd", "seconds")},
    }


def _of(counts: RunCounts, prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in asdict(counts).items() if name.startswith(prefix)}


def _sum(values: Iterable[float | None]) -> float | None:
    """What is known of some numbers; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
