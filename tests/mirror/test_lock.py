"""The writer's lock: one holder at a time, on the file that is there now, given back by the kernel."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.mirror.disk.lock import exclusive


def test_a_second_holder_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a" / "one.lock"
    with (
        exclusive(path, 0),
        pytest.raises(MirrorBusyError, match="dataset one was not written: another process"),
        exclusive(path, 0.02),
    ):
        pytest.fail("two at once")
    with exclusive(path, 0):
        assert path.exists()


def test_a_lock_file_that_was_removed_by_its_holder_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    with exclusive(path, 0):
        path.unlink()
        with exclusive(path, 0), pytest.raises(MirrorBusyError), exclusive(path, 0):
            pytest.fail("two at once")


def test_a_lock_on_a_removed_file_is_not_taken_for_one(tmp_path: Path) -> None:
    """Remove the file after it was opened: the lock on it is worthless, and the process must look again."""
    path, moved = tmp_path / "one.lock", tmp_path / "moved"
    path.touch()
    original = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if not moved.exists():
            path.rename(moved)
        original(descriptor, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with exclusive(path, 1):
            assert moved.exists()
            patch.undo()
            with pytest.raises(MirrorBusyError), exclusive(path, 0):
                pytest.fail("two at once")


def test_the_folder_comes_back_when_it_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "one.lock"
    for _ in range(2):
        with exclusive(path, 0):
            assert path.exists()
        shutil.rmtree(tmp_path / "a")


def test_nothing_stays_open(tmp_path: Path) -> None:
    path, fds = tmp_path / "one.lock", Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("no /proc here")
    before = len(list(fds.iterdir()))
    for _ in range(20):
        with exclusive(path, 0), pytest.raises(MirrorBusyError), exclusive(path, 0):
            pytest.fail("two at once")
    assert len(list(fds.iterdir())) <= before  # what others have forgotten to close may be collected meanwhile


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Give the kernel's answer in place of such a file system."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(MirrorFolderError, match=r"no locks.*EVERVEC_FAISS_DIR.*stay in memory"),
        exclusive(tmp_path / "x", 1),
    ):
        pytest.fail("held")
