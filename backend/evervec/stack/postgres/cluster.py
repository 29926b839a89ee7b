"""Making PostgreSQL's data folder: whole or not at all, whatever kills us in between."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from evervec.errors import StackError
from evervec.stack.account import Account
from evervec.stack.home import Home
from evervec.stack.process import ENVIRONMENT, until

USER = "evervec"
DATABASE = "evervec"
CONFIGURATION_FILE = "evervec.conf"
STEP_SECONDS = 120
# The working directory under a name that needs no folder above it to be open to the server's user.
HERE = "/proc/self/cwd" if Path("/proc/self/cwd").exists() else "."

_INITDB = (
    "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C",
    "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions",
)  # fmt: skip
# The socket is in the data folder, which nobody but the server's user and root can enter.
_ACCESS = "local all all trust\n"


async def create(home: Home, postgres: Path, account: Account) -> None:
    """Make the cluster with its database beside its place and rename it into it.

    Raises StackError with initdb's own words when it fails, or when other files are in the place.
    """
    _sweep(home.path)
    fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=home.path))
    try:
        account.own(fresh)
        initdb = str(postgres.with_name("initdb"))
        await _run([initdb, *_INITDB, "-D", HERE], fresh, account)
        await _run(
            [str(postgres), "--single", "-D", HERE, "postgres"], fresh, account, f"CREATE DATABASE {DATABASE};\n"
        )
        account.write(fresh / "pg_hba.conf", _ACCESS)
        with (fresh / "postgresql.conf").open("a") as file:
            file.write(f"\ninclude '{CONFIGURATION_FILE}'\n")
        _put_in_place(fresh, home.postgres)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


async def _run(command: list[str], folder: Path, account: Account, typed: str = "") -> None:
    with tempfile.TemporaryFile() as said:
        process = _spawn(command, folder, account, typed, said)
        try:
            await until(lambda: process.poll() is not None, STEP_SECONDS)
        finally:
            _end(process)
        said.seek(0)
        words = "\n".join(said.read().decode(errors="replace").splitlines()[-8:])
    if process.returncode != 0:
        raise StackError(
            reason=f"PostgreSQL could not make its data folder in {folder.parent}. Its last words: {words}"
        )


def _spawn(command: list[str], folder: Path, account: Account, typed: str, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """By `subprocess`, since not every event loop can switch the user of a child."""
    with tempfile.TemporaryFile() as keyboard:
        keyboard.write(typed.encode())
        keyboard.seek(0)
        return subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=keyboard,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **account.process_user,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with its children if we were called away before it was done."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _put_in_place(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError as error:
        raise StackError(
            reason=f"{place} is no PostgreSQL data folder, and it is in the way ({error.strerror}). Move it elsewhere."
        ) from None
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(home: Path) -> None:
    """Remove what a killed process left half made; the start lock says that nobody else is at it."""
    for leftover in home.glob("postgres.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
