"""What nobody needs any more is removed, and nothing else is."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from evervec.mirror.disk.paths import get_faiss_index_path, this_host
from tests.mirror.stored import DATASET, IDENTITY, OTHER, PROJECT, Stored, segment


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Return a folder that does not exist yet."""
    return Stored(tmp_path / "faiss")


def leave(folder: Path, dataset: object, host: str, pid: int, age: int = 0) -> Path:
    """Leave a temporary file as a writer does, written so many seconds ago."""
    path = folder / f"{dataset}.{host}.{pid}.0.tmp"
    path.touch()
    moment = path.stat().st_mtime - age
    os.utime(path, (moment, moment))
    return path


def test_collecting_removes_what_nobody_needs_and_nothing_else(stored: Stored) -> None:
    folder, kept = stored.folder, stored.place
    for dataset in (DATASET, OTHER):
        folder.save(PROJECT, dataset, segment())
        get_faiss_index_path(stored.faiss_dir, PROJECT, dataset).write_bytes(b"")
        folder.load(PROJECT, dataset, IDENTITY)
        folder.save(PROJECT, dataset, segment())
    folder.save(OTHER, OTHER, segment())
    foreign = [
        stored.faiss_dir / "README",
        kept.folder / "README",
        kept.folder / f"{OTHER}.txt",
        stored.faiss_dir / "x" / f"{OTHER}.bin",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    dead = 2**22 + 1  # above what Linux gives out
    left = [leave(kept.folder, DATASET, this_host(), dead), leave(kept.folder, DATASET, "00000000", 1, age=4000)]
    busy = [leave(kept.folder, DATASET, this_host(), os.getpid()), leave(kept.folder, OTHER, "00000000", dead)]
    removed = folder.collect([(PROJECT, DATASET)])
    assert all(
        path.exists() for path in [*foreign, *busy, kept.bin, kept.manifest, kept.lock, kept.quarantined("bin", 1)]
    )
    assert not any(path.exists() for path in [*left, *removed, stored.faiss_dir / str(OTHER)])
    gone = [path for path in removed if path.name.startswith(str(OTHER)) and path.parent == kept.folder]
    assert len(gone) == 6  # bin, json, lock, and an aside of three
    assert len(removed) == len(left) + len(gone) + 3
    assert folder.collect([(PROJECT, DATASET)]) == []
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "ready"


def test_another_databases_files_in_the_same_folder_stay(stored: Stored) -> None:
    stored.folder.save(PROJECT, DATASET, segment())
    assert stored.folder.collect([], of_database=replace(IDENTITY, cluster="another")) == []
    assert stored.folder.collect([], of_database=replace(IDENTITY, database=IDENTITY.database + 1)) == []
    assert stored.folder.collect([], of_database=replace(IDENTITY, space_id=IDENTITY.space_id + 1)) != []
    assert not stored.place.bin.exists()


def test_collecting_where_there_is_nothing(stored: Stored) -> None:
    assert stored.folder.collect([(PROJECT, DATASET)]) == []
    assert stored.folder.remove(PROJECT, DATASET) == []
    assert not stored.faiss_dir.exists()


def test_a_removed_dataset_starts_again(stored: Stored) -> None:
    folder = stored.folder
    folder.save(PROJECT, DATASET, segment())
    place = stored.place
    assert folder.remove(PROJECT, DATASET) == [place.bin, place.manifest, place.lock]
    assert not place.folder.exists()
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "absent"
    folder.save(PROJECT, DATASET, segment(xmin=1))
    assert folder.load(PROJECT, DATASET, IDENTITY).state == "ready"
