"""Embed every row whose vector is missing or stale, from the command line, with or without workers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.spending import Reason
from evervec.errors import NoProviderError, Refused
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
from evervec.store.providers import Provider
from evervec.store.schema import populate
from evervec.store.schema.embeddables import BY_KIND, BY_NAME
from evervec.store.words import filling as word_filling

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
    for steps in (populate.run(resources.database), word_filling.register(resources.database)):
        async for _ in steps:
            pass
    while await word_filling.fill(resources.database):
        continue
    await plan(resources, dataset=dataset, kind=kind)  # a kind that there is not is refused before anything is done
    report, scope = BackfillReport(), await _smallest_first(resources, dataset)
    waiting = [(one, await _waiting(resources, one)) for one in scope]
    batched = [] if kind is not None else await router.choose_batch(resources, deferred, waiting)
    if batched:
        await _send_as_batch(resources, batched, report, dataset=dataset, progress=progress)
    ids = {one.id for one in batched}
    rest = [one for one in scope if one.id not in ids]
    if deferred is False:
        async with resources.database.transaction() as tx:
            await batch_queue.unmark(tx, [one.id for one in rest])
    if not deferred:
        number = BY_NAME[kind].kind if kind else None
        await _embed_online(resources, rest, report, kind=number, batch=batch, progress=progress)
    elif left := sum([await _waiting(resources, one) for one in rest]):
        report.reason = report.reason or (
            f"{left:,} of them are of datasets whose provider has no batch API, and `evervec backfill --online` embeds them"
        )
    planned = await plan(resources, dataset=dataset, kind=kind)
    report.pending, report.shares = planned.pending, planned.shares
    if report.closed and not report.pending:
        report.reason, report.closed = None, False
    report.seconds = round(monotonic() - started, 3)
    return report


async def providers_of(resources: Resources, *, dataset: str | None = None) -> list[Provider]:
    """Return who embeds some datasets, or would embed new ones where there is none."""
    async with resources.database.read() as tx:
        scope = await datasets.find(tx, dataset)
    found = dict[UUID, Provider]()
    for one in scope:
        with suppress(NoProviderError):
            provider = await resources.provider_of(one)
            found[provider.id] = provider
    return list(found.values()) or [await resources.provider()]


async def _waiting(resources: Resources, dataset: DatasetRef) -> int:
    async with resources.database.read() as tx:
        return sum((await rows.pending_by_kind(tx, dataset.id, dataset.space_id)).values())


async def _embed_online(
    resources: Resources,
    scope: Sequence[DatasetRef],
    report: BackfillReport,
    *,
    kind: int | None,
    batch: int | None,
    progress: Progress | None,
) -> None:
    """Embed what waits in some datasets; more than once where a budget may have room again. What one lacks stops no other."""
    total = EmbedCounts()
    for _ in range(BUDGET_PASSES):
        again = False
        for one in scope:
            try:
                total.add(
                    await embed_dataset(
                        resources, one.id, kind=kind, batch=batch, progress=progress, reason=Reason.BACKFILL
                    )
                )
                again |= await _may_go_on(resources, one, report)
            except NoProviderError as error:
                report.reason = report.reason or str(error)
        if not again:
            break
    report.embedded += total.success
    report.failed += total.failed
    report.sent += total.sent
    report.reused += total.reused


async def _may_go_on(resources: Resources, dataset: DatasetRef, report: BackfillReport) -> bool:
    """Return whether a budget left rows waiting that it may have room for; tell the report if one is used up."""
    provider = await resources.provider_of(dataset)
    if not provider.limited or not await _waiting(resources, dataset):
        return False
    reason = await closed(resources.database, provider, dataset.id)
    if reason is not None:
        report.reason, report.closed = reason, True
    return reason is None


async def _send_as_batch(
    resources: Resources,
    scope: Sequence[DatasetRef],
    report: BackfillReport,
    *,
    dataset: str | None,
    progress: Progress | None,
) -> None:
    """Mark everything that waits for batch jobs, so that no worker embeds it meanwhile, and submit the jobs."""
    hours = resources.settings.batch_hours
    async with resources.database.transaction() as tx:
        await batch_queue.mark_datasets(tx, [one.id for one in scope], hours=hours)
    flushed = await BatchManager(resources).flush_queue(dataset=dataset, progress=progress)
    report.reused += flushed.reused
    report.embedded += flushed.reused
    report.deferred = flushed.rows
    report.jobs = [str(job.id) for job in flushed.jobs]
    report.reason = flushed.reason


async def _smallest_first(resources: Resources, dataset: str | None) -> list[DatasetRef]:
    async with resources.database.read() as tx:
        by_project = await datasets.pending_by_project(tx, CHUNKING)
        order = {project_id: place for place, (project_id, _, _) in enumerate(by_project)}
        return sorted(await datasets.find(tx, dataset), key=lambda d: order[d.project_id])
