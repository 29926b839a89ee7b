"""Messages that this process holds: each is settled exactly once, and kept alive while it waits or runs."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from evervec import log
from evervec.queue.jetstream.connection import LINE_TROUBLE
from evervec.queue.names import Lane

logger = log.get("queue")


@dataclass(eq=False)
class Delivery:
    """One delivery of one message. `executing` is set once the receiver has it."""

    message: Msg
    lane: Lane
    holder: "Held"
    arrived: float = field(default_factory=time.monotonic)
    executing: bool = False
    settled: bool = False
    overdue: bool = False

    @property
    def seq(self) -> int:
        """The message's number in the task stream."""
        return self.message.metadata.sequence.stream

    @property
    def deliveries(self) -> int:
        """How often the server has handed it out, this time included."""
        return self.message.metadata.num_delivered

    async def ack(self) -> None:
        """Tell the server that it is done; nothing happens if it was settled before."""
        if not self.settled:
            self.settled = True
            await self._tell(self.message.ack())

    async def nak(self, delay: float = 0) -> None:
        """Hand it back for another delivery after `delay` seconds; nothing happens if it was settled before."""
        if not self.settled:
            self.settled = True
            await self._tell(self.message.nak(delay))

    async def _tell(self, words: Coroutine[Any, Any, None]) -> None:
        try:
            await words
        except LINE_TROUBLE as error:
            # Unheard words only mean that the server delivers it again, which is harmless.
            logger.info("answer not delivered", seq=self.seq, error=str(error))
        finally:
            self.holder.release(self)


class Held:
    """All deliveries of this process that are not settled, buffered or executing."""

    def __init__(self, ack_wait: float, ceiling: float) -> None:
        self._held: set[Delivery] = set()
        self._ack_wait = ack_wait
        self._ceiling = ceiling
        self.changed = asyncio.Event()

    def take(self, message: Msg, lane: Lane) -> Delivery:
        """Begin to hold a message."""
        delivery = Delivery(message, lane, self)
        self._held.add(delivery)
        self.changed.set()
        return delivery

    def release(self, delivery: Delivery) -> None:
        """Stop holding a delivery."""
        self._held.discard(delivery)
        self.changed.set()

    def executing(self, lane: Lane | None = None) -> int:
        """How many deliveries run now, in all lanes or in one."""
        return sum(d.executing and lane in (None, d.lane) for d in self._held)

    async def hand_back(self, *, buffered_only: bool = False) -> int:
        """Give everything back (or what has not begun), so that another worker gets it at once; answers how many."""
        leaving = [d for d in self._held if not (buffered_only and d.executing)]
        for delivery in leaving:
            await delivery.nak()
        return len(leaving)

    async def keep_alive(self) -> None:
        """Tell the server three times per ack_wait that the held messages are worked on; runs until cancelled."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for delivery in list(self._held):
                await self._beat(delivery)

    async def _beat(self, delivery: Delivery) -> None:
        if time.monotonic() - delivery.arrived > self._ceiling:
            if not delivery.overdue:
                delivery.overdue = True
                logger.warning("task held too long, others may have it now", seq=delivery.seq, seconds=self._ceiling)
            return
        try:
            await delivery.message.in_progress()
        except LINE_TROUBLE as error:
            logger.debug("heartbeat not delivered", seq=delivery.seq, error=str(error))
