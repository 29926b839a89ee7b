"""Several processes on one folder: they die, sleep, race and run out of room, and a whole mirror is always there."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from evervec.errors import MirrorBusyError
from evervec.mirror.disk.folder import MirrorFolder
from tests.mirror.stored import DATASET, IDENTITY, PROJECT, Stored, segment

ROOT = Path(__file__).parents[2]
DEADLINE = 60
MOST_STEPS = 60


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Return a folder with one dataset in it, published once at watermark 10."""
    found = Stored(tmp_path / "faiss")
    found.folder.save(PROJECT, DATASET, segment(xmin=10))
    return found


def command(what: str, stored: Stored, *given: object) -> list[str]:
    """Return the command that starts a publisher."""
    return [sys.executable, "-m", "tests.mirror.publisher", what, str(stored.faiss_dir), *map(str, given)]


def start(what: str, stored: Stored, *given: object) -> "subprocess.Popen[str]":
    """Start a publisher that runs beside us."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'backend'}:{ROOT}"}
    return subprocess.Popen(
        command(what, stored, *given),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """Return its output; it ended by itself, or was killed."""
    said, complaint = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, -signal.SIGKILL), complaint
    return said


def asleep(process: "subprocess.Popen[str]") -> None:
    """Wait until it is stopped."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


def watermark(stored: Stored) -> int | None:
    """Return the watermark that a new process loads; None when there is nothing."""
    loaded = stored.folder.load(PROJECT, DATASET, IDENTITY)
    assert loaded.state in ("ready", "absent"), loaded
    return loaded.segment.watermark.xmin if loaded.segment else None


def killed_at_each_step(stored: Stored, between: Callable[[], None]) -> list[tuple[int | None, int, int | None]]:
    """Kill a publisher at each step; yield what was there, what was being published, and what was there after."""
    seen = list[tuple[int | None, int, int | None]]()
    with start("killed", stored) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in range(1, MOST_STEPS):
            between()
            old = watermark(stored)
            new = (old or 10) + 1
            process.stdin.write(f"{new} {step}\n")
            process.stdin.flush()
            said = process.stdout.readline()
            if said == "saved\n":
                assert watermark(stored) == new
                break
            assert said == "died\n", process.communicate(timeout=DEADLINE)
            seen.append((old, new, watermark(stored)))
    return seen


def test_killed_at_every_step_of_publishing_leaves_the_old_or_the_new(stored: Stored) -> None:
    seen = killed_at_each_step(stored, lambda: None)
    assert all(found in (old, new) for old, new, found in seen), seen
    assert {found == new for _, new, found in seen} == {True, False}
    assert 8 <= len(seen) < MOST_STEPS - 1
    stored.folder.collect([(PROJECT, DATASET)])
    assert stored.names() == ["bin", "json", "lock"]


def test_killed_at_every_step_of_the_first_publishing_leaves_nothing_or_the_new(stored: Stored) -> None:
    seen = killed_at_each_step(stored, lambda: shutil.rmtree(stored.faiss_dir, ignore_errors=True))
    assert all(old is None and found in (None, new) for old, new, found in seen), seen
    assert {found for _, _, found in seen} == {None, 11}
    stored.folder.save(PROJECT, DATASET, segment(xmin=12))
    assert watermark(stored) == 12


def test_two_writers_race_and_a_reader_always_finds_a_mirror(stored: Stored) -> None:
    writers = [start("racing", stored, 40) for _ in range(2)]
    newest, reader = 10, MirrorFolder(stored.faiss_dir)  # as patient as in earnest
    while any(writer.poll() is None for writer in writers):
        loaded = reader.load(PROJECT, DATASET, IDENTITY)
        assert loaded.segment is not None, loaded
        assert loaded.segment.watermark.xmin >= newest
        assert set(loaded.segment.versions.tolist()) == {loaded.segment.watermark.xmin}
        newest = loaded.segment.watermark.xmin
    published = [int(line) for writer in writers for line in ended(writer).split()]
    assert sorted(published) == list(range(11, 11 + 80))  # nobody published over what he had not seen
    assert watermark(stored) == 90
    assert stored.folder.generation(PROJECT, DATASET) == 81
    assert stored.names() == ["bin", "json", "lock"]


def test_a_paused_writer_that_wakes_up_is_refused(stored: Stored) -> None:
    writer = start("stopped_before_lock", stored, 11)
    asleep(writer)
    folder = stored.folder
    folder.load(PROJECT, DATASET, IDENTITY)
    folder.save(PROJECT, DATASET, segment(xmin=20))
    writer.send_signal(signal.SIGCONT)
    assert "published generation 2 meanwhile" in ended(writer)
    assert watermark(stored) == 20
    assert stored.names() == ["bin", "json", "lock"]


def test_a_writer_asleep_with_the_lock_stops_writers_not_readers(stored: Stored) -> None:
    writer = start("stopped_with_lock", stored, 11)
    try:
        asleep(writer)
        assert watermark(stored) == 10
        with pytest.raises(MirrorBusyError, match="another process is writing it"):
            stored.folder.save(PROJECT, DATASET, segment(xmin=12))
        with pytest.raises(MirrorBusyError):
            stored.folder.remove(PROJECT, DATASET)
        assert stored.folder.collect([]) == []
        stored.place.bin.write_bytes(b"")
        loaded = stored.folder.load(PROJECT, DATASET, IDENTITY)
        assert (loaded.state, loaded.segment) == ("unreadable", None)
        assert "another process is writing it" in loaded.reason
    finally:
        writer.kill()
        ended(writer)
    assert stored.folder.load(PROJECT, DATASET, IDENTITY).state == "set aside"
    stored.folder.save(PROJECT, DATASET, segment(xmin=12))
    assert watermark(stored) == 12


@pytest.mark.parametrize("most_bytes", [10, 900])
def test_no_room_for_the_file_leaves_the_old_one_and_nothing_else(stored: Stored, most_bytes: int) -> None:
    said = ended(start("limited", stored, 11, 40, most_bytes))
    assert said.startswith("folder ")
    assert "File too large" in said
    assert "Make room there" in said
    assert watermark(stored) == 10
    assert stored.names() == ["bin", "json", "lock"]


def test_no_room_for_the_manifest_leaves_the_old_one_and_nothing_else(stored: Stored) -> None:
    stored.folder.save(PROJECT, DATASET, segment(1, xmin=10))
    file, manifest = stored.place.bin.stat().st_size, stored.place.manifest.stat().st_size
    assert file < manifest - 100
    assert "File too large" in ended(start("limited", stored, 11, 1, manifest - 100))
    assert stored.folder.generation(PROJECT, DATASET) == 2
    assert stored.names() == ["bin", "json", "lock"]


def test_a_full_disk_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=96k tmpfs {tmp_path} && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no disk of our own can be mounted here")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'backend'}:{ROOT}"}
    done = subprocess.run(
        [*inside, *command("filling", Stored(tmp_path), 10)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=DEADLINE,
    )
    saved, refused, state, left = done.stdout.splitlines()
    assert (saved, state, left) == ("saved", "ready", ".bin .json .lock")
    assert "No space left on device" in refused


def test_a_folder_of_somebody_else_is_said_in_words(stored: Stored) -> None:
    for folder in (stored.place.folder, stored.faiss_dir):
        folder.chmod(0o500)
    try:
        said = ended(start("nobody", stored, 11))
    finally:
        for folder in (stored.faiss_dir, stored.place.folder):
            folder.chmod(0o700)
    assert said.startswith("folder Mirrors can not be kept in")
    assert "Permission denied" in said
    assert watermark(stored) == 10
