"""Dead letters, the tasks that no worker could run: stored, listed, requeued, dropped."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from evervec.errors import UnknownDeadLetterError
from evervec.queue.jetstream import headers
from evervec.queue.jetstream.delivery import Delivery
from evervec.queue.names import Lane

if TYPE_CHECKING:
    # TaskIQ takes half a second to import, and commands do without it
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.queue_reader import QueueReader


@dataclass(frozen=True)
class DeadLetter:
    """A task that no worker could run. `seq` is its number among the dead letters, `subject` the queue it came from."""

    seq: int
    task_name: str
    reason: str
    subject: str
    deliveries: int
    at: datetime | None
    body: bytes


async def move_to_dead_letters(broker: "JetStreamBroker", delivery: Delivery, task_name: str, reason: str) -> None:
    """Copy a delivery to the dead letters, then acknowledge it. Raise QueueDownError before anything is removed."""
    message = delivery.message
    about = {headers.SUBJECT: message.subject, headers.DELIVERIES: str(delivery.deliveries)}
    found = headers.carried(message.headers) | about
    await add_dead_letter(broker, delivery.seq, task_name, reason, found, message.data)
    await delivery.ack()


async def add_dead_letter(
    broker: "JetStreamBroker", seq: int, task_name: str, reason: str, found: dict[str, str], body: bytes
) -> None:
    """Publish one dead letter; `seq` is the message's number in the task stream. Raise QueueDownError."""
    about = {
        headers.MSG_ID: f"dlq:{seq}",
        headers.TASK: headers.text(task_name),
        headers.ERROR: headers.text(reason),
        headers.SEQ: str(seq),
    }
    await broker.publish(broker.layout.dead_letter(task_name), body, found | about)


async def dead_letters(broker: "JetStreamBroker | QueueReader", limit: int = 100) -> list[DeadLetter]:
    """Return the oldest `limit` dead letters, oldest first. Raise QueueDownError."""
    found: list[DeadLetter] = []
    with broker.connection_errors():
        while len(found) < limit:
            after = found[-1].seq + 1 if found else 1
            raw = await _get(broker, seq=after, subject=broker.layout.dead, next=True)
            if raw is None:
                break
            found.append(_letter(broker, raw))
    return found


async def require_dead_letters(broker: "JetStreamBroker | QueueReader", seqs: Iterable[int]) -> None:
    """Raise UnknownDeadLetterError for the first number that is not there, QueueDownError if NATS is down."""
    with broker.connection_errors():
        for seq in seqs:
            if await _get(broker, seq=seq) is None:
                raise UnknownDeadLetterError(seq=seq)


async def requeue_dead_letter(broker: "JetStreamBroker | QueueReader", seq: int) -> DeadLetter:
    """Send a dead letter back to its lane and remove it here. Raise UnknownDeadLetterError, QueueDownError."""
    with broker.connection_errors():
        raw = await _get(broker, seq=seq)
    if raw is None:
        raise UnknownDeadLetterError(seq=seq)
    letter = _letter(broker, raw)
    kept = (headers.TASK, headers.TASK_ID)
    found = {name: value for name, value in (raw.headers or {}).items() if name in kept}
    # stored once, however often it is sent: the second time the server knows the id
    with broker.connection_errors():
        await broker.js.publish(letter.subject, letter.body, headers=found | {headers.MSG_ID: f"again:{seq}"})
    await drop_dead_letter(broker, seq)
    return letter


async def drop_dead_letter(broker: "JetStreamBroker | QueueReader", seq: int) -> None:
    """Remove a dead letter for good; nothing happens if it is gone already. Raise QueueDownError."""
    with broker.connection_errors():
        try:
            await broker.js.delete_msg(broker.layout.dead_stream, seq)
        except APIError:
            # for a number that is gone the server has several errors, and none of them is "not found"
            if await _get(broker, seq=seq) is not None:
                raise


async def _get(broker: "JetStreamBroker | QueueReader", **which: Any) -> RawStreamMsg | None:
    try:
        return await broker.js.get_msg(broker.layout.dead_stream, **which)
    except NotFoundError:
        return None


def _letter(broker: "JetStreamBroker | QueueReader", raw: RawStreamMsg) -> DeadLetter:
    found = raw.headers or {}
    lane = found.get(headers.LANE)
    home = broker.layout.lane(Lane(lane)) if lane in set(Lane) else found.get(headers.SUBJECT)
    return DeadLetter(
        seq=raw.seq or 0,
        task_name=found.get(headers.TASK, ""),
        reason=found.get(headers.ERROR, ""),
        subject=home or broker.layout.lane(Lane.INTERACTIVE),
        deliveries=int(found.get(headers.DELIVERIES, "0")),
        at=raw.time,
        body=raw.data or b"",
    )
