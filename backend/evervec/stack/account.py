"""The operating system user that runs the servers (PostgreSQL refuses root), and the files it must own."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from evervec.errors import StackError


class ProcessUser(TypedDict, total=False):
    """The arguments that make `subprocess` switch the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """The user of the servers; without a uid it is the present user, and no ownership changes."""

    uid: int | None = None
    gid: int | None = None

    @property
    def process_user(self) -> ProcessUser:
        """Return the `subprocess` arguments for a process of this user, without any of our groups."""
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make this user the owner of `path`."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def make_folder(self, path: Path) -> None:
        """Create a folder that only this user (and root) can read."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.own(path)

    def write(self, path: Path, text: str) -> None:
        """Replace the file `path` in one step by one that only this user can read."""
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        self.own(fresh)
        fresh.replace(path)


def server_account(home: Path, data: Path) -> Account:
    """Return the user that runs the servers of `home`.

    It is the present user or, for root, the owner of the database folder `data` if there is one, else the owner of
    `home` if that is a known user, else `nobody`. Raises StackError when root has no user to run the servers as.
    """
    if os.geteuid() != 0:
        return Account()
    if (data / "PG_VERSION").exists():
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid)
    uid = home.stat().st_uid
    known = _known_user(uid) if uid != 0 else None
    return known or _nobody()


def _known_user(uid: int) -> Account | None:
    try:
        return Account(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:  # the owner is a user of another machine: initdb refuses a user without a name
        return None


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            reason="PostgreSQL refuses to run as root, and there is no user `nobody` to run it as. "
            "Run Evervec as a normal user, or set EVERVEC_DATABASE_URL."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)
