"""A server as a process: started in a session of its own, identified safely, stopped with all its children.

Its folder is the working directory, so that neither the length nor the characters of the path reach its command line,
and no folder above has to be open to its user. It holds a lock as long as any of its processes lives: the lock, and not
a number in a file, tells whether a server is really gone.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from evervec.errors import StackError
from evervec.stack.account import Account
from evervec.stack.locks import POLL_SECONDS, is_held, try_lock
from evervec.stack.server_log import ServerLog

SETTLE_SECONDS = 20
ORPHAN_SECONDS = 1
KILL_SECONDS = 5

# The shell exits at once, so the server is not our child: no zombie, no warning, and it outlives the process that started it.
_DETACH = '"$@" >&2 </dev/null &'
# Nothing of the caller's environment (PGPORT, PGOPTIONS, LD_LIBRARY_PATH …) reaches a server.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class ServerProcess:
    """One server process: where it runs (`folder`), what proves that it lives (`lock`, `pid_file`), and its `log`."""

    name: str
    program: str
    folder: Path
    pid_file: Path
    lock: Path
    log: ServerLog

    def find(self) -> psutil.Process | None:
        """Return the running server, None if there is none.

        It is the process of the pid file, if it has the program's name and works in the folder.
        """
        try:
            pid = int(self.pid_file.read_text().split(maxsplit=1)[0])
            return self._if_ours(psutil.Process(pid))
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def gone(self) -> bool:
        """Return whether no process of this server is left, children included."""
        return self.find() is None and not is_held(self.lock)

    def launch(self, command: Sequence[str | Path], account: Account) -> None:
        """Start `command` in the folder, detached from this process and its terminal. Call only when `gone`."""
        descriptor = try_lock(self.lock)
        if descriptor is None:
            raise StackError(reason=f"{self.name} in {self.folder} is being started by another process. Try again.")
        log = self.log.open()
        try:
            subprocess.run(
                ["/bin/sh", "-c", _DETACH, "sh", *command],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[descriptor],
                start_new_session=True,
                check=True,
                **account.process_user,
            )
        except OSError as error:
            raise StackError(reason=f"{self.name} can not be started in {self.folder}: {error}.") from None
        finally:
            os.close(log)
            os.close(descriptor)

    async def settle(self) -> bool:
        """Wait until it is known whether this server runs: True if it does, False once no process of it is left.

        Children that outlive their server are killed: they serve no client and keep its memory and files. Raises
        StackError when processes that can not be seen from here keep the folder.
        """
        start = time.monotonic()
        while self.find() is None:
            if not is_held(self.lock):
                return False
            waited = time.monotonic() - start
            if waited > SETTLE_SECONDS:
                raise StackError(
                    reason=f"{self.name} in {self.folder} is held by a process that can not be seen from here, perhaps "
                    "in another container. Stop that one, or set EVERVEC_HOME to another folder."
                )
            if waited > ORPHAN_SECONDS:
                for orphan in self._all():
                    _send(orphan, signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def stop(self, polite: signal.Signals, seconds: float) -> None:
        """Stop the server and its children: `polite` first, SIGKILL for those left after `seconds`."""
        signalled: psutil.Process | None = None
        deadline = time.monotonic() + seconds
        while not self.gone() and time.monotonic() < deadline:
            server = self.find()  # a starting server is found as soon as it has written its pid
            if server is not None and server != signalled:
                _send(server, polite)
                signalled = server
            await asyncio.sleep(POLL_SECONDS)
        for left in () if self.gone() else self._all():
            _send(left, signal.SIGKILL)
        if not await until(self.gone, KILL_SECONDS):
            raise StackError(reason=f"{self.name} in {self.folder} does not stop. See {self.log.path}.")

    def _if_ours(self, process: psutil.Process) -> psutil.Process | None:
        named = process.name() == self.program and process.status() != psutil.STATUS_ZOMBIE
        return process if named and Path(process.cwd()).samefile(self.folder) else None

    def _all(self) -> Iterator[psutil.Process]:
        """Yield the server and its children, found by their working directory."""
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if self._if_ours(process):
                    yield process


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for `condition`; return False when it does not hold after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
