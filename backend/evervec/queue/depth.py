"""How much is waiting: one look at the streams, for status and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from evervec.queue.broker import JetStreamBroker
from evervec.queue.names import Lane


@dataclass(frozen=True)
class Depth:
    """Tasks sent and not finished, by lane (those that run now are among them), and dead letters."""

    lanes: Mapping[Lane, int]
    dead_letters: int


async def depth(broker: JetStreamBroker) -> Depth:
    """Count what is on the streams, whether or not a worker is there. Raises QueueDownError."""
    layout = broker.layout
    with broker.asking():
        tasks = (await broker.js.stream_info(layout.stream, layout.tasks)).state
        dead = (await broker.js.stream_info(layout.dead_stream)).state
    by_subject = tasks.subjects or {}
    return Depth({lane: by_subject.get(layout.lane(lane), 0) for lane in Lane}, dead.messages)
