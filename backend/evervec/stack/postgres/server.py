"""The embedded PostgreSQL: its configuration, its start, its address. `cluster` creates the data folder."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evervec.stack import binaries
from evervec.stack.account import Account, server_account
from evervec.stack.embedded_server import EmbeddedServer
from evervec.stack.home import Home
from evervec.stack.postgres import cluster, socket_folder
from evervec.stack.process import ENVIRONMENT, ServerProcess
from evervec.stack.server_log import ServerLog

PORT = 5432  # it only names the socket: .s.PGSQL.5432

POSTGRES_CONFIGURATION = """\
# Written by Evervec at every start. To change a setting for good use ALTER SYSTEM.
listen_addresses = ''
port = {port}
unix_socket_directories = '.'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 256MB
maintenance_work_mem = 512MB
dynamic_shared_memory_type = {shared_memory}
fsync = on
full_page_writes = on
wal_compression = on
max_wal_size = 2GB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
cluster_name = 'evervec'
"""
# A parallel HNSW build keeps maintenance_work_mem there, and containers have 64 MB by default.
LEAST_POSIX_MEMORY = 2**30


class Postgres(EmbeddedServer):
    """The server PostgreSQL 18 with pgvector in EVERVEC_HOME/postgres, reachable by a socket in that folder alone."""

    key = "postgres"
    start_seconds = 300  # after a crash it first replays up to max_wal_size of log, and must be let finish

    def __init__(self, home: Home, stop_seconds: float) -> None:
        self._home = home
        self._stop_seconds = stop_seconds
        self._version: str | None = None
        self.process = ServerProcess(
            name="PostgreSQL",
            program="postgres",
            folder=home.postgres,
            pid_file=home.postgres / "postmaster.pid",
            lock=home.path / "postgres.lock",
            log=ServerLog(home.logs / "postgres.log"),
        )

    @property
    def url(self) -> str:
        """Return a libpq URL; asyncpg, SQLAlchemy and psql accept it.

        It is plain ASCII whatever characters EVERVEC_HOME has, and complete, so that a PGPORT or PGUSER of the
        environment leads no client to another server.
        """
        folder = quote(str(self.socket_folder()))
        return f"postgresql://{cluster.USER}@/{cluster.DATABASE}?host={folder}&port={PORT}"

    def socket_folder(self) -> Path:
        """Return the folder to connect to; create the short link to it when one is needed and was removed."""
        return socket_folder.plain_name(self._home.postgres)

    def maintain(self) -> None:
        """Keep the log short, and the short link to the socket from being removed by a cleaner of /tmp."""
        super().maintain()
        self.socket_folder()

    async def answers(self) -> bool:
        """Return whether the postmaster accepts connections, asked as a client would."""
        if not _says_ready(self.process.pid_file):
            return False
        asker = str(binaries.postgres().executable.with_name("pg_isready"))
        command = [asker, "-q", "-d", self.url]
        probe = await asyncio.create_subprocess_exec(*command, env=ENVIRONMENT)
        return await probe.wait() == 0

    async def launch(self) -> None:
        """Create the cluster if there is none, write the configuration, start the postmaster."""
        account = server_account(self._home.path, self._home.postgres)
        program, self._version = binaries.runnable_copy(binaries.postgres(), account)
        if not (self._home.postgres / "PG_VERSION").exists():
            await cluster.create(self._home, program.executable, account)
        configure(self._home.postgres, account)
        self._clear_stale_locks()
        self.process.launch([program.executable, "-D", cluster.HERE], account)

    def _clear_stale_locks(self) -> None:
        """Remove what a killed postmaster left.

        It is known to be gone, but its pid may belong to a new process or a zombie, and PostgreSQL would mistake either
        for itself.
        """
        for name in ("postmaster.pid", f".s.PGSQL.{PORT}.lock"):
            (self._home.postgres / name).unlink(missing_ok=True)

    async def stop(self) -> None:
        """Stop fast: clients are disconnected, committed data is safe."""
        await self.process.stop(signal.SIGINT, self._stop_seconds)
        socket_folder.forget(self._home.postgres)

    def describe(self) -> dict[str, Any]:
        """Return the pid, the version, and the folder for `psql -h`."""
        running = self.process.find()
        recorded = self._home.read_record().get(self.key, {})
        return {
            "pid": running.pid if running else None,
            "version": self._version or recorded.get("version"),
            "socket": str(self.socket_folder()),
        }


def configure(folder: Path, account: Account) -> None:
    """Write our part of the configuration, fitted to this machine."""
    memory = "posix" if _posix_memory_is_enough() else "sysv"
    text = POSTGRES_CONFIGURATION.format(port=PORT, shared_memory=memory)
    account.write(folder / cluster.CONFIGURATION_FILE, text)


def _posix_memory_is_enough() -> bool:
    if sys.platform != "linux":
        return True
    try:
        size = os.statvfs("/dev/shm")
    except OSError:
        return False
    return size.f_blocks * size.f_frsize >= LEAST_POSIX_MEMORY


def _says_ready(pid_file: Path) -> bool:
    try:
        return pid_file.read_text().splitlines()[7].startswith("ready")
    except (OSError, IndexError):
        return False
