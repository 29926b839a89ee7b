"""The file names below the folder of mirrors: every name is made and parsed here, nothing is opened."""

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
FILE_NAME = re.compile(
    rf"(?P<dataset>{UUID_FORM})\.(?:bin|json|lock|(?P<part>bin|json|reason)\.(?P<number>\d{{1,9}})\.aside"
    r"|(?P<host>[0-9a-f]{8})\.(?P<pid>\d{1,9})\.\d+\.tmp)"
)
COUNTER = itertools.count()


def get_faiss_index_path(faiss_dir: Path, project_id: UUID, dataset_id: UUID) -> Path:
    """Return the file of a dataset's mirror: `{faiss_dir}/{project_id}/{dataset_id}.bin`."""
    return faiss_dir / str(project_id) / f"{dataset_id}.bin"


def this_host() -> str:
    """Return eight hexadecimal digits that tell this machine (or container) from others that share a folder with it."""
    return xxhash.xxh32_hexdigest(socket.gethostname().encode())


@dataclass(frozen=True)
class MirrorPaths:
    """The paths of one dataset's mirror."""

    faiss_dir: Path
    project_id: UUID
    dataset_id: UUID

    @property
    def bin(self) -> Path:
        """Return the path of the segment."""
        return get_faiss_index_path(self.faiss_dir, self.project_id, self.dataset_id)

    @property
    def manifest(self) -> Path:
        """Return the path of the manifest."""
        return self.bin.with_suffix(".json")

    @property
    def lock(self) -> Path:
        """Return the path of the writer's lock."""
        return self.bin.with_suffix(".lock")

    @property
    def folder(self) -> Path:
        """Return the project's folder."""
        return self.bin.parent

    def quarantined(self, part: str, number: int) -> Path:
        """Return the path of a file in the n-th quarantined set; `part` is bin, json or reason."""
        return self.folder / f"{self.dataset_id}.{part}.{number}.aside"

    def temporary(self) -> Path:
        """Return a new name with the writer in it, so that others see when the writer is gone."""
        return self.folder / f"{self.dataset_id}.{this_host()}.{os.getpid()}.{next(COUNTER)}.tmp"

    def files(self) -> list["MirrorFile"]:
        """Return every existing file of this dataset."""
        return [known for known in mirror_files(self.folder) if known.dataset_id == self.dataset_id]


@dataclass(frozen=True)
class MirrorFile:
    """A file with one of our names.

    `quarantine_number` is set for a quarantined file; `host` and `pid` name the writer of a temporary file.
    """

    path: Path
    dataset_id: UUID
    quarantine_number: int | None = None
    host: str | None = None
    pid: int | None = None


def parse_name(path: Path) -> MirrorFile | None:
    """Return what a file is by its name; None if the name is not one of ours."""
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        return None
    number, pid = match["number"], match["pid"]
    return MirrorFile(
        path, UUID(match["dataset"]), int(number) if number else None, match["host"], int(pid) if pid else None
    )


def mirror_files(folder: Path) -> list[MirrorFile]:
    """Return our files in a project's folder, by name; none if there is no folder. Raises `OSError`."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    return [found for path in paths if (found := parse_name(path))]


def project_folders(faiss_dir: Path) -> Iterable[tuple[UUID, Path]]:
    """Return the folders that are named like a project, in order; none if there is no folder. Raises `OSError`."""
    try:
        paths = sorted(faiss_dir.iterdir())
    except FileNotFoundError:
        return []
    return [(UUID(path.name), path) for path in paths if re.fullmatch(UUID_FORM, path.name) and path.is_dir()]
