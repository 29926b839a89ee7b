"""Print what still waits after text came in, and who does it or what to type: the same words for every command."""

from evervec.cli.terminal import output
from evervec.pipeline.status.outlook import Left, Outlook


def show_left(left: Left) -> None:
    """Say what waits and what to do, if anything does."""
    if left.outlook is not None and left.rest is not None:
        output.note(
            f"{left.pending:,} rows wait to be embedded: {left.rest} A worker goes on by itself as soon as that is over; "
            "`evervec backfill` tries it again now."
        )
    elif left.outlook is not None:
        show_outlook(left.outlook)


def show_outlook(outlook: Outlook) -> None:
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
