"""Fills every missing and every stale embedding, from the command line, with or without workers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from evervec.errors import Refused
from evervec.pipeline import chunking
from evervec.pipeline.batch import router
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store import datasets, rows
from evervec.store.batch import batch_queue as deferring
from evervec.store.datasets import Dataset
from evervec.store.schema import populate
from evervec.store.schema.embeddables import BY_KIND, BY_NAME

Progress = Callable[[int], None]


@dataclass(frozen=True)
class PendingShare:
    """Rows still to embed of one kind in one dataset."""

    project: str
    dataset: str
    kind: str
    pending: int


@dataclass
class BackfillReport:
    """`pending` counts the rows that wait now: before the run for a plan, after it for a run. `deferred` of them went to
    batch `jobs`, and `reason` says why others did not."""

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


async def plan(resources: Resources, *, dataset: str | None = None, kind: str | None = None) -> BackfillReport:
    """Count what a run would do; changes nothing. Raises `Refused` for an unknown kind or dataset."""
    if kind is not None and kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    report = BackfillReport()
    async with resources.database.read() as tx:
        for one in await _smallest_first(resources, dataset):
            for number, pending in (await rows.pending_by_kind(tx, one.id)).items():
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
    """Take in rows that no trigger saw, then embed what is pending. A second run finds nothing and sends nothing.

    With `deferred` it is sent as batch jobs, without a word about it where the provider has those and there is enough;
    without it also what was put into the batch lane is embedded now, unless a job holds it.
    Raises `NoBatchError`, and `Refused` for a kind in a batch job, which takes every kind.
    """
    started = monotonic()
    if deferred and kind is not None:
        raise Refused(reason="A batch job takes rows of every kind: leave --kind out, or --deferred.")
    total = EmbedCounts()
    async for _ in populate.run(resources.database):
        pass
    waiting = await plan(resources, dataset=dataset, kind=kind)
    if kind is None and await router.choose_batch(resources, deferred, waiting.pending):
        return await _defer(resources, dataset, started, progress)
    if deferred is False:
        async with resources.database.transaction() as tx:
            await deferring.unmark(tx, [one.id for one in await datasets.find(tx, dataset)])
    number = BY_NAME[kind].kind if kind else None
    for one in await _smallest_first(resources, dataset):
        total.add(await embed_dataset(resources, one.id, kind=number, batch=batch, progress=progress))
    left = await plan(resources, dataset=dataset, kind=kind)
    return BackfillReport(
        left.pending,
        total.success,
        total.failed,
        total.sent,
        total.reused,
        round(monotonic() - started, 3),
        left.shares,
    )


async def _defer(
    resources: Resources, dataset: str | None, started: float, progress: Progress | None
) -> BackfillReport:
    """Everything that waits is put into the batch lane, so that no worker embeds it meanwhile, and sent."""
    hours = resources.settings.batch_hours
    async with resources.database.transaction() as tx:
        scope = [one.id for one in await datasets.find(tx, dataset)]
        await deferring.mark_datasets(tx, scope, hours=hours)
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


async def _smallest_first(resources: Resources, dataset: str | None) -> list[Dataset]:
    chunker = await chunking.active(resources)
    async with resources.database.read() as tx:
        by_project = await datasets.pending_by_project(tx, chunker.recipe.key)
        order = {project_id: place for place, (project_id, _, _) in enumerate(by_project)}
        return sorted(await datasets.find(tx, dataset), key=lambda d: order[d.project_id])
