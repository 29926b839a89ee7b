"""Files that nobody uses: those that can not be used are kept under another name, those of dead writers are found."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from evervec.mirror.disk.paths import Known, Place, this_host

MOST_ASIDES = 2
ABANDONED_SECONDS = 3600


def set_aside(place: Place, reason: str) -> None:
    """Rename what is there of a mirror out of the way, with the reason beside it; the newest two sets of files are kept.

    The writer's lock is held. Raises `OSError`.
    """
    turn = 1 + max((known.turn for known in place.files() if known.turn is not None), default=0)
    # The segment goes first: a manifest that is left alone says that there is no mirror, and nothing else.
    for path, what in ((place.bin, "bin"), (place.manifest, "json")):
        with suppress(FileNotFoundError):
            path.rename(place.aside(what, turn))
    # The reason is a courtesy: a disk that is full must not keep a bad file in the way.
    with suppress(OSError):
        place.aside("reason", turn).write_text(f"{reason}\n")
    _forget_older(place)


def _forget_older(place: Place) -> None:
    asides = [(known.turn, known.path) for known in place.files() if known.turn is not None]
    newest = sorted({turn for turn, _ in asides})[-MOST_ASIDES:]
    for turn, path in asides:
        if turn not in newest:
            with suppress(OSError):  # one that can not go now goes the next time
                path.unlink()


def is_left_over(known: Known) -> bool:
    """Whether a file is temporary and its writer is gone: by its process on this machine, by its age on any."""
    if known.pid is None:
        return False
    try:
        return (known.host == this_host() and not _runs(known.pid)) or _age(known) > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def unlinked(files: Iterable[Known]) -> list[Path]:
    """Remove files, and answer which of them were there. Raises `OSError`."""
    removed = []
    for known in files:
        with suppress(FileNotFoundError):
            known.path.unlink()
            removed.append(known.path)
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _age(known: Known) -> float:
    """Seconds since it was written to, by the clock of its file system, which other machines may share with us."""
    with TemporaryFile(dir=known.path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - known.path.stat().st_mtime
