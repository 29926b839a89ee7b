"""The tasks that no worker could run, as the entry points show and change them. PostgreSQL keeps no tasks, so it has none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evervec.errors import UnknownDeadLetterError
from evervec.pipeline.resources import Resources

if TYPE_CHECKING:
    from evervec.queue.dead_letters import DeadLetter

# the queue's own module imports NATS, which an installation on PostgreSQL alone never does


async def listed(resources: Resources, most: int) -> "list[DeadLetter]":
    """Return the oldest dead letters. Raises `QueueDownError`."""
    if resources.broker is None:
        return []
    from evervec.queue.dead_letters import dead_letters

    return await dead_letters(resources.broker, most)


async def require(resources: Resources, seqs: Sequence[int]) -> None:
    """Raise `UnknownDeadLetterError` for the first number that is not there, `QueueDownError` if the queue is down."""
    if resources.broker is not None:
        from evervec.queue.dead_letters import require_dead_letters

        await require_dead_letters(resources.broker, seqs)
    elif seqs:
        raise UnknownDeadLetterError(seq=seqs[0])


async def requeue(resources: Resources, seq: int) -> None:
    """Send a dead letter back to its lane. Raises `UnknownDeadLetterError`, `QueueDownError`."""
    if resources.broker is not None:
        from evervec.queue.dead_letters import requeue_dead_letter

        await requeue_dead_letter(resources.broker, seq)


async def drop(resources: Resources, seq: int) -> None:
    """Remove a dead letter for good; nothing happens if it is gone already. Raises `QueueDownError`."""
    if resources.broker is not None:
        from evervec.queue.dead_letters import drop_dead_letter

        await drop_dead_letter(resources.broker, seq)
