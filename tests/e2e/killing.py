"""kill -9 at a moment that is known: some of a backlog is embedded, and more of it is not."""

import signal
from typing import Any

from tests.e2e.processes import Worker
from tests.e2e.rows import LEASED, PENDING, count, wait_until_embedded
from tests.e2e.waiting import eventually
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider


def hold_back(fake: FakeProvider, *, after: int, word: str = "row", seconds: float = 3600) -> None:
    """Let the provider answer slowly for rows after that number, until it resumes: however late we are, work is not over."""

    def is_late(text: str) -> bool:
        return text.startswith(f"{word} number ") and int(text.rpartition(" ")[2]) > after

    fake.always(is_late, Fault.SLOW_LOAD, seconds=seconds)


async def kill_in_the_middle(psql: Any, worker: Worker, fake: FakeProvider, *, of: int) -> None:
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
    fake.resume()
