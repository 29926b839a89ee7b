"""A watch where the kernel refuses: no watches are left (in a namespace with a limit of its own), a folder is closed."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

FEW_WATCHES = ["unshare", "-Ur", "sh", "-c", 'echo 8 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]

WATCH = """
import asyncio, os, sys
from pathlib import Path
from evervec.sources.files import watcher

watcher.WATCH_POLL_SECONDS = 0.2
folder = Path(sys.argv[1])

async def watch():
    watched = watcher.FileWatcher([folder], note=print)
    running = asyncio.create_task(watched.run())
    await watched.has_changes.wait()
    print(await watched.take())
    (folder / "folder19" / "new.md").write_text(str(os.geteuid()))
    await watched.has_changes.wait()
    print(await watched.take())
    running.cancel()

asyncio.run(asyncio.wait_for(watch(), 60))
"""
AS_NOBODY = """
os.chown(folder / "folder19", 65534, 65534)
(folder / "folder19" / "new.md").unlink()
os.seteuid(65534)
asyncio.run(asyncio.wait_for(watch(), 60))
"""


def made(place: Path) -> Path:
    for number in range(20):
        (place / f"folder{number}").mkdir()
    return place


def few_watches_can_be_had() -> bool:
    """Return whether this user may make a namespace with a limit of its own."""
    try:
        return subprocess.run([*FEW_WATCHES, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not few_watches_can_be_had(), reason="needs a user namespace")
def test_where_the_kernel_has_no_watches_left_it_looks_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FEW_WATCHES, sys.executable, "-c", WATCH, str(made(tmp_path))], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    note, first, second = done.stdout.splitlines()
    assert note.startswith("The kernel does not watch all of this (OS file watch limit reached): looking every")
    assert "everything=True" in first
    assert "folder19/new.md" in second


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_is_closed_does_not_keep_the_others_from_being_watched() -> None:
    with TemporaryDirectory() as place:
        folder = made(Path(place))
        folder.chmod(0o755)
        (folder / "folder7").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", WATCH + AS_NOBODY, place], capture_output=True, text=True, timeout=150
        )
    assert done.returncode == 0, done.stderr
    _, _, first, second = done.stdout.splitlines()
    assert "everything=True" in first
    assert "folder19/new.md" in second
