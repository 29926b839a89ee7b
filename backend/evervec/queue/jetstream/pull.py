"""One pull request at a time to one durable consumer; `lane_reader` decides which consumer is asked, and when."""

import json
import time
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from evervec.queue.jetstream.connection import CONNECTION_ERRORS

_EMPTY = ("404", "408")
_GRACE = 2.0
_REFUSED_PAUSE = 0.5


class Pull:
    """A subscription to one consumer's answers. Messages are passed to `arrived` in the moment they come.

    nats-py's own `fetch` loses requests on reconnection and, with a batch, mixes waiting with probing; here a request
    has a deadline, ends with its own status, and can be withdrawn.
    """

    def __init__(self, client: Client, stream: str, durable: str, arrived: Callable[[Msg], None]) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._arrived = arrived
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._request = 0
        self._missing = 0
        self._deadline = 0.0
        self._pause_until = 0.0
        self.gone = False
        self.answered: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> bool:
        """Return whether the last request still waits for messages."""
        return self._missing > 0 and time.monotonic() < self._deadline

    async def ask(self, batch: int, expires: float | None = None) -> None:
        """Request up to `batch` messages: those there now, or (`expires` seconds) also those that come."""
        if self.waiting or time.monotonic() < self._pause_until:
            return
        if self._subscription is None:
            self._inbox = self._client.new_inbox()
            self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)
        self._request += 1
        self._missing = batch
        self._deadline = time.monotonic() + (expires or 0) + _GRACE
        terms = {"batch": batch} | ({"expires": int(expires * 1e9)} if expires else {"no_wait": True})
        await self._client.publish(self._subject, json.dumps(terms).encode(), reply=f"{self._inbox}.{self._request}")

    async def _receive(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is None:
            self._missing -= 1
            self._arrived(message)
        elif message.subject == f"{self._inbox}.{self._request}":
            self._missing = 0
            self._handle_status(status, (message.headers or {}).get("Description", ""))
        self.answered()

    def _handle_status(self, status: str, description: str) -> None:
        if status == "503" or "Consumer Deleted" in description:
            self.gone = True
        elif status not in _EMPTY:
            self._pause_until = time.monotonic() + _REFUSED_PAUSE

    def forget(self) -> None:
        """Forget the request: the server does not know it any more (it restarted, or the consumer is a new one)."""
        self._missing = 0
        self.gone = False

    async def withdraw(self) -> None:
        """Withdraw the request. Messages that the server has sent already are still passed on, so that none is lost."""
        subscription, self._subscription = self._subscription, None
        self._missing = 0
        if subscription is None or self._client.is_closed:
            return
        try:
            if self._client.is_connected:
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py left this one without types
            else:
                await subscription.unsubscribe()
        except CONNECTION_ERRORS:
            # The connection broke in this moment, which ends the request too.
            return
