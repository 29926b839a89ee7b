"""The option `--batch` of the commands that take text in, and what they print at their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from evervec.cli.render.batch_jobs import price
from evervec.cli.render.pending import show_pending_rows
from evervec.cli.terminal import output
from evervec.pipeline.batch.flush import FlushResult
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import runs
from evervec.pipeline.status.pending import PendingRows, pending_rows
from evervec.store.datasets import DatasetRef

Batch = Annotated[
    bool,
    typer.Option(
        "--batch",
        "--deferred",
        metavar="",
        help="Leave the embedding to batch jobs, at half the price.",
    ),
]


@dataclass(frozen=True)
class PlannedBatch:
    """Rows that wait in some datasets, and what a flush would send of each."""

    pending: int
    planned: Sequence[FlushResult]

    @property
    def rows(self) -> int:
        """Return how many of them a flush would send."""
        return sum(one.rows for one in self.planned)


async def still_pending(
    resources: Resources, datasets: Sequence[DatasetRef], *, batch: bool
) -> PendingRows | PlannedBatch:
    """Return what is still to be embedded in some datasets: by workers, or by batch jobs."""
    return await (planned_batch if batch else pending_rows)(resources, datasets)


async def planned_batch(resources: Resources, datasets: Sequence[DatasetRef]) -> PlannedBatch:
    """Return what batch jobs would take of some datasets; nothing is sent."""
    manager = BatchManager(resources)
    planned = [await manager.flush_queue(dataset=str(one.id), dry_run=True) for one in datasets]
    return PlannedBatch(await runs.pending(resources.database, [one.id for one in datasets]), planned)


def pending_document(found: PendingRows | PlannedBatch) -> dict[str, int]:
    """Return what waits for JSON."""
    return {"pending": found.pending} | ({"deferred": found.rows} if isinstance(found, PlannedBatch) else {})


def show_pending(found: PendingRows | PlannedBatch) -> None:
    """Print what waits and what to type, if anything waits."""
    if isinstance(found, PendingRows):
        show_pending_rows(found)
    elif found.rows:
        output.info(f"{found.rows:,} rows wait for `evervec batch flush`{price(found.planned)}.")
