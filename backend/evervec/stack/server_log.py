"""The log file of a server: its last lines, and a limit to its size."""

import os
from dataclasses import dataclass
from pathlib import Path

LONGEST_LOG_BYTES = 16 * 2**20
KEPT_LOG_BYTES = 2**20


@dataclass(frozen=True)
class ServerLog:
    """A log that the server's processes append to."""

    path: Path

    def open(self) -> int:
        """Return a descriptor to append with; only we can read the file."""
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def size(self) -> int:
        """Return the size in bytes; 0 when there is no log."""
        return self.path.stat().st_size if self.path.exists() else 0

    def tail(self, since: int, lines: int = 8) -> str:
        """Return the last lines written after byte `since`."""
        with self.path.open("rb") as file:
            file.seek(since)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def trim(self) -> None:
        """Cut a log over 16 MB to its last 1 MB. The server appends, so it may run meanwhile."""
        if self.size() <= LONGEST_LOG_BYTES:
            return
        with self.path.open("r+b") as file:
            file.seek(-KEPT_LOG_BYTES, os.SEEK_END)
            end = file.read()
            file.truncate(0)
        with self.path.open("ab") as file:
            file.write(end)
