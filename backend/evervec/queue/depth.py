"""How many tasks wait, and whether a worker listens: one look at the streams, for status and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from evervec.queue.names import Lane

if TYPE_CHECKING:
    from nats.js.api import ConsumerInfo

    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.queue_reader import QueueReader

_BUSY: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Depth:
    """The number of tasks that are not finished, by lane (also those that run now), and of dead letters.

    `worker_listens` tells whether some worker asks for tasks, or was given one in the last minute and still has it.
    """

    lanes: Mapping[Lane, int]
    dead_letters: int
    worker_listens: bool


async def depth(broker: "JetStreamBroker | QueueReader") -> Depth:
    """Count what is on the streams, whether or not a worker runs. Raise QueueDownError."""
    layout = broker.layout
    with broker.connection_errors():
        tasks = (await broker.js.stream_info(layout.stream, layout.tasks)).state
        dead = (await broker.js.stream_info(layout.dead_stream)).state
        consumers = await broker.js.consumers_info(layout.stream)
    by_subject = tasks.subjects or {}
    lanes = {lane: by_subject.get(layout.lane(lane), 0) for lane in Lane}
    return Depth(lanes, dead.messages, any(map(_is_listened_to, consumers)))


def _is_listened_to(consumer: "ConsumerInfo") -> bool:
    if consumer.num_waiting:
        return True
    # A busy worker does not ask. One that was killed has tasks too, but was given none for a while.
    given = consumer.delivered.last_active if consumer.delivered else None
    return bool(consumer.num_ack_pending) and given is not None and datetime.now(UTC) - given < _BUSY
