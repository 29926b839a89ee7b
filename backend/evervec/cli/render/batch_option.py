"""Text that is left to batch jobs: the option of the commands that take text in, and what they say at their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from evervec.cli.render.batch_jobs import price
from evervec.cli.render.waiting import show_left
from evervec.cli.terminal import output
from evervec.pipeline.batch.flush import FlushResult
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import runs
from evervec.pipeline.status.outlook import Left, left
from evervec.store.datasets import DatasetRef

Deferred = Annotated[
    bool, typer.Option("--deferred", metavar="", help="Leave the embedding to batch jobs, at half the price.")
]


@dataclass(frozen=True)
class Kept:
    """Rows that wait in some datasets, and what a flush would send of each."""

    pending: int
    planned: Sequence[FlushResult]

    @property
    def deferred(self) -> int:
        """How many of them a flush would send."""
        return sum(one.rows for one in self.planned)


async def waiting(resources: Resources, datasets: Sequence[DatasetRef], *, deferred: bool) -> Left | Kept:
    """What is still to be embedded in some datasets: by workers, or by batch jobs."""
    return await (kept if deferred else left)(resources, datasets)


async def kept(resources: Resources, datasets: Sequence[DatasetRef]) -> Kept:
    """What batch jobs would take of some datasets; nothing is sent."""
    manager = BatchManager(resources)
    planned = [await manager.flush_queue(dataset=str(one.id), dry_run=True) for one in datasets]
    return Kept(await runs.pending(resources.database, [one.id for one in datasets]), planned)


def waiting_document(found: Left | Kept) -> dict[str, int]:
    """The same for JSON."""
    return {"pending": found.pending} | ({"deferred": found.deferred} if isinstance(found, Kept) else {})


def show_waiting(found: Left | Kept) -> None:
    """Say what waits and what to type, if anything does."""
    if isinstance(found, Left):
        show_left(found)
    elif found.deferred:
        output.note(f"{found.deferred:,} rows wait for `evervec batch flush`{price(found.planned)}.")
