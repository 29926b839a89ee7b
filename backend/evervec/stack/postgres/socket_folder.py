"""A path to PostgreSQL's socket folder that every client can use: short, and of plain characters."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from evervec.errors import HomeNotWritableError

# A socket's whole path has at most 107 bytes on Linux and 103 elsewhere; the file itself is called .s.PGSQL.5432.
LONGEST_FOLDER = 80
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")


def plain_name(folder: Path) -> Path:
    """Return `folder` itself when clients can name it in a URL, else a symbolic link to it in the runtime folder.

    Raises HomeNotWritableError when such a link can not be made.
    """
    if len(str(folder)) <= LONGEST_FOLDER and _PLAIN.fullmatch(str(folder)):
        return folder
    link = f"evervec-{os.geteuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    for runtime in _runtime_folders():
        if _linked(runtime / link, folder):
            return runtime / link
    raise HomeNotWritableError(
        home=folder.parent,
        reason="its path is too long for a socket's name, and no short link to it can be made in /tmp",
    )


def forget(folder: Path) -> None:
    """Remove the link of `folder`, if there is one."""
    name = plain_name(folder)
    if name != folder:
        name.unlink(missing_ok=True)


def _runtime_folders() -> list[Path]:
    # The same for every process of this user, whatever its environment.
    candidates = [Path("/run") if os.geteuid() == 0 else Path("/tmp"), Path("/tmp"), Path(tempfile.gettempdir())]
    return [place for place in candidates if os.access(place, os.W_OK | os.X_OK) and len(str(place)) < 60]


def _linked(link: Path, folder: Path) -> bool:
    try:
        if link.is_symlink() and link.lstat().st_uid == os.geteuid() and link.readlink() == folder:
            return True
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    except OSError:  # another user's file of that name in a folder that all may write
        return False
    return True
