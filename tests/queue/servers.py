"""A real nats-server of our own for one test: started, paused, killed and started again on the same port."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

BINARY = Path(sys.executable).parent / "nats-server"


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    """nats-server with JetStream in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        config = self._folder / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self._folder}/store" }}\n')
        with (self._folder / "nats.log").open("ab") as out:
            self._process = subprocess.Popen([BINARY, "-c", str(config)], stdout=out, stderr=out)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "nats.log").read_text()
                time.sleep(0.01)

    def pause(self) -> None:
        """Stop it in the middle of whatever it does: the line stays up and nothing answers."""
        self._signal(signal.SIGSTOP)
        while psutil.Process(self._pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill -9; nothing happens if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(60)
            self._process = None
