"""What still waits after text came in, and who takes it up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evervec.domain.naming import slug
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview, runs
from evervec.store import datasets, messages, monitor
from evervec.store.datasets import DatasetRef


@dataclass(frozen=True)
class Outlook:
    """What still waits in a dataset after an import: rows to embed, messages to score or extract; and who does it.

    `queue_reason` says why NATS does not answer, `run` names the command that starts a worker here.
    """

    pending: int
    unread: int
    worker_listens: bool
    queue_reason: str | None
    run: str


async def outlook(resources: Resources, project: str, dataset: str) -> Outlook:
    """What an import left to do. Raises `UnknownDatasetError`."""
    settings = resources.settings
    async with resources.database.read() as tx:
        found = await datasets.find(tx, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
        ids = [one.id for one in found]
        pending = await monitor.pending(tx, ids)
        reading = await messages.progress(tx, ids)
    queue = await overview.queue(resources)
    return Outlook(
        pending,
        reading["unscored"] + reading["unextracted"],
        queue.get("worker_listens", False),
        queue.get("reason"),
        "evervec up" if settings.embedded_database and settings.embedded_nats else "evervec worker",
    )


@dataclass(frozen=True)
class Left:
    """Rows that wait in some datasets; `outlook` says who takes them up, `rest` why the provider takes nobody's."""

    pending: int
    outlook: Outlook | None = None
    rest: str | None = None


async def left(resources: Resources, targets: Sequence[DatasetRef]) -> Left:
    """What is still to be embedded in some datasets."""
    pending = await runs.pending(resources.database, [one.id for one in targets])
    if not pending:
        return Left(0)
    found = await outlook(resources, targets[0].project, targets[0].slug)
    provider = await resources.provider()
    rest = provider.pause_error if provider.paused_seconds > 0 else None
    return Left(pending, replace(found, pending=pending), rest)
