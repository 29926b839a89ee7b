"""More PostgreSQL servers of a test's own: a publisher for logical replication, a primary with its standby."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evervec.settings import Settings
from evervec.stack import binaries
from evervec.stack.home import prepare
from evervec.stack.postgres import cluster
from evervec.stack.postgres.server import PORT, Postgres
from evervec.stack.process import ENVIRONMENT
from evervec.stack.stack import Stack
from evervec.store.database.session import Database
from evervec.store.schema import migrations
from tests.conftest import NUMBERS
from tests.database.programs import Psql, run

CONFIGURATION = "fsync = off\nwal_level = logical\nmax_wal_senders = 4\nshared_buffers = 32MB\n"


@contextmanager
def started(home: Path) -> Iterator[Psql]:
    """Start the PostgreSQL of a home, created if there is none; stopped at the end."""
    stack = Stack(Settings(home=home, database_url=None, nats_url=None), nats=False)
    asyncio.run(stack.open())
    try:
        yield Psql(stack.urls.database_url)
    finally:
        asyncio.run(stack.close())


def loopback() -> str:
    """Return an address of the loopback that no other server of these tests has: all of them have the same port."""
    process = os.getpid()
    return f"127.{1 + next(NUMBERS) % 250}.{process >> 8 & 255}.{1 + process % 254}"


def configured(home: Path) -> str:
    """Create a cluster that can be replicated, and return the address that it listens on.

    That is one of TCP: the folder of a socket is closed to other servers.
    """
    with started(home):
        folder = home / "postgres"
    with (folder / "postgresql.conf").open("a") as file:
        file.write(f"\n{CONFIGURATION}")
    with (folder / "pg_hba.conf").open("a") as file:
        file.write("host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n")
    return listening(home)


def listening(home: Path) -> str:
    """Let a cluster that is not running listen on an address of its own, and return its URL without a database."""
    address = loopback()
    with (home / "postgres" / "postgresql.conf").open("a") as file:
        file.write(f"listen_addresses = '{address}'\n")
    return f"postgresql://{cluster.USER}@{address}:{PORT}"


class Standby(Postgres):
    """A server that replays another one's log, until it is promoted; it is up as soon as it can be read."""

    async def answers(self) -> bool:
        """Return whether it accepts connections; its pid file never says `ready`."""
        asker = str(binaries.postgres().executable.with_name("pg_isready"))
        probe = await asyncio.create_subprocess_exec(asker, "-q", "-d", self.url, env=ENVIRONMENT)
        return await probe.wait() == 0


@contextmanager
def standby(primary: Path, address: str, home: Path) -> Iterator[str]:
    """Copy the running primary of a home into another home, and start it as its standby; yield its URL without a database."""
    server = Standby(prepare(home), 5)
    folder = home / "postgres"
    run("pg_basebackup", "-D", str(folder), "-d", f"{address}/{cluster.DATABASE}", "-R", "-c", "fast")
    owner = (primary / "postgres").stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    url = listening(home)
    asyncio.run(server.ensure())
    try:
        yield url
    finally:
        asyncio.run(server.stop())


def crash(home: Path) -> None:
    """End the PostgreSQL of a home at once: no client is told, nothing more is sent to a standby."""
    pid = int((home / "postgres" / "postmaster.pid").read_text().split(maxsplit=1)[0])
    os.kill(pid, signal.SIGQUIT)


def eventually(what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def migrated(psql: Psql) -> Psql:
    """Bring a database to the present schema."""

    async def migrate() -> None:
        database = await Database(psql.url).open(check=False)
        await migrations.upgrade(database)
        await database.aclose()

    asyncio.run(migrate())
    return psql
