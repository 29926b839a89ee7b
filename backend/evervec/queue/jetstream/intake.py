"""Which message comes next: interactive strictly before backfill, quarantine alone; nothing taken that can not run now."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from evervec import log
from evervec.queue.jetstream.connection import LINE_TROUBLE
from evervec.queue.jetstream.delivery import Delivery, Held
from evervec.queue.jetstream.pull import Pull
from evervec.queue.names import Lane, Layout

logger = log.get("queue")

_OPEN_LANES: Final = (Lane.INTERACTIVE, Lane.BACKFILL)
_PROBE_SECONDS: Final = 0.25
_QUARANTINE_EVERY: Final = 30.0


class Intake:
    """Pulls on demand. A busy worker probes the lanes in order; an idle one leaves a finite request with each."""

    def __init__(
        self, client: Client, layout: Layout, held: Held, *, batch: int, expires: float, room: Callable[[], int]
    ) -> None:
        self._client = client
        self._held = held
        self._batch = batch
        self._expires = expires
        self._room = room
        self._ready: dict[Lane, deque[Delivery]] = {lane: deque() for lane in Lane}
        self._probes = {lane: self._pull(layout, lane) for lane in Lane}
        self._lingering = {lane: self._pull(layout, lane) for lane in _OPEN_LANES}
        self._quarantine_seen = time.monotonic()

    def _pull(self, layout: Layout, lane: Lane) -> Pull:
        pull = Pull(self._client, layout.stream, str(lane), partial(self._arrive, lane))
        pull.answered = self._held.changed.set
        return pull

    def _arrive(self, lane: Lane, message: Msg) -> None:
        self._ready[lane].append(self._held.take(message, lane))

    def forget(self) -> None:
        """After a reconnection: no request of ours is known to the server any more."""
        for pull in self._pulls():
            pull.forget()
        self._held.changed.set()

    @property
    def gone(self) -> bool:
        """Whether a consumer that we asked does not exist."""
        return any(pull.gone for pull in self._pulls())

    def _pulls(self) -> Sequence[Pull]:
        return (*self._probes.values(), *self._lingering.values())

    async def next(self, repair: Callable[[], Awaitable[None]]) -> Delivery:
        """The next message to run. Waits for ever; `repair` is called when a consumer is missing, and may give up."""
        while True:
            self._held.changed.clear()
            if self._takeable() is not None:
                await self._leave_no_request_behind()
                if lane := self._takeable():
                    return self._ready[lane].popleft()
            elif self.gone or self._client.is_closed:
                await repair()
            elif self._alone() or not self._client.is_connected:
                await self._change(1.0)
            else:
                await self._look()

    def _takeable(self) -> Lane | None:
        """The lane whose buffered message may run now. What is in quarantine waits until it is the only one running."""
        if self._alone():
            ready = self._ready[Lane.QUARANTINE] and not self._held.executing()
            return Lane.QUARANTINE if ready else None
        return next((lane for lane in _OPEN_LANES if self._ready[lane]), None)

    def _alone(self) -> bool:
        """Whether a quarantined message runs, or waits for the others to finish."""
        return bool(self._ready[Lane.QUARANTINE]) or self._held.executing(Lane.QUARANTINE) > 0

    async def _leave_no_request_behind(self) -> None:
        """Before the last free slot is filled, take back waiting requests: another worker may be idle."""
        if self._room() <= 1:
            for pull in self._lingering.values():
                if pull.waiting:
                    await pull.take_back()

    async def _look(self) -> None:
        try:
            if await self._probe() or self.gone:
                return
            for pull in self._lingering.values():
                await pull.ask(1, self._expires)
        except LINE_TROUBLE as error:
            logger.info("pull request not sent", error=str(error))
            await asyncio.sleep(0.2)
            return
        if self._takeable() is None:
            await self._change(self._expires)

    async def _probe(self) -> bool:
        """Ask lane after lane for what is there now; whether something came."""
        for lane in (*_OPEN_LANES, *self._quarantine_due()):
            pull = self._probes[lane]
            batch = 1 if lane is Lane.QUARANTINE else min(self._batch, max(1, self._room()))
            await pull.ask(batch)
            await self._answer(pull)
            if pull.waiting:
                # A consumer at its max_ack_pending does not answer; a forgotten request would deliver at a bad moment.
                await pull.take_back()
            if self._ready[lane]:
                return True
        return False

    def _quarantine_due(self) -> Sequence[Lane]:
        """Quarantine is looked at when nothing runs, and now and then under load so that it does not starve."""
        now = time.monotonic()
        if self._held.executing() and now - self._quarantine_seen < _QUARANTINE_EVERY:
            return ()
        self._quarantine_seen = now
        return (Lane.QUARANTINE,)

    async def _answer(self, pull: Pull) -> None:
        deadline = time.monotonic() + _PROBE_SECONDS
        while pull.waiting and (left := deadline - time.monotonic()) > 0:
            await self._change(left)
            self._held.changed.clear()

    async def _change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._held.changed.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Ask for nothing more and hand back what did not begin."""
        for pull in self._pulls():
            await pull.take_back()
        returned = await self._held.hand_back(buffered_only=True)
        self._ready = {lane: deque() for lane in Lane}
        if returned:
            logger.info("handed back unstarted tasks", tasks=returned)
