"""The indexing of a dataset: what it holds, its runs, what they cost and saved. Read only, nothing is started here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Field

from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.sources import SourceType
from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.due import next_due
from evervec.pipeline.status.run_report import (
    ChunkCounts,
    DocumentCounts,
    RunReport,
    Savings,
    rounded,
    run_report,
)
from evervec.sources.files.file_uris import path_of
from evervec.store import documents, monitor, runs, sources
from evervec.store.address.parsing import where
from evervec.store.database.session import Database, ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.monitor import Coverage
from evervec.store.runs import RunCounts, RunRecord, RunSeconds
from evervec.store.schema.embeddables import CHUNK
from evervec.store.sources import SourceRecord
from evervec.store.spaces import unchunked

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class SourceStatus:
    """Where a dataset's documents come from; `where` holds no credentials."""

    type: SourceType
    name: str
    where: str
    synced_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run is, by what it has written: documents done, of how many (known of a delta alone), and where."""

    documents: int
    of: int | None = None
    at: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunningReport(RunReport):
    """The running run. Without a process that works on it (`alive` false) the next worker continues it."""

    alive: bool
    progress: RunProgress


@dataclass(frozen=True, kw_only=True)
class IndexStatus:
    """What a dataset holds and what happens to it. Embedded, pending and failed count chunks."""

    dataset_id: UUID
    project: str
    dataset: str
    source: SourceStatus | None = None
    documents: int
    chunks: int
    embedded: int
    pending: int
    failed: int
    waiting_documents: Annotated[int, Field(description="Documents whose chunks are still to be made.")]
    running: RunningReport | None = None
    queued: RunReport | None = None
    last: RunReport | None = None
    next_full_rebuild: Annotated[
        datetime | None, Field(description="UTC; null when the schedule is off, or nothing fills it.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SavingsWithTime(Savings):
    """The same with the seconds of `full_run` less the run's own; null while no run from nothing was measured."""

    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredRun(RunReport):
    """A run with the seconds that it saved."""

    saved: SavingsWithTime | None = None


@dataclass(frozen=True, kw_only=True)
class TotalSavings:
    """The sum of what single runs saved; null where nothing is known."""

    texts: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """All finished runs that are kept (the newest 200), together."""

    runs: int
    documents: DocumentCounts
    chunks: ChunkCounts
    texts_sent: int
    embeddings_generated: int
    embeddings_reused: int
    requests: int
    tokens: int
    cost_usd: float | None = None
    seconds: RunSeconds
    saved: TotalSavings


@dataclass(frozen=True, kw_only=True)
class IndexMetrics:
    """What the runs of a dataset did, cost and saved."""

    dataset_id: UUID
    project: str
    dataset: str
    full_run: Annotated[MeasuredRun | None, Field(description="The newest run that did everything from nothing.")] = (
        None
    )
    totals: RunTotals
    runs: list[MeasuredRun]


async def status(resources: Resources, name: str) -> IndexStatus:
    """Return what a dataset holds and what happens to it: its source, its runs, the next full rebuild.

    Of the running run `alive` tells whether a process works on it; one that died is continued by the next worker.
    Raises `UnknownDatasetError`, or `Refused` for a name that several datasets have.
    """
    dataset = await requests.dataset(resources.database, name)
    found = await _status(resources, dataset)
    if found.running is not None and not found.running.alive:
        # it may have ended between the look at its row and the look at its lock
        found = await _status(resources, dataset)
    return found


async def _status(resources: Resources, dataset: DatasetRef) -> IndexStatus:
    async with resources.database.read() as tx:
        filled = await sources.of_dataset(tx, dataset.id)
        totals = await documents.totals(tx, dataset.id, dataset.space_id)
        covered = (await monitor.coverage(tx, [dataset.id]))[dataset.id].kinds.get(CHUNK.name, Coverage())
        waiting = await unchunked.count(tx, dataset.id, CHUNKING)
        dataset_runs = await runs.of_dataset(tx, dataset.id)
        alive = await runs.is_indexing(tx, dataset.id)
        due = await _next_full_rebuild(resources, tx) if filled is not None else None
    return IndexStatus(
        dataset_id=dataset.id,
        project=dataset.project,
        dataset=dataset.slug,
        source=None if filled is None else _source(resources, filled[0]),
        documents=totals.documents,
        chunks=totals.chunks,
        embedded=covered.embedded,
        pending=covered.pending,
        failed=covered.failed,
        waiting_documents=waiting,
        running=None if dataset_runs.running is None else _running(dataset_runs.running, alive),
        queued=None if dataset_runs.queued is None else run_report(dataset_runs.queued),
        last=None if dataset_runs.last is None else run_report(dataset_runs.last),
        next_full_rebuild=due,
    )


