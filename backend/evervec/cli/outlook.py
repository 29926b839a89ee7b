"""What still waits after text came in, and who does it or what to type: the same words for every command."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evervec.cli import output
from evervec.pipeline import ingest, run_report
from evervec.pipeline.resources import Resources
from evervec.store.datasets import Dataset


@dataclass(frozen=True)
class Left:
    """Rows that wait in some datasets; `outlook` says who takes them up, `rest` why the provider takes nobody's."""

    pending: int
    outlook: ingest.Outlook | None = None
    rest: str | None = None


async def left(resources: Resources, datasets: Sequence[Dataset]) -> Left:
    """What is still to be embedded in some datasets."""
    pending = await run_report.pending(resources, [one.id for one in datasets])
    if not pending:
        return Left(0)
    outlook = await ingest.outlook(resources, datasets[0].project, datasets[0].slug)
    provider = await resources.provider()
    rest = provider.pause_error if provider.paused_seconds > 0 else None
    return Left(pending, replace(outlook, pending=pending), rest)


def show_left(left: Left) -> None:
    """Say what waits and what to do, if anything does."""
    if left.outlook is not None and left.rest is not None:
        output.note(
            f"{left.pending:,} rows wait to be embedded: {left.rest} A worker goes on by itself as soon as that is over; "
            "`evervec backfill` tries it again now."
        )
    elif left.outlook is not None:
        show_outlook(left.outlook)


def show_outlook(outlook: ingest.Outlook) -> None:
    """Say who takes up what waits."""
    if outlook.queue_reason is not None:
        output.note(
            f"{outlook.queue_reason} {outlook.pending:,} rows wait to be embedded; `evervec backfill` does it without NATS."
        )
    elif outlook.worker_listens:
        output.note(f"{outlook.pending:,} rows wait to be embedded; a worker is at it. See `evervec status`.")
    elif outlook.pending or outlook.unread:
        output.note(
            f"{outlook.pending:,} rows wait to be embedded and no worker is running. Run `{outlook.run}` to "
            "have them scored, extracted and embedded, or `evervec backfill` to have them embedded at once."
        )
