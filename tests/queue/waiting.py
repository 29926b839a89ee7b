"""Waiting for the thing itself, with a deadline; and a worker that runs inside a test."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from evervec.queue.broker import JetStreamBroker
from evervec.queue.depth import depth
from evervec.queue.receiver import serve


async def eventually(holds: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> float:
    """Wait until `holds()` is true; how long that took. Fails after `seconds`."""
    began = time.monotonic()
    while True:
        answer = holds()
        if await answer if inspect.isawaitable(answer) else answer:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, f"did not come true within {seconds} s: {holds}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def working(broker: JetStreamBroker, *, tasks: int = 4, wait: float = 5.0) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker on `broker` inside the block. Raise at the end whatever it raised."""
    finish = asyncio.Event()
    worker = asyncio.create_task(serve(broker, max_async_tasks=tasks, wait_tasks_timeout=wait, finish=finish))
    try:
        await eventually(lambda: broker.connected or worker.done())
        yield worker
    finally:
        finish.set()
        await worker


async def empty(broker: JetStreamBroker) -> bool:
    """Whether every task was acknowledged."""
    return sum((await depth(broker)).lanes.values()) == 0
