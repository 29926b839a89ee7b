"""A process of the batch lane, to be told what to do or killed at a point: `python -m tests.e2e.batching [POINT [SIGNAL]]`.

It answers each line of stdin (`flush 500`, `sync`) with a line of JSON. At its point it sends a signal to itself, SIGKILL
or another one: there a function of the product is replaced, in this process alone.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from evervec import log
from evervec.domain.batch import BatchClient
from evervec.pipeline.batch import collect, embedding_jobs
from evervec.pipeline.batch.manager import BatchManager
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store.batch import batch_jobs, batch_queue
from tests.e2e.processes import CHILD_DEADLINE
from tests.e2e.waiting import eventually

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


async def main(point: str | None, number: signal.Signals) -> None:
    """Say that everything is open, then obey until stdin ends."""
    log.configure()
    embedding_jobs.ROWS_CLAIMED, collect.LINES = STEP, LINES
    async with open_runtime(Settings(), queue=False) as runtime:
        if point is not None:
            arm(POINTS[point], runtime.resources.clients.batch_client(await runtime.resources.provider()), number)
        manager = BatchManager(runtime.resources)
        say({"up": True})
        while order := await asyncio.to_thread(sys.stdin.readline):
            say(await obey(manager, order))


def say(answer: dict[str, Any]) -> None:
    """Write one line of JSON."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


class Told:
    """Such a process, as the test holds it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, order: str) -> dict[str, Any]:
        """Give one order and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        await self._process.stdin.drain()
        answer = await self.hear()
        assert answer is not None, f"it died of {order!r}, with {await self._process.wait()}"
        return answer

    async def hear(self) -> dict[str, Any] | None:
        """Return its next answer, or None when it has ended."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), CHILD_DEADLINE)
        return json.loads(line) if line else None

    async def obeys_until_frozen(self, order: str) -> None:
        """Give an order that it does not finish, and wait until it stands still."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())

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
        said, _ = await asyncio.wait_for(
            self._process.communicate("".join(f"{order}\n" for order in orders).encode()), CHILD_DEADLINE
        )
        assert self._process.returncode == -signal.SIGKILL, f"ended with {self._process.returncode}: {said!r}"


@dataclass(frozen=True)
class Program:
    """The way to start such processes."""

    environment: dict[str, str]

    @asynccontextmanager
    async def started(self, point: str | None = None, number: str = "SIGKILL") -> AsyncIterator[Told]:
        """Start a process that has opened everything; killed at the end of the block if it still runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            *([] if point is None else [point, number]),
            cwd=Path(__file__).parents[2],
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        told = Told(process)
        try:
            assert await told.hear() == {"up": True}
            yield told
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def dies(self, point: str, psql: Any, *orders: str) -> None:
        """Tell a process to die at a point, and let its leases run out."""
        async with self.started(point) as told:
            await told.obeys_until_killed(*orders)

        await psql.execute(LEASES_RUN_OUT)


LEASES_RUN_OUT = "UPDATE leases SET lease_until = now() - interval '1 second'"

if __name__ == "__main__":
    chosen = signal.Signals[sys.argv[2]] if sys.argv[2:] else signal.SIGKILL
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else None, chosen))
