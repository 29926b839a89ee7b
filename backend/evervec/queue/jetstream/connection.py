"""The connection to NATS: the first connect has a deadline, later ones are tried for ever; no streams or tasks here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError

from evervec import log
from evervec.errors import QueueDownError

logger = log.get("queue")

# What a call raises when the connection breaks in the middle of it; nats-py lets the socket's own errors through.
CONNECTION_ERRORS: Final = (NatsError, OSError)

RECONNECT_FOREVER: dict[str, Any] = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.5,
    "ping_interval": 10,
    "max_outstanding_pings": 3,
    "connect_timeout": 2,
}


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Filter out a cancelled flush that is answered all the same: the library logs it with a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.InvalidStateError))


def where(url: str) -> str | None:
    """Return the address in `url` without its credentials, for messages and logs; None if it is no address."""
    try:
        parts = _split(url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}" if parts.hostname else None
    except ValueError:
        return None


def _secrets(url: str) -> tuple[str, ...]:
    if where(url) is None:
        return (url,) if url else ()
    parts = _split(url)
    return tuple(secret for secret in (parts.password, parts.username) if secret)


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"nats://{url}")


class Connection:
    """The state of one client's connection, from its callbacks: the last error, and when it breaks and comes back."""

    def __init__(self, url: str, on_change: Callable[[], None]) -> None:
        self.where = where(url)
        self._secrets = _secrets(url)
        self.last_error = "no answer"
        self._url = url
        self._on_change = on_change
        self._up = False

    async def open(self, client: Client, seconds: float) -> None:
        """Connect within `seconds`. Raise QueueDownError; the client can not be used again then."""
        if self.where is None:
            raise self.down("this is not an address like nats://127.0.0.1:4222")
        logging.getLogger("nats.aio.client").addFilter(_is_worth_logging)  # once, however often it is added
        try:
            async with asyncio.timeout(seconds):
                await client.connect(
                    self._url,
                    error_cb=self._error,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    closed_cb=self._closed,
                    **RECONNECT_FOREVER,
                )
        except (*CONNECTION_ERRORS, ValueError) as error:
            await self.close(client)
            reason = self.last_error if isinstance(error, TimeoutError) else str(error)
            raise self.down(reason) from error
        self._up = True

    async def until_ready(self, prepare: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Prepare until it succeeds: a server that was just started answers earlier than its JetStream.

        Raise QueueDownError after `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await prepare()
                    except CONNECTION_ERRORS as error:
                        self.last_error = str(error) or type(error).__name__
                        await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise self.down(f"JetStream is not ready: {self.last_error}") from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise QueueDownError for every way in which a request gets no answer."""
        try:
            yield
        except CONNECTION_ERRORS as error:
            raise self.down(str(error) or type(error).__name__) from error

    async def close(self, client: Client) -> None:
        """Close for good; nothing is logged as an outage."""
        self._up = False
        # What it still has to send may meet a closed socket; the client is closed all the same.
        with suppress(*CONNECTION_ERRORS):
            await client.close()

    def down(self, reason: str) -> QueueDownError:
        """Return the error for a server that does not answer; no password is shown, whatever the reason quotes."""
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        return QueueDownError(where=self.where or "the configured address", reason=reason)

    async def _error(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        logger.debug("nats error", where=self.where, error=self.last_error)

    async def _disconnected(self) -> None:
        if self._up:
            self._up = False
            logger.warning("nats disconnected, reconnecting", where=self.where)

    async def _reconnected(self) -> None:
        self._up = True
        logger.warning("nats reconnected", where=self.where)
        self._on_change()

    async def _closed(self) -> None:
        self._up = False
        logger.info("nats connection closed", where=self.where)
        self._on_change()
