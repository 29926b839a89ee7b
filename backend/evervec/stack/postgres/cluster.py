"""Creates PostgreSQL's data folder: complete or not at all, even if the process is killed meanwhile."""

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
# The working directory by a path that does not need the folders above it to be open to the server's user.
HERE = "/proc/self/cwd" if Path("/proc/self/cwd").exists() else "."

_INITDB = (
    "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C",
    "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions",
)  # fmt: skip
# The socket is in the data folder, which only the server's user and root can enter.
_ACCESS = "local all all trust\n"


async def create(home: Home, postgres: Path, account: Account) -> None:
    """Create the cluster with its database beside its place and rename it into it.

    Raises StackError with initdb's own output when it fails, or when other files are in the place.
    """
    _remove_leftovers(home.path)
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


async def _run(command: list[str], folder: Path, account: Account, stdin_text: str = "") -> None:
    with tempfile.TemporaryFile() as output:
        process = _spawn(command, folder, account, stdin_text, output)
        try:
            await until(lambda: process.poll() is not None, STEP_SECONDS)
        finally:
            _end(process)
        output.seek(0)
        words = "\n".join(output.read().decode(errors="replace").splitlines()[-8:])
    if process.returncode != 0:
        raise StackError(
            reason=f"PostgreSQL could not create its data folder in {folder.parent}. Its last output: {words}"
        )


def _spawn(
    command: list[str], folder: Path, account: Account, stdin_text: str, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start it by `subprocess`, because not every event loop can switch the user of a child."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(stdin_text.encode())
        stdin.seek(0)
        return subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **account.process_user,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with its children if we were cancelled before it was done."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _put_in_place(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError as error:
        raise StackError(
            reason=f"{place} is not a PostgreSQL data folder, and it is in the way ({error.strerror}). Move it elsewhere."
        ) from None
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(home: Path) -> None:
    """Remove what a killed process left incomplete; with the start lock, no other process is creating one."""
    for leftover in home.glob("postgres.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
