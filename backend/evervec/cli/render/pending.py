"""Print what still waits after text came in, who does it and what to type: the same words for every command."""

from evervec.cli.terminal import output
from evervec.pipeline.status.pending import PendingRows, PendingWork


def show_pending_rows(found: PendingRows) -> None:
    """Print what waits and what to do, if anything waits."""
    if found.work is not None and found.pause_reason is not None:
        output.info(
            f"{found.pending:,} rows wait to be embedded: {found.pause_reason} A worker continues by itself as soon as that "
            "is over; `evervec backfill` tries it again now."
        )
    elif found.work is not None:
        show_pending_work(found.work)


def show_pending_work(work: PendingWork) -> None:
    """Print who does what waits."""
    if work.queue_reason is not None:
        output.info(
            f"{work.queue_reason} {work.pending:,} rows wait to be embedded; `evervec backfill` does it without NATS."
        )
    elif work.worker_listens:
        output.info(f"{work.pending:,} rows wait to be embedded; a worker is at it. See `evervec status`.")
    elif work.pending or work.unread:
        output.info(
            f"{work.pending:,} rows wait to be embedded and no worker is running. Run `{work.run}` to "
            "have them scored, extracted and embedded, or `evervec backfill` to have them embedded at once."
        )
