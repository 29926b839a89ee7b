"""What a process has that sends no task: a connection that reads how much waits.

TaskIQ takes half a second to import, so nothing here needs it.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evervec.errors import QueueDownError
from evervec.queue.names import Layout

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from evervec.queue.jetstream.connection import Connection


class QueueReader:
    """A connection to NATS for one look at the streams."""

    js: "JetStreamContext"

    def __init__(self, url: str, *, stream: str, connect_seconds: float) -> None:
        self.layout = Layout(stream)
        self._url = url
        self._connect_seconds = connect_seconds
        self._connection: Connection | None = None
        self._client: Client | None = None

    def down(self, reason: str) -> QueueDownError:
        """Return the error for a server that does not answer, without credentials."""
        from evervec.queue.jetstream.connection import Connection

        return (self._connection or Connection(self._url, lambda: None)).down(reason)

    @contextlib.contextmanager
    def connection_errors(self) -> Iterator[None]:
        """Raise QueueDownError for every way in which a request to the server gets no answer."""
        if self._connection is None or self._client is None or not self._client.is_connected:
            raise self.down("not connected")
        with self._connection.errors():
            yield

    async def startup(self) -> None:
        """Connect, and create the streams if they are missing. Raise QueueDownError, StreamMismatchError."""
        with _without_websockets(self._url):
            from nats.aio.client import Client

            from evervec.queue.jetstream import streams
            from evervec.queue.jetstream.connection import Connection

        connection, client = Connection(self._url, lambda: None), Client()
        self._connection = connection
        await connection.open(client, self._connect_seconds)
        self._client, self.js = client, client.jetstream()
        wanted = streams.wanted_streams(self.layout, streams.DUPLICATE_SECONDS)
        await connection.until_ready(lambda: streams.ensure_streams(self.js, wanted), self._connect_seconds)

    async def shutdown(self) -> None:
        """Close the connection; nothing happens if there is none."""
        if self._connection is not None and self._client is not None:
            await self._connection.close(self._client)


@contextlib.contextmanager
def _without_websockets(url: str) -> Iterator[None]:
    """Keep nats-py from importing aiohttp, which it does for WebSockets alone, and which takes 0.15 s."""
    if "aiohttp" in sys.modules or url.startswith("ws"):
        yield
        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # so that an import of it fails
    try:
        yield
    finally:
        del sys.modules["aiohttp"]
