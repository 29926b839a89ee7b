"""A process that publishes mirrors and meets with something: `python -m tests.mirror.publisher WHAT FOLDER …`."""

import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.mirror.disk import lock, segment_file
from evervec.mirror.disk.folder import MirrorFolder
from evervec.mirror.segment import Segment
from tests.mirror.stored import DATASET, IDENTITY, PROJECT, segment

# Everything that publishing asks of the kernel and that another process, or a disk, can see.
STEPS = ((os, "mkdir"), (os, "fsync"), (os, "rename"), (os, "unlink"), (segment_file._Hashed, "write"))


def say(word: str) -> None:
    """Tell the test how it went."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def save(folder: MirrorFolder, built: Segment) -> None:
    """Publish once, and say how that went."""
    try:
        folder.save(PROJECT, DATASET, built)
        say("saved")
    except MirrorBusyError as error:
        say(f"busy {error}")
    except MirrorFolderError as error:
        say(f"folder {error}")


def before(owner: Any, name: str, act: Callable[[], None]) -> None:
    """Act each time before this function of this module or class is called."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*given: Any, **named: Any) -> Any:
        act()
        return original(*given, **named)

    setattr(owner, name, wrapped)


def killed(folder: MirrorFolder) -> None:
    """Start a process for each line `XMIN STEP` that comes in, which is killed before that step of publishing.

    It is forked, to be quick; nothing here has used FAISS when it is.
    """
    for line in sys.stdin:
        xmin, step = map(int, line.split())
        child = os.fork()
        if not child:
            _die_before(step)
            save(folder, segment(xmin=xmin))
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            say("died")


def _die_before(step: int) -> None:
    counter = itertools.count(1)

    def act() -> None:
        if next(counter) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in STEPS:
        before(owner, name, act)


def stopped_before_lock(folder: MirrorFolder, xmin: str) -> None:
    """Load, and fall asleep when the new file is written and only the lock is missing."""
    folder.load(PROJECT, DATASET, IDENTITY)
    before(lock, "exclusive", lambda: os.kill(os.getpid(), signal.SIGSTOP))
    save(folder, segment(xmin=int(xmin)))


def stopped_with_lock(folder: MirrorFolder, xmin: str) -> None:
    """Fall asleep while holding the lock."""
    before(os, "rename", lambda: os.kill(os.getpid(), signal.SIGSTOP))
    save(folder, segment(xmin=int(xmin)))


def racing(folder: MirrorFolder, times: str) -> None:
    """Publish so many times, each time what is newer than what is there; say the watermark of each."""
    done = 0
    while done < int(times):
        loaded = folder.load(PROJECT, DATASET, IDENTITY)
        assert loaded.segment is not None, loaded
        xmin = loaded.segment.watermark.xmin + 1
        try:
            folder.save(PROJECT, DATASET, segment(xmin=xmin))
        except MirrorBusyError:
            continue
        done += 1
        say(str(xmin))


def limited(folder: MirrorFolder, xmin: str, n: str, most_bytes: str) -> None:
    """Publish while no file may grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
    save(folder, segment(int(n), xmin=int(xmin)))


def nobody(folder: MirrorFolder, xmin: str) -> None:
    """Publish as a user who may not write there."""
    built = segment(xmin=int(xmin))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    save(folder, built)


def filling(folder: MirrorFolder, xmin: str) -> None:
    """Publish, then fill the disk but for a page, publish again, and say what is left."""
    save(folder, segment(xmin=int(xmin)))
    with (folder.faiss_dir / "README").open("wb", buffering=0) as file:
        while free(folder.faiss_dir) > 4096:
            file.write(bytes(4096))
    save(folder, segment(xmin=int(xmin) + 1))
    say(folder.load(PROJECT, DATASET, IDENTITY).state)
    say(" ".join(sorted(path.suffix for path in (folder.faiss_dir / str(PROJECT)).iterdir())))


def free(path: Path) -> int:
    """Return the free bytes of a disk."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


WHATS: dict[str, Callable[..., None]] = {
    what.__name__: what for what in (killed, stopped_before_lock, stopped_with_lock, racing, limited, nobody, filling)
}

if __name__ == "__main__":
    WHATS[sys.argv[1]](MirrorFolder(Path(sys.argv[2])), *sys.argv[3:])
