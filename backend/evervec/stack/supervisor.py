"""Keeps a server alive: starts it again when it dies, with growing delays when it keeps dying."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from evervec import log
from evervec.errors import EvervecError
from evervec.stack.embedded_server import EmbeddedServer

WATCH_SECONDS = 0.2
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0


async def keep_alive(
    server: EmbeddedServer, revive: Callable[[EmbeddedServer], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Call `revive` whenever the server's process is gone, until `stop` is set."""
    delay, last_death = FIRST_DELAY, 0.0
    while not stop.is_set():
        if server.alive():
            await pause(stop, WATCH_SECONDS)
            continue
        delay = FIRST_DELAY if time.monotonic() - last_death > STEADY_SECONDS else min(2 * delay, LONGEST_DELAY)
        last_death = time.monotonic()
        await _revive(server, revive)
        if not server.alive() or delay > FIRST_DELAY:
            await pause(stop, delay)


async def _revive(server: EmbeddedServer, revive: Callable[[EmbeddedServer], Awaitable[None]]) -> None:
    logger = log.get("stack").bind(server=server.process.name)
    logger.warning("server_died")
    try:
        await revive(server)
        logger.warning("server_restarted")
    except (EvervecError, OSError) as error:
        logger.error("server_not_restarted", reason=str(error))


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
