"""PgBouncer as a test starts it: in transaction mode, with two connections to the server for each database."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection, socket
from urllib.parse import parse_qs, urlsplit

from evervec.stack.account import Account
from evervec.stack.postgres.cluster import HERE

NOT_TESTED = (
    "poolers in transaction mode were NOT tested: PgBouncer is not installed, and Debian's package could not be"
)
SERVER_CONNECTIONS = 2
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
query_wait_timeout = 120
server_lifetime = 5
ignore_startup_parameters =
"""


@dataclass(frozen=True)
class Pooler:
    """A PgBouncer that runs."""

    port: int
    log: Path

    def url(self, database_url: str) -> str:
        """Return the address of the same database through it."""
        name = urlsplit(database_url).path
        return f"postgresql://evervec@127.0.0.1:{self.port}{name}"


def available() -> Path | None:
    """Return the program; install Debian's package if it is missing and may be installed."""
    found = _program()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "pgbouncer"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with suppress(subprocess.TimeoutExpired):  # without an index to ask: said as if it were refused
            subprocess.run(command, env=environment, capture_output=True, timeout=90, check=False)
        found = _program()
    return found


@contextmanager
def started(program: Path, database_url: str, folder: Path) -> Iterator[Pooler]:
    """Start it before the server of `database_url`; ended at the end of the block."""
    query = parse_qs(urlsplit(database_url).query)
    pooler = Pooler(_free_port(), folder / "pgbouncer.log")
    text = CONFIGURATION.format(
        host=HERE, port=query["port"][0], user="evervec", listen=pooler.port, size=SERVER_CONNECTIONS
    )
    # it refuses to run as root, and the folders above the socket are open to nobody else
    owner = Path(query["host"][0]).stat()
    account = Account(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else Account()
    closed = Path(tempfile.mkdtemp(prefix="evervec-pgbouncer-"))
    account.own(closed)
    account.write(closed / "pgbouncer.ini", text)
    with pooler.log.open("wb") as log:
        process = subprocess.Popen(
            [program, str(closed / "pgbouncer.ini")],
            stdout=log,
            stderr=log,
            cwd=query["host"][0],
            **account.process_user,
        )
    try:
        _wait(pooler, process)
        yield pooler
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(closed)


def _program() -> Path | None:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _wait(pooler: Pooler, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            create_connection(("127.0.0.1", pooler.port), timeout=5).close()
        except OSError:
            assert process.poll() is None, pooler.log.read_text()
            assert time.monotonic() < deadline, pooler.log.read_text()
            time.sleep(0.02)
        else:
            return


def _free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
