"""The embedded NATS with JetStream: its configuration, its port and token, its address."""

import random
import secrets
import signal
import socket
from typing import Any

from evervec import log
from evervec.errors import PortTakenError
from evervec.stack import binaries
from evervec.stack.account import server_account
from evervec.stack.embedded_server import EmbeddedServer
from evervec.stack.home import Home
from evervec.stack.nats import health
from evervec.stack.process import ServerProcess
from evervec.stack.server_log import ServerLog

HOST = "127.0.0.1"
# Below the ports of Linux's outgoing connections, so that none takes our port while the server restarts.
PORTS = range(20_000, 32_000)

# sync_interval: PostgreSQL holds the truth, so a doorbell that is lost in a power cut is rung again by the sweep.
# Measured: `always` costs 60-80 % of the publishing rate, 2 s costs nothing. kill -9 of the server loses nothing either way.
# max_payload: a task may carry a message of 1 MB and the envelope around it.
NATS_CONFIGURATION = """\
# Written by Evervec at every start.
server_name: "evervec"
listen: "{host}:{port}"
authorization: {{ token: "{token}" }}
max_payload: 8MB
pid_file: "nats.pid"
jetstream: {{ store_dir: ".", sync_interval: "2s" }}
"""


class Nats(EmbeddedServer):
    """The server nats-server in EVERVEC_HOME/nats, on the loopback alone, with a random token."""

    key = "nats"
    start_seconds = 60

    def __init__(self, home: Home, port: int | None, stop_seconds: float) -> None:
        self._home = home
        self._wanted_port = port
        self._stop_seconds = stop_seconds
        self._address: tuple[int, str] | None = None
        self._version: str | None = None
        self.process = ServerProcess(
            name="NATS",
            program="nats-server",
            folder=home.nats,
            pid_file=home.nats / "nats.pid",
            lock=home.path / "nats.lock",
            log=ServerLog(home.logs / "nats.log"),
        )

    @property
    def url(self) -> str:
        """Return a NATS URL with the token in it: a secret."""
        port, token = self._known_address()
        return f"nats://{token}@{HOST}:{port}"

    async def ensure(self) -> None:
        """Attach to the running server, or start it; one whose token is unknown is replaced."""
        self._address = self._remembered()
        if self._address is None:
            await self.stop()
        await super().ensure()
        self._say_other_port()

    async def answers(self) -> bool:
        """Return whether the server accepts a client with our token."""
        port, token = self._known_address()
        return await health.answers(HOST, port, token)

    async def launch(self) -> None:
        """Write the configuration and start the server, on its last port if that is still free."""
        port = self._choose_port()
        token = self._address[1] if self._address else secrets.token_hex(24)
        self._address = (port, token)
        account = server_account(self._home.path, self._home.postgres)
        program, self._version = binaries.runnable_copy(binaries.nats_server(), account)
        account.make_folder(self._home.nats)
        account.write(self._home.nats / "nats.conf", NATS_CONFIGURATION.format(host=HOST, port=port, token=token))
        self._home.update_record(self.key, self.describe())
        self.process.launch([program.executable, "-c", "nats.conf"], account)

    async def stop(self) -> None:
        """Let the server close its streams and exit."""
        await self.process.stop(signal.SIGTERM, self._stop_seconds)

    def describe(self) -> dict[str, Any]:
        """Return the pid, version, port and token."""
        port, token = self._known_address()
        running = self.process.find()
        version = self._version or self._home.read_record().get(self.key, {}).get("version")
        return {"pid": running.pid if running else None, "version": version, "port": port, "token": token}

    def _known_address(self) -> tuple[int, str]:
        if self._address is None:
            raise RuntimeError("NATS has no address before ensure()")
        return self._address

    def _remembered(self) -> tuple[int, str] | None:
        match self._home.read_record().get(self.key):
            case {"port": int(port), "token": str(token)}:
                return port, token
        return None

    def _choose_port(self) -> int:
        if self._wanted_port is not None:
            if not is_free(self._wanted_port):
                raise PortTakenError(port=self._wanted_port, server="NATS", variable="EVERVEC_NATS_PORT")
            return self._wanted_port
        if self._address and is_free(self._address[0]):
            return self._address[0]
        return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))

    def _say_other_port(self) -> None:
        port = self._known_address()[0]
        if self._wanted_port not in (None, port):
            log.get("stack").warning("nats_runs_on_another_port", runs_on=port, EVERVEC_NATS_PORT=self._wanted_port)


def is_free(port: int) -> bool:
    """Return whether no process listens on `port` of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As nats-server does it: connections of a former server in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
