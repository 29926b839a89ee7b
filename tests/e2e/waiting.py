"""Waiting for the thing itself, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> float:
    """Wait until `holds()`; how long that took. Fails after `seconds`, saying what never came true."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began
