"""The product as an adversary meets it: `evervec` in processes of its own, started, watched and ended by their ids."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests import forking
from tests.e2e.rows import MODEL
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.forking import Forked

EVERVEC = Path(sys.executable).with_name("evervec")
BACKFILL = Path(__file__).parents[2] / "scripts" / "backfill_embeddings.py"
CHILD_DEADLINE = 90.0


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.stdout)


class Worker:
    """A long-lived `evervec` command."""

    def __init__(self, process: Forked, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log

    @property
    def said(self) -> str:
        """Return everything on its stderr and stdout so far."""
        return self._log.read_text(errors="replace")

    @property
    def lives(self) -> bool:
        """Return whether the process is still there."""
        return self.process.returncode is None

    async def says(self, word: str) -> None:
        """Wait until it says `word`."""

        async def said() -> bool:
            assert self.lives, f"ended with {self.process.returncode}: {self.said[-3000:]}"
            return word in self.said

        await eventually(f"{word!r} in its output", said, CHILD_DEADLINE)

    async def end(self, number: signal.Signals, seconds: float = CHILD_DEADLINE) -> int:
        """Send a signal and wait; the exit code."""
        if self.lives:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), seconds)


@dataclass(frozen=True)
class Product:
    """The way to start `evervec`: its environment, and the folder that keeps its output."""

    environment: dict[str, str]
    logs: Path

    def given(self, **more: str) -> "Product":
        """Return the same with other variables."""
        return replace(self, environment={**self.environment, **more})

    async def run(self, *arguments: str, program: Path = EVERVEC) -> Outcome:
        """Run a command, or a script, to its end."""
        out, err = (self.logs / f"{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        process = await (
            forking.start_command(arguments, self.environment, out, err)
            if program == EVERVEC
            else _start_script(program, arguments, self.environment, out, err)
        )
        try:
            code = await asyncio.wait_for(process.wait(), CHILD_DEADLINE)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        return Outcome(code, out.read_text(), err.read_text())

    async def ask(self, *arguments: str) -> Any:
        """Run a command that must succeed; its JSON document."""
        outcome = await self.run(*arguments, "--json")
        assert outcome.code == 0, outcome.stderr
        return outcome.document

    @asynccontextmanager
    async def staying(self, command: str, *arguments: str, up: str) -> AsyncIterator[Worker]:
        """Start a command that stays, and wait until it says `up`; killed at the end of the block if it still runs."""
        log = self.logs / f"{command}-{time.monotonic_ns()}.log"
        log.touch()
        process = await forking.start_command((command, *arguments), self.environment, log, log)
        worker = Worker(process, log)
        try:
            await worker.says(up)
            yield worker
        except BaseException:
            sys.stderr.write(f"--- {log.name}\n{worker.said[-4000:]}\n")
            raise
        finally:
            await worker.end(signal.SIGKILL)

    def worker(self) -> Any:
        """Start `evervec worker`, and wait until it works."""
        return self.staying("worker", up="Working.")


async def _start_script(
    program: Path, arguments: Sequence[str], variables: Mapping[str, str], out: Path, err: Path
) -> asyncio.subprocess.Process:
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            sys.executable, program, *arguments, env=variables, stdout=stdout, stderr=stderr
        )


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without its EVERVEC_ variables, and with short times."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERVEC_")}
    short = {
        "EVERVEC_LOCAL_MODEL": "wordllama",
        "EVERVEC_LEASE_SECONDS": "3",
        "EVERVEC_SWEEP_SECONDS": "0.5",
        "EVERVEC_STOP_SECONDS": "8",
    }
    return {**kept, **short, "NO_COLOR": "1", "EVERVEC_LOG_LEVEL": "INFO", "EVERVEC_API_PORT": "0", **variables}


async def add_fake(product: Product, fake: FakeProvider, *, chat: bool = False) -> None:
    """Make the fake the active provider, as a person would."""
    options = ["--chat-model", "chat"] if chat else []
    added = await product.ask(
        "providers", "add", "fake", "--type", "ollama", "--base-url", fake.url, "--model", MODEL, *options
    )
    assert added["active"], added
