"""A worker as a process of its own, to be killed: `python -m tests.queue.worker_process URL JOURNAL TASKS`.

Every run of a task writes a line when it begins and one when it ends. `poison` kills its own process.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from evervec.queue.broker import JetStreamBroker
from evervec.queue.receiver import serve


async def main(url: str, journal: Path, tasks: int) -> None:
    broker = JetStreamBroker(url, ack_wait=2.0, connect_seconds=60)

    def write(line: str) -> None:
        with journal.open("a") as out:
            out.write(f"{line}\n")

    @broker.task(task_name="slow")
    async def slow(n: int, seconds: float) -> None:
        write(f"begin {n}")
        await asyncio.sleep(seconds)
        write(f"end {n}")

    @broker.task(task_name="poison")
    async def poison() -> None:
        write("poison")
        os.kill(os.getpid(), signal.SIGKILL)

    finish = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, finish.set)
    await serve(broker, max_async_tasks=tasks, wait_tasks_timeout=5, finish=finish)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