def _source(resources: Resources, record: SourceRecord) -> SourceStatus:
    return SourceStatus(
        type=SourceType(record.type), name=record.name, where=_where(resources, record), synced_at=record.synced_at
    )


def _where(resources: Resources, record: SourceRecord) -> str:
    """Return where a source is, without credentials."""
    if record.type == SourceType.FILES:
        return ", ".join(str(path_of(root)) for root in record.spec["roots"])
    if record.url_encrypted is None:
        return resources.database.where
    try:
        return where(resources.unseal(record.url_encrypted))
    except Refused as error:
        return f"an address that can not be read: {error}"


def _running(run: RunRecord, alive: bool) -> RunningReport:
    """Return a running run and how much of it is written so far. Only a delta knows how many documents there will be."""
    report = run_report(run)
    done = sum(vars(report.documents).values())
    of = None if run.changed is None else sum(map(len, run.changed.values()))
    return RunningReport(**vars(report), alive=alive, progress=RunProgress(documents=done, of=of, at=run.cursor))


async def _next_full_rebuild(resources: Resources, tx: ReadTx) -> datetime | None:
    cron = resources.settings.index_cron
    return next_due(cron, await tx.now()) if cron else None


async def metrics(database: Database, name: str, *, newest: int = 20) -> IndexMetrics:
    """Return what the runs of a dataset did, cost and saved: all that are kept together, and the newest one by one.

    Saved is what a first run would have sent, less what was sent. Its seconds are those of `full_run`, the newest
    run that did everything from nothing, less the run's own; never below 0, and None while no such run was measured.
    Only a run that came to its end and embedded by itself has saved anything. Raises as `status` does.
    """
    dataset = await requests.dataset(database, name)
    async with database.read() as tx:
        finished = await runs.finished(tx, dataset.id)
        listed = await runs.recent(tx, dataset.id, limit=newest)
        full = await runs.last_full(tx, dataset.id)
    if full is not None and not full.embeds:
        full = None  # its embedding took place elsewhere and was not timed
    return IndexMetrics(
        dataset_id=dataset.id,
        project=dataset.project,
        dataset=dataset.slug,
        full_run=None if full is None else _measured(full, full),
        totals=_totals(finished, full),
        runs=[_measured(run, full) for run in listed],
    )


def _measured(run: RunRecord, full: RunRecord | None) -> MeasuredRun:
    values = vars(run_report(run))
    if values["saved"] is not None:
        seconds = None if full is None else round(max(0.0, full.seconds.total - run.seconds.total), 3)
        values = values | {"saved": SavingsWithTime(**vars(values["saved"]), seconds=seconds)}
    return MeasuredRun(**values)


def _totals(finished: Sequence[RunRecord], full: RunRecord | None) -> RunTotals:
    counts = sum((run.counts for run in finished), RunCounts())
    stages = [field.name for field in fields(RunSeconds)]
    saved = [report.saved for report in (_measured(run, full) for run in finished) if report.saved is not None]
    return RunTotals(
        runs=len(finished),
        documents=DocumentCounts.of(counts),
        chunks=ChunkCounts.of(counts),
        texts_sent=counts.texts_sent,
        embeddings_generated=counts.embeddings_generated,
        embeddings_reused=counts.embeddings_reused,
        requests=counts.requests,
        tokens=counts.tokens,
        cost_usd=_sum(run.cost_usd for run in finished),
        seconds=rounded(RunSeconds(*(sum(getattr(run.seconds, stage) for run in finished) for stage in stages))),
        saved=TotalSavings(
            texts=_sum(one.texts for one in saved),
            tokens=_sum(one.tokens for one in saved),
            cost_usd=_sum(one.cost_usd for one in saved),
            seconds=_sum(one.seconds for one in saved),
        ),
    )


def _sum(values: Iterable[Number | None]) -> Number | None:
    """Add what is known of some numbers; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
