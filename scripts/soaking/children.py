"""The processes of the soak as their parent sees them: started, asked, killed, ended."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

PATIENCE = 240.0
STOPPED = 60.0


class ChildError(Exception):
    """A process of the soak ended, or did not answer."""


class Child:
    """One process. What it logs goes to a file of its own, across its lives."""

    def __init__(self, name: str, log: Path, environment: dict[str, str], *arguments: str) -> None:
        self.name = name
        self.kills = 0
        self._log, self._environment, self._arguments = log, environment, arguments
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        if self._process is None:
            raise ChildError(f"{self.name} was not started")
        return self._process.pid

    async def start(self) -> None:
        """Start the process."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "scripts.soaking.follower", *self._arguments)
        environment = {**os.environ, **self._environment}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdin=pipe, stdout=pipe, stderr=log
            )

    async def ask(self, what: str, **values: object) -> dict[str, Any]:
        """Ask one question and return its answer. Raises `ChildError`."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildError(f"{self.name} was not started")
        try:
            async with asyncio.timeout(PATIENCE):
                process.stdin.write(orjson.dumps({"ask": what, **values}) + b"\n")
                line = await process.stdout.readline()
        except (TimeoutError, ConnectionError) as error:
            raise ChildError(f"{self.name} did not answer {what}: {error!r}") from error
        if not line:
            raise ChildError(f"{self.name} ended by itself with {await process.wait()}, see {self._log}")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def kill(self) -> None:
        """Send SIGKILL and start the process again at once."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self.kills += 1
        await self.start()

    async def stop(self) -> int | None:
        """Let it finish and return its exit code, None if it had to be killed."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return 0
        process.stdin.close()
        try:
            return await asyncio.wait_for(process.wait(), STOPPED)
        except TimeoutError:
            process.kill()
            await process.wait()
            return None

    def logged(self) -> Counter[str]:
        """Count its log lines by event, over all its processes."""
        return events(self._log.read_text(errors="replace").splitlines() if self._log.exists() else [])


def events(lines: Iterable[str]) -> Counter[str]:
    """Count log lines by event; a line that is no log document counts under its first words."""
    found: Counter[str] = Counter()
    for line in filter(None, map(str.strip, lines)):
        try:
            found[_told(orjson.loads(line))] += 1
        except (orjson.JSONDecodeError, KeyError, TypeError):
            found[line[:80]] += 1
    return found


def _told(document: dict[str, str]) -> str:
    """Return the event, and the last line of the exception behind it."""
    trouble = document.get("exception", "").strip().splitlines()
    return f"{document['event']}: {trouble[-1]}" if trouble else document["event"]
