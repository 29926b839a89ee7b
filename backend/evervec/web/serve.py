"""The server of the API: take the address first, then serve until it is told to stop."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from evervec.errors import PortTakenError, Refused
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.web.app import create_app


class ApiServer(uvicorn.Server):
    """A uvicorn server without signal handlers: the process that started it decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(settings: Settings) -> socket.socket:
    """Take the address. Raises `PortTakenError`, or `Refused` for an open address without a key."""
    if settings.api_key is None and not _loopback(settings.api_host):
        raise Refused(
            reason=f"EVERVEC_API_HOST={settings.api_host} can be reached from elsewhere: set EVERVEC_API_KEY first."
        )
    try:
        return socket.create_server((settings.api_host, settings.api_port))
    except OSError as error:
        raise PortTakenError(port=settings.api_port, server="The API", variable="EVERVEC_API_PORT") from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(resources: Resources, listening: socket.socket, finish: asyncio.Event) -> None:
    """Answer requests until `finish` is set; then finish those that run."""
    config = uvicorn.Config(create_app(resources), lifespan="off", log_config=None, timeout_graceful_shutdown=5)
    server = ApiServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    finished = asyncio.create_task(finish.wait())
    try:
        await asyncio.wait({serving, finished}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        finished.cancel()
        server.should_exit = True
        await serving
        listening.close()
