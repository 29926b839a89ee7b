"""The files that the fake keeps for its callers: on disk, or made anew for each reader; what they mean lives elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
Chunks = Callable[[], Iterator[bytes]]


class Incoming:
    """A file that is being uploaded to `path`; `wish` is what its owner said of it, `size` what has arrived.

    `file` is what it became, once it is whole.
    """

    def __init__(self, path: Path, wish: dict[str, Any]) -> None:
        self.path, self.wish, self.size = path, wish, 0
        self.file: RemoteFile | None = None
        self._digest = sha256()
        path.touch()

    def append(self, block: bytes) -> None:
        """Keep the next bytes."""
        with self.path.open("ab") as out:
            out.write(block)
        self._digest.update(block)
        self.size += len(block)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what has arrived, in hex."""
        return self._digest.hexdigest()


@dataclass
class RemoteFile:
    """One file at the provider; `path` is set for what was uploaded, `source` gives the bytes of either kind."""

    id: str
    protocol: str
    source: Chunks
    path: Path | None = None
    sha256: str = ""
    filename: str = ""
    mime_type: str = "application/jsonl"
    purpose: str = "batch"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def size(self) -> int:
        """Return the size in bytes; a file of results has to be made for it."""
        return self.path.stat().st_size if self.path else sum(len(chunk) for chunk in self.source())


def stored(path: Path) -> Chunks:
    """Yield the bytes of a file on disk, block by block, each time they are asked for."""

    def read() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    return read
