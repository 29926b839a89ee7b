"""What is where below the folder of mirrors: every file name is made and read here, nothing is opened."""

import itertools
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import xxhash

UUID_FORM = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAME = re.compile(
    rf"(?P<dataset>{UUID_FORM})\.(?:bin|json|lock|(?P<what>bin|json|reason)\.(?P<turn>\d{{1,9}})\.aside"
    r"|(?P<host>[0-9a-f]{8})\.(?P<pid>\d{1,9})\.\d+\.tmp)"
)
COUNTER = itertools.count()


def get_faiss_index_path(faiss_dir: Path, project_id: UUID, dataset_id: UUID) -> Path:
    """The file that a dataset's mirror is kept in: `{faiss_dir}/{project_id}/{dataset_id}.bin`."""
    return faiss_dir / str(project_id) / f"{dataset_id}.bin"


def this_host() -> str:
    """Eight hexadecimal digits that tell this machine (or container) from others that share a folder with it."""
    return xxhash.xxh32_hexdigest(socket.gethostname().encode())


@dataclass(frozen=True)
class Place:
    """Where one dataset's mirror is kept."""

    faiss_dir: Path
    project_id: UUID
    dataset_id: UUID

    @property
    def bin(self) -> Path:
        """The segment."""
        return get_faiss_index_path(self.faiss_dir, self.project_id, self.dataset_id)

    @property
    def manifest(self) -> Path:
        """What the segment's file must be."""
        return self.bin.with_suffix(".json")

    @property
    def lock(self) -> Path:
        """The writer's lock."""
        return self.bin.with_suffix(".lock")

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return self.bin.parent

    def aside(self, what: str, turn: int) -> Path:
        """Where the n-th set of files that could not be used is kept; `what` is bin, json or reason."""
        return self.folder / f"{self.dataset_id}.{what}.{turn}.aside"

    def temporary(self) -> Path:
        """A name that nobody else writes to, with the writer in it, so that its leftovers are known when it is gone."""
        return self.folder / f"{self.dataset_id}.{this_host()}.{os.getpid()}.{next(COUNTER)}.tmp"

    def files(self) -> list["Known"]:
        """Every file of this dataset that is there."""
        return [known for known in known_files(self.folder) if known.dataset_id == self.dataset_id]


@dataclass(frozen=True)
class Known:
    """A file whose name only we give. `turn` is of an aside; `host` and `pid` are the writer of a temporary file."""

    path: Path
    dataset_id: UUID
    turn: int | None = None
    host: str | None = None
    pid: int | None = None


def known(path: Path) -> Known | None:
    """What a file is by its name; None when the name is not one of ours."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return None
    turn, pid = match["turn"], match["pid"]
    return Known(path, UUID(match["dataset"]), int(turn) if turn else None, match["host"], int(pid) if pid else None)


def known_files(folder: Path) -> list[Known]:
    """The files in a project's folder that are ours, by name; none when there is no folder. Raises `OSError`."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    return [found for path in paths if (found := known(path))]


def project_folders(faiss_dir: Path) -> Iterable[tuple[UUID, Path]]:
    """The folders that are named like a project, in order; none when there is no folder. Raises `OSError`."""
    try:
        paths = sorted(faiss_dir.iterdir())
    except FileNotFoundError:
        return []
    return [(UUID(path.name), path) for path in paths if re.fullmatch(UUID_FORM, path.name) and path.is_dir()]
