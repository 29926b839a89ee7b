"""Messages delivered to this process: each is settled exactly once, and kept alive while it waits or runs."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from evervec import log
from evervec.queue.jetstream.connection import CONNECTION_ERRORS
from evervec.queue.names import Lane

logger = log.get("queue")


@dataclass(eq=False)
class Delivery:
    """One delivery of one message. `executing`: the receiver has it. `settled`: the server was told its end."""

    message: Msg
    lane: Lane
    owner: "UnsettledDeliveries"
    arrived: float = field(default_factory=time.monotonic)
    executing: bool = False
    settled: bool = False
    overdue: bool = False

    @property
    def seq(self) -> int:
        """Return the message's number in the task stream."""
        return self.message.metadata.sequence.stream

    @property
    def deliveries(self) -> int:
        """Return how often the server has delivered it, this time included."""
        return self.message.metadata.num_delivered

    async def ack(self) -> None:
        """Acknowledge it: the task is done. Nothing happens if it was settled before."""
        if not self.settled:
            self.settled = True
            await self._tell(self.message.ack())

    async def nak(self, delay: float = 0) -> None:
        """Release it for another delivery after `delay` seconds. Nothing happens if it was settled before."""
        if not self.settled:
            self.settled = True
            await self._tell(self.message.nak(delay))

    async def _tell(self, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except CONNECTION_ERRORS as error:
            # An answer that is lost means that the server delivers the message again, which is harmless.
            logger.info("acknowledgement not sent", seq=self.seq, error=str(error))
        finally:
            self.owner.remove(self)


class UnsettledDeliveries:
    """All deliveries of this process that are not settled, buffered or executing.

    `ack_wait` is after how many seconds the server delivers a message again, `longest` how long a task is kept alive.
    """

    def __init__(self, ack_wait: float, longest: float) -> None:
        self._deliveries: set[Delivery] = set()
        self._ack_wait = ack_wait
        self._longest = longest
        self.changed = asyncio.Event()

    def add(self, message: Msg, lane: Lane) -> Delivery:
        """Add a message that was just delivered."""
        delivery = Delivery(message, lane, self)
        self._deliveries.add(delivery)
        self.changed.set()
        return delivery

    def remove(self, delivery: Delivery) -> None:
        """Remove a delivery that is settled."""
        self._deliveries.discard(delivery)
        self.changed.set()

    def executing(self, lane: Lane | None = None) -> int:
        """Return how many deliveries run now, in all lanes or in one."""
        return sum(d.executing and lane in (None, d.lane) for d in self._deliveries)

    async def release(self, *, buffered_only: bool = False) -> int:
        """Release all of them (or those that have not begun) to other workers at once. Return how many."""
        leaving = [d for d in self._deliveries if not (buffered_only and d.executing)]
        for delivery in leaving:
            await delivery.nak()
        return len(leaving)

    async def keep_alive(self) -> None:
        """Tell the server three times per `ack_wait` that these messages are worked on. Run until cancelled."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for delivery in list(self._deliveries):
                await self._send_heartbeat(delivery)

    async def _send_heartbeat(self, delivery: Delivery) -> None:
        if time.monotonic() - delivery.arrived > self._longest:
            if not delivery.overdue:
                delivery.overdue = True
                logger.warning(
                    "task runs too long, another worker may get it now", seq=delivery.seq, seconds=self._longest
                )
            return
        try:
            await delivery.message.in_progress()
        except CONNECTION_ERRORS as error:
            logger.debug("heartbeat not sent", seq=delivery.seq, error=str(error))
