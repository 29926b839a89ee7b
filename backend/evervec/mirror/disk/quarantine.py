"""Files out of use: invalid ones are renamed and kept (quarantine), temporary ones of dead writers are found."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from evervec.mirror.disk.paths import MirrorFile, MirrorPaths, this_host

MOST_QUARANTINED = 2
ABANDONED_SECONDS = 3600


def move_to_quarantine(paths: MirrorPaths, reason: str) -> None:
    """Rename an invalid mirror's files, with the reason in a file beside them; the newest two sets are kept.

    Call it with the writer's lock. Raises `OSError`.
    """
    number = 1 + max(
        (file.quarantine_number for file in paths.files() if file.quarantine_number is not None), default=0
    )
    # The segment goes first: a manifest without it means that there is no mirror.
    for path, part in ((paths.bin, "bin"), (paths.manifest, "json")):
        with suppress(FileNotFoundError):
            path.rename(paths.quarantined(part, number))
    # The reason is optional: a full disk must not prevent the rename of an invalid file.
    with suppress(OSError):
        paths.quarantined("reason", number).write_text(f"{reason}\n")
    _forget_older(paths)


def _forget_older(paths: MirrorPaths) -> None:
    quarantined = [(file.quarantine_number, file.path) for file in paths.files() if file.quarantine_number is not None]
    newest = sorted({number for number, _ in quarantined})[-MOST_QUARANTINED:]
    for number, path in quarantined:
        if number not in newest:
            with suppress(OSError):  # what cannot be removed now is removed the next time
                path.unlink()


def is_abandoned(file: MirrorFile) -> bool:
    """Return whether a file is temporary and its writer is gone: by its process on this machine, by its age on any."""
    if file.pid is None:
        return False
    try:
        return (file.host == this_host() and not _runs(file.pid)) or _age(file) > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def remove_files(files: Iterable[MirrorFile]) -> list[Path]:
    """Remove files, and return those that existed. Raises `OSError`."""
    removed = []
    for file in files:
        with suppress(FileNotFoundError):
            file.path.unlink()
            removed.append(file.path)
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _age(file: MirrorFile) -> float:
    """Return the seconds since a file was written, by the clock of its file system, which other machines may share."""
    with TemporaryFile(dir=file.path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - file.path.stat().st_mtime
