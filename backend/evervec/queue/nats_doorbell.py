"""The doorbell over NATS: it sends tasks after a commit; a NATS that is down is never an error here."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final
from uuid import UUID

from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker

from evervec import log
from evervec.errors import EvervecError, QueueDownError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.doorbell import Ring
from evervec.queue.mirror_doorbell import listening_for_changes, ring_mirrors
from evervec.queue.names import Lane

logger = log.get("queue")

_PIPELINED: Final = 100
_RETRY_START_SECONDS: Final = 5.0


class NatsDoorbell:
    """The sender of tasks, by their names. A task that is not sent costs time, never rows: the sweep finds them.

    While the connection is down a call returns at once, else within `seconds`. A broker that could not be started is
    started in the background every few seconds, until `aclose`.
    """

    def __init__(self, broker: JetStreamBroker, *, seconds: float = 1.5) -> None:
        self._broker = broker
        self._seconds = seconds
        self._missed = 0
        self._start: asyncio.Task[None] | None = None
        self._next_start = 0.0

    async def ring(
        self,
        task_name: str,
        *,
        of: UUID | None = None,
        lane: Lane = Lane.INTERACTIVE,
        msg_id: str | None = None,
        **kwargs: Any,
    ) -> bool:
        """Send one task. Return whether the queue has it. Raise only for arguments that can not be sent at all."""
        return await self._send(Ring(task_name, kwargs, lane, msg_id, of))

    async def ring_many(self, rings: Iterable[Ring]) -> int:
        """Send many tasks, a hundred at a time. Return how many the queue has."""
        heard = 0
        left = iter(rings)
        while some := list(islice(left, _PIPELINED)):
            heard += sum(await asyncio.gather(*map(self._send, some)))
        return heard

    async def changed(self, dataset_ids: Iterable[UUID]) -> bool:
        """Tell the mirrors that vectors of these datasets were written. Return whether it was sent."""
        return await ring_mirrors(self._broker, dataset_ids)

    @asynccontextmanager
    async def listening_for_changes(self, heard: Callable[[set[UUID]], None]) -> AsyncIterator[bool]:
        """Call `heard` with the datasets of each `changed` inside the block. Yield whether NATS is connected."""
        async with listening_for_changes(self._broker, heard) as listening:
            yield listening

    async def _send(self, ring: Ring) -> bool:
        if not self._broker.connected:
            self._start_again()
            return self._not_sent(ring, "not connected")
        labels = {"lane": str(ring.lane)} | ({"msg_id": ring.msg_id} if ring.msg_id else {})
        kicker: AsyncKicker[Any, Any] = AsyncKicker(ring.task_name, self._broker, labels)
        try:
            async with asyncio.timeout(self._seconds):
                await kicker.kiq(**ring.kwargs)
        except TimeoutError:
            return self._not_sent(ring, f"no acknowledgement within {self._seconds:g} s")
        except SendTaskError as error:
            if not isinstance(error.__cause__, QueueDownError):
                raise (error.__cause__ or error) from None
            return self._not_sent(ring, str(error.__cause__))
        return self._sent()

    def _not_sent(self, ring: Ring, reason: str) -> bool:
        self._missed += 1
        if self._missed == 1:
            logger.warning("doorbell failed, the sweep will find the rows", task=ring.task_name, reason=reason)
        return False

    def _sent(self) -> bool:
        if self._missed:
            logger.warning("doorbell works again", missed=self._missed)
            self._missed = 0
        return True

    def _start_again(self) -> None:
        idle = self._start is None or self._start.done()
        if idle and not self._broker.started and time.monotonic() >= self._next_start:
            self._next_start = time.monotonic() + _RETRY_START_SECONDS
            self._start = asyncio.create_task(self._try_start())

    async def _try_start(self) -> None:
        try:
            await self._broker.startup()
        except EvervecError as error:
            logger.info("queue still down", reason=str(error))

    async def aclose(self) -> None:
        """Stop trying to connect; may be called twice. The broker stays open: it belongs to whoever started it."""
        start, self._start = self._start, None
        if start is not None:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
