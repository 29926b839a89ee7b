"""What still waits after text came in, and who does it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evervec.domain.naming import slug
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview, runs
from evervec.store import datasets, messages, monitor
from evervec.store.datasets import DatasetRef


@dataclass(frozen=True)
class PendingWork:
    """What waits in a dataset after an import: rows to embed, messages to score or extract (`unread`); and who does it.

    `queue_reason` says why the queue does not answer, `run` names the command that starts a worker here.
    """

    pending: int
    unread: int
    worker_listens: bool
    queue_reason: str | None
    run: str


async def pending_work(resources: Resources, project: str, dataset: str) -> PendingWork:
    """Return what an import left to do. Raises `UnknownDatasetError`."""
    settings = resources.settings
    async with resources.database.read() as tx:
        found = await datasets.find(tx, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
        ids = [one.id for one in found]
        pending = await monitor.pending(tx, ids)
        reading = await messages.progress(tx, ids)
    queue = await overview.queue(resources)
    return PendingWork(
        pending,
        reading["unscored"] + reading["unextracted"],
        bool(queue.worker_listens),
        queue.reason,
        "evervec up" if settings.embedded_database and settings.nats_url is None else "evervec worker",
    )


@dataclass(frozen=True)
class PendingRows:
    """Rows that wait in some datasets; `work` says who embeds them, `pause_reason` why the provider did not answer."""

    pending: int
    work: PendingWork | None = None
    pause_reason: str | None = None


async def pending_rows(resources: Resources, targets: Sequence[DatasetRef]) -> PendingRows:
    """Return what is still to be embedded in some datasets."""
    pending = await runs.pending(resources.database, [one.id for one in targets])
    if not pending:
        return PendingRows(0)
    work = await pending_work(resources, targets[0].project, targets[0].slug)
    provider = await resources.provider_of(targets[0])
    # it stands until the provider has answered again, also while the pause is over and nobody has tried yet
    return PendingRows(pending, replace(work, pending=pending), provider.breaker.error)
