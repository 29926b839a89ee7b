"""Embed every row whose vector is missing or stale, from the command line, with or without workers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.spending import Reason
from evervec.errors import Refused
from evervec.pipeline.batch import router
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.budget.allowance import closed
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.batch import batch_queue
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.schema import populate
from evervec.store.schema.embeddables import BY_KIND, BY_NAME

Progress = Callable[[int], None]

BUDGET_PASSES = 3
"""How often rows are looked for that a budget has room for after all: what another process took too much is given back."""


@dataclass(frozen=True)
class PendingShare:
    """The number of rows still to embed, of one kind in one dataset."""

    project: str
    dataset: str
    kind: str
    pending: int


@dataclass
class BackfillReport:
    """The result of a backfill, or its plan.

    `pending` counts the rows that wait now: for a plan before the backfill, else after it. `deferred` of them were sent
    as batch `jobs`, and `reason` says why others were not, or, with `closed`, which budget is used up.
    """

    pending: int = 0
    embedded: int = 0
    failed: int = 0
    sent: int = 0
    reused: int = 0
    seconds: float = 0.0
    shares: list[PendingShare] = field(default_factory=list)
    deferred: int = 0
    jobs: list[str] = field(default_factory=list)
    reason: str | None = None
    closed: bool = False


async def plan(resources: Resources, *, dataset: str | None = None, kind: str | None = None) -> BackfillReport:
    """Count what a backfill would embed, without changing anything. Raises `Refused` for an unknown kind or dataset."""
    if kind is not None and kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    report = BackfillReport()
    async with resources.database.read() as tx:
        for one in await _smallest_first(resources, dataset):
            for number, pending in (await rows.pending_by_kind(tx, one.id, one.space_id)).items():
                if kind in (None, BY_KIND[number].name):
                    report.shares.append(PendingShare(one.project, one.slug, BY_KIND[number].name, pending))
                    report.pending += pending
    return report


async def run(
    resources: Resources,
    *,
    dataset: str | None = None,
    kind: str | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
    deferred: bool | None = None,
) -> BackfillReport:
    """Register rows that no trigger saw, then embed what is pending. A second call finds nothing and sends nothing.

    `deferred` True sends batch jobs; None does so if the provider has a batch API and enough rows wait; False embeds
    online, also the rows that were marked for a batch job, unless a job has them already.
    Raises `NoBatchError`, and `Refused` for a kind together with batch jobs, which take every kind.
    """
    started = monotonic()
    if deferred and kind is not None:
        raise Refused(reason="A batch job takes rows of every kind: leave --kind out, or --batch.")
    total = EmbedCounts()
    async for _ in populate.run(resources.database):
        pass
    waiting = await plan(resources, dataset=dataset, kind=kind)
    if kind is None and await router.choose_batch(resources, deferred, waiting.pending):
        return await _send_as_batch(resources, dataset, started, progress)
    if deferred is False:
        async with resources.database.transaction() as tx:
            await batch_queue.unmark(tx, [one.id for one in await datasets.find(tx, dataset)])
    number = BY_NAME[kind].kind if kind else None
    reason, left = None, waiting
    for _ in range(BUDGET_PASSES):
        for one in await _smallest_first(resources, dataset):
            embedded = await embed_dataset(
                resources, one.id, kind=number, batch=batch, progress=progress, reason=Reason.BACKFILL
            )
            total.add(embedded)
        left = await plan(resources, dataset=dataset, kind=kind)
        reason = await _closed(resources, dataset) if left.pending else None
        if not left.pending or reason is not None or not (await resources.provider()).limited:
            break
    return BackfillReport(
        left.pending,
        total.success,
        total.failed,
        total.sent,
        total.reused,
        round(monotonic() - started, 3),
        left.shares,
        reason=reason,
        closed=reason is not None,
    )


async def _closed(resources: Resources, dataset: str | None) -> str | None:
    """Return why a budget keeps rows waiting, if one does."""
    provider = await resources.provider()
    for one in await _smallest_first(resources, dataset):
        reason = await closed(resources.database, provider, one.id)
        if reason is not None:
            return reason
    return None


async def _send_as_batch(
    resources: Resources, dataset: str | None, started: float, progress: Progress | None
) -> BackfillReport:
    """Mark everything that waits for batch jobs, so that no worker embeds it meanwhile, and submit the jobs."""
    hours = resources.settings.batch_hours
    async with resources.database.transaction() as tx:
        scope = [one.id for one in await datasets.find(tx, dataset)]
        await batch_queue.mark_datasets(tx, scope, hours=hours)
    flushed = await BatchManager(resources).flush_queue(dataset=dataset, progress=progress)
    left = await plan(resources, dataset=dataset)
    return BackfillReport(
        left.pending,
        reused=flushed.reused,
        embedded=flushed.reused,
        seconds=round(monotonic() - started, 3),
        shares=left.shares,
        deferred=flushed.rows,
        jobs=[str(job.id) for job in flushed.jobs],
        reason=flushed.reason,
    )


async def _smallest_first(resources: Resources, dataset: str | None) -> list[DatasetRef]:
    async with resources.database.read() as tx:
        by_project = await datasets.pending_by_project(tx, CHUNKING)
        order = {project_id: place for place, (project_id, _, _) in enumerate(by_project)}
        return sorted(await datasets.find(tx, dataset), key=lambda d: order[d.project_id])
