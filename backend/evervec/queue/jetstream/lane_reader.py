"""Which message runs next: interactive strictly before backfill, quarantine alone; only what can run is requested."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from evervec import log
from evervec.cancellation import raise_if_cancelled
from evervec.queue.jetstream.connection import CONNECTION_ERRORS
from evervec.queue.jetstream.delivery import Delivery, UnsettledDeliveries
from evervec.queue.jetstream.pull import Pull
from evervec.queue.names import Lane, Layout

logger = log.get("queue")

_OPEN_LANES: Final = (Lane.INTERACTIVE, Lane.BACKFILL)
_PROBE_SECONDS: Final = 0.25
_QUARANTINE_EVERY: Final = 30.0


class LaneReader:
    """A reader of all lanes. A busy worker asks them in order; an idle one leaves a request with a deadline at each."""

    def __init__(
        self,
        client: Client,
        layout: Layout,
        unsettled: UnsettledDeliveries,
        *,
        batch: int,
        expires: float,
        room: Callable[[], int],
    ) -> None:
        self._client = client
        self._unsettled = unsettled
        self._batch = batch
        self._expires = expires
        self._room = room
        self._ready: dict[Lane, deque[Delivery]] = {lane: deque() for lane in Lane}
        self._probes = {lane: self._pull(layout, lane) for lane in Lane}
        self._waiting = {lane: self._pull(layout, lane) for lane in _OPEN_LANES}
        self._quarantine_seen = time.monotonic()

    def _pull(self, layout: Layout, lane: Lane) -> Pull:
        pull = Pull(self._client, layout.stream, str(lane), partial(self._add, lane))
        pull.answered = self._unsettled.changed.set
        return pull

    def _add(self, lane: Lane, message: Msg) -> None:
        self._ready[lane].append(self._unsettled.add(message, lane))

    def forget(self) -> None:
        """Forget all requests: after a reconnection the server does not know them any more."""
        for pull in self._pulls():
            pull.forget()
        self._unsettled.changed.set()

    @property
    def gone(self) -> bool:
        """Return whether a consumer that was asked does not exist."""
        return any(pull.gone for pull in self._pulls())

    def _pulls(self) -> Sequence[Pull]:
        return (*self._probes.values(), *self._waiting.values())

    async def next(self, repair: Callable[[], Awaitable[None]]) -> Delivery:
        """Return the next message to run. Wait for ever; call `repair` when a consumer is missing, which may raise."""
        while True:
            raise_if_cancelled()
            self._unsettled.changed.clear()
            if self._runnable_lane() is not None:
                await self._withdraw_requests()
                if lane := self._runnable_lane():
                    return self._ready[lane].popleft()
            elif self.gone or self._client.is_closed:
                await repair()
            elif self._in_quarantine() or not self._client.is_connected:
                await self._wait_for_change(1.0)
            else:
                await self._request()

    def _runnable_lane(self) -> Lane | None:
        """Return the lane whose buffered message may run now. One in quarantine waits until nothing else runs."""
        if self._in_quarantine():
            ready = self._ready[Lane.QUARANTINE] and not self._unsettled.executing()
            return Lane.QUARANTINE if ready else None
        return next((lane for lane in _OPEN_LANES if self._ready[lane]), None)

    def _in_quarantine(self) -> bool:
        """Return whether a quarantined message runs, or waits for the others to finish."""
        return bool(self._ready[Lane.QUARANTINE]) or self._unsettled.executing(Lane.QUARANTINE) > 0

    async def _withdraw_requests(self) -> None:
        """Withdraw waiting requests before the last free slot is filled: another worker may be idle."""
        if self._room() <= 1:
            for pull in self._waiting.values():
                if pull.waiting:
                    await pull.withdraw()

    async def _request(self) -> None:
        try:
            if await self._probe() or self.gone:
                return
            for pull in self._waiting.values():
                await pull.ask(1, self._expires)
        except CONNECTION_ERRORS as error:
            logger.info("pull request not sent", error=str(error))
            await asyncio.sleep(0.2)
            return
        if self._runnable_lane() is None:
            await self._wait_for_change(self._expires)

    async def _probe(self) -> bool:
        """Ask lane after lane for what is there now. Return whether something came."""
        for lane in (*_OPEN_LANES, *self._quarantine_due()):
            pull = self._probes[lane]
            batch = 1 if lane is Lane.QUARANTINE else min(self._batch, max(1, self._room()))
            await pull.ask(batch)
            await self._wait_for_answer(pull)
            if pull.waiting:
                # A consumer at its max_ack_pending does not answer; a forgotten request would deliver at a bad moment.
                await pull.withdraw()
            if self._ready[lane]:
                return True
        return False

    def _quarantine_due(self) -> Sequence[Lane]:
        """Return the quarantine when nothing runs, and every 30 s under load, so that its tasks do not wait for ever."""
        now = time.monotonic()
        if self._unsettled.executing() and now - self._quarantine_seen < _QUARANTINE_EVERY:
            return ()
        self._quarantine_seen = now
        return (Lane.QUARANTINE,)

    async def _wait_for_answer(self, pull: Pull) -> None:
        deadline = time.monotonic() + _PROBE_SECONDS
        while pull.waiting and (left := deadline - time.monotonic()) > 0:
            await self._wait_for_change(left)
            self._unsettled.changed.clear()

    async def _wait_for_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._unsettled.changed.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Ask for nothing more and release what did not begin."""
        for pull in self._pulls():
            await pull.withdraw()
        returned = await self._unsettled.release(buffered_only=True)
        self._ready = {lane: deque() for lane in Lane}
        if returned:
            logger.info("released unstarted tasks", tasks=returned)
