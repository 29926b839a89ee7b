"""A process of the batch lane, to be told what to do (`flush 500`, `sync`) or killed at a point.

At its point it sends a signal to itself, SIGKILL or another one: there a function of the product is replaced, in this
process alone.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psutil

from evervec import log
from evervec.domain.batch import BatchClient
from evervec.pipeline.batch import collect, embedding_jobs
from evervec.pipeline.batch.manager import BatchManager
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store.batch import batch_jobs, batch_queue
from tests import forking
from tests.e2e.processes import CHILD_DEADLINE
from tests.e2e.waiting import eventually
from tests.forking import Forked

STEP, LINES = 40, 20
"""Rows that are claimed together, and answers that are applied together, in such a process: few, so that there are many."""


@dataclass(frozen=True)
class Point:
    """Before or after the nth call of a function, of the store or (None) of the provider's batch client."""

    name: str
    of: Any = None
    after: bool = False
    nth: int = 1


POINTS: Final[Mapping[str, Point]] = {
    "claimed": Point("add_items", batch_jobs),
    "filling": Point("claim", batch_queue, nth=2),
    "intended": Point("upload"),
    "uploaded": Point("upload", after=True),
    "submitting": Point("create_embedding_job"),
    "created": Point("create_embedding_job", after=True),
    "storing the id": Point("mark_submitted", batch_jobs, after=True),
    "downloading": Point("items", batch_jobs, nth=3),
    "applying": Point("settle_items", batch_jobs, after=True, nth=2),
    "applied": Point("finish", batch_jobs),
    "finished": Point("remove_file"),
    "cleaning": Point("remove_file", after=True),
    "cleaned": Point("mark_cleaned", batch_jobs),
}
"""Where a process can die, in the order of a job's life. What stands in a transaction dies before it is committed."""

SENDING = ("intended", "uploaded", "submitting", "created", "storing the id")
COLLECTING = ("downloading", "applying", "applied", "finished", "cleaning", "cleaned")


def arm(point: Point, client: BatchClient, number: signal.Signals) -> None:
    """Let the process die or freeze there."""
    owner = client if point.of is None else point.of
    function: Callable[..., Awaitable[Any]] = getattr(owner, point.name)
    calls = 0

    def passed() -> None:
        nonlocal calls
        calls += 1
        if calls == point.nth:
            os.kill(os.getpid(), number)

    async def reached(*values: Any, **named: Any) -> Any:
        if not point.after:
            passed()
        answer = await function(*values, **named)
        if point.after:  # one that failed is tried again, and has not been made
            passed()
        return answer

    setattr(owner, point.name, reached)


async def obey(manager: BatchManager, order: str) -> dict[str, Any]:
    """Do what one line says; what came of it."""
    verb, *size = order.split()
    if verb == "flush":
        flushed = await manager.flush_queue(max_batch_size=int(size[0]) if size else None)
        return {"jobs": len(flushed.jobs), "rows": flushed.rows, "waiting": flushed.waiting}
    synced = await manager.check_and_sync()
    found = {name: getattr(synced, name) for name in ("ready", "dropped", "returned", "running", "busy", "problems")}
    return {**found, "jobs": len(synced.jobs), "again": len(synced.again)}


def serve(orders: Any, point: str | None, number: str) -> None:
    """Answer each order that comes through a pipe, until its other end is closed."""
    asyncio.run(_serve(orders, point, signal.Signals[number]))


async def _serve(orders: Any, point: str | None, number: signal.Signals) -> None:
    log.configure()
    embedding_jobs.ROWS_CLAIMED, collect.LINES = STEP, LINES
    async with open_runtime(Settings(), queue=False) as runtime:
        if point is not None:
            arm(POINTS[point], runtime.resources.clients.batch_client(await runtime.resources.provider()), number)
        manager = BatchManager(runtime.resources)
        orders.send({"up": True})
        while order := await asyncio.to_thread(_received, orders):
            orders.send(await obey(manager, order))


def _received(orders: Any) -> Any:
    try:
        return orders.recv()
    except (EOFError, ConnectionResetError):
        return None


class Told:
    """Such a process, as the test holds it."""

    def __init__(self, process: Forked, orders: Any) -> None:
        self._process, self._orders = process, orders

    async def ask(self, order: str) -> dict[str, Any]:
        """Give one order and wait for its answer."""
        self._orders.send(order)
        answer = await self.hear()
        assert answer is not None, f"it died of {order!r}, with {await self._process.wait()}"
        return answer

    async def hear(self) -> dict[str, Any] | None:
        """Return its next answer, or None when it has ended."""
        assert await asyncio.to_thread(self._orders.poll, CHILD_DEADLINE), "it does not answer"
        answer: dict[str, Any] | None = _received(self._orders)
        return answer

    async def obeys_until_frozen(self, order: str) -> None:
        """Give an order that it does not finish, and wait until it stands still."""
        self._orders.send(order)

        async def stopped() -> bool:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED

        await eventually("it stands still", stopped)

    async def wakes(self) -> dict[str, Any]:
        """Let it go on, and return the answer to the order that it was given."""
        self._process.send_signal(signal.SIGCONT)
        answer = await self.hear()
        assert answer is not None, f"it died when it woke, with {await self._process.wait()}"
        return answer

    async def obeys_until_killed(self, *orders: str) -> None:
        """Give orders in a row; one of them has to be its last."""
        with suppress(BrokenPipeError):  # it may be dead before it is given the last one
            for order in orders:
                self._orders.send(order)
        code = await asyncio.wait_for(self._process.wait(), CHILD_DEADLINE)
        assert code == -signal.SIGKILL, f"ended with {code}"


@dataclass(frozen=True)
class Program:
    """The way to start such processes."""

    environment: dict[str, str]

    @asynccontextmanager
    async def started(self, point: str | None = None, number: str = "SIGKILL") -> AsyncIterator[Told]:
        """Start a process that has opened everything; killed at the end of the block if it still runs."""
        orders, theirs = forking.pipe()
        process = await forking.start(serve, theirs, point, number, environment=self.environment)
        theirs.close()  # so that the pipe ends with the process
        told = Told(process, orders)
        try:
            assert await told.hear() == {"up": True}
            yield told
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
            orders.close()

    async def dies(self, point: str, psql: Any, *orders: str) -> None:
        """Tell a process to die at a point, and let its leases run out."""
        async with self.started(point) as told:
            await told.obeys_until_killed(*orders)

        await psql.execute(LEASES_RUN_OUT)


LEASES_RUN_OUT = "UPDATE leases SET lease_until = now() - interval '1 second'"
