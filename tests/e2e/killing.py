"""kill -9 of a worker at a moment that is known: some of a backlog is embedded, and the worker holds more of it."""

import signal
from typing import Any

from tests.e2e.processes import Worker
from tests.e2e.rows import LEASED, PENDING, count, wait_until_embedded
from tests.e2e.waiting import eventually


async def kill_in_the_middle(psql: Any, worker: Worker, *, of: int) -> None:
    """Kill a worker while it works on `of` rows, proven: it is stopped first, and goes on if it held nothing just then."""
    await wait_until_embedded(psql, of // 10)

    async def stopped_at_work() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        if await count(psql, LEASED) > 0:
            return True
        worker.process.send_signal(signal.SIGCONT)
        return False

    await eventually("a worker that holds leases", stopped_at_work)
    assert await worker.end(signal.SIGKILL) == -signal.SIGKILL
    assert await count(psql, PENDING) > of // 4
