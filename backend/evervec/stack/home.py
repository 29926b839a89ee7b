"""The folder EVERVEC_HOME: its paths and the record of the servers that run in it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evervec.errors import HomeNotWritableError
from evervec.stack.account import Account


@dataclass(frozen=True)
class Home:
    """The paths in EVERVEC_HOME.

    `start_lock` is held while servers start or stop; every process that uses them holds `users_lock` shared, so that a
    process that gets it exclusively is the last one.
    """

    path: Path

    @property
    def start_lock(self) -> Path:
        """Return the lock of the process that starts or stops servers, held exclusively."""
        return self.path / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Return the lock of the processes that use the servers, held shared."""
        return self.path / "users.lock"

    @property
    def postgres(self) -> Path:
        """Return PostgreSQL's data folder."""
        return self.path / "postgres"

    @property
    def nats(self) -> Path:
        """Return the folder of NATS's configuration and streams."""
        return self.path / "nats"

    @property
    def logs(self) -> Path:
        """Return the folder of the servers' logs."""
        return self.path / "logs"

    @property
    def record(self) -> Path:
        """Return the file that describes the running servers, for people and for the next process."""
        return self.path / "stack.json"

    def read_record(self) -> dict[str, Any]:
        """Return the last record, empty when there is none or it was damaged."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def update_record(self, server: str, description: dict[str, Any]) -> None:
        """Replace the record's entry of one server. It holds the token of NATS, so only we may read it."""
        record = {**self.read_record(), server: description}
        Account().write(self.record, json.dumps(record, indent=2) + "\n")


def prepare(path: Path) -> Home:
    """Create EVERVEC_HOME if it is not there. Raises HomeNotWritableError when it can not be used."""
    try:
        home = Home(path.expanduser().resolve())
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.logs.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(home.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, or no home folder for `~`
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise HomeNotWritableError(home=path, reason=reason) from None
    return home
