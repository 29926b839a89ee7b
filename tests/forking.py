"""Processes that are there at once: forked from one that has imported Evervec already, which a command does in a second.

In all else they are what a command is: a process and a session of its own, with its environment, output and signals.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evervec.cli.main import main

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        __name__,
        "evervec.cli.app",
        "evervec.runtime",
        "evervec.worker.tasks",
        "tests.e2e.batching",
        "tests.pipeline.spaces.killed",
    ]
)


class Forked:
    """A process that runs; `returncode` is None until it has ended, as that of `asyncio.subprocess.Process`."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        """Return its exit code, negative for a signal, None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end; return the exit code."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        return int(self._process.exitcode)


def pipe() -> tuple[Any, Any]:
    """Return two ends, one of which can be given to a process; what is sent is Python's objects."""
    return _context.Pipe()


async def start(work: Callable[..., None], *given: object, environment: Mapping[str, str] | None = None) -> Forked:
    """Run a function of a module in a process of its own, with an environment, or that of the tests."""
    wanted = dict(os.environ if environment is None else environment)
    process = _context.Process(target=_run, args=(str(Path.cwd()), wanted, work, given))
    await asyncio.to_thread(process.start)
    return Forked(process)


async def start_command(arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> Forked:
    """Start `evervec` with arguments and an environment; what it writes is added to files."""
    return await start(_command, list(arguments), out, err, environment=environment)


def _run(folder: str, environment: dict[str, str], work: Callable[..., None], given: Sequence[object]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    work(*given)


def _command(arguments: Sequence[str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["evervec", *arguments]
    main()
