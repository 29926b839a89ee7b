"""The two files of a user that complete an address: services (pg_service.conf) and passwords (.pgpass)."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from evervec import log
from evervec.store.address.parsing import check, refuse

SYSTEM_FOLDER: Final = "/etc/postgresql-common"
"""Where Debian's libpq looks for pg_service.conf if PGSYSCONFDIR is not set."""

logger = log.get("store")


def home() -> Path | None:
    """Return the user's home folder, or None for a user without one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def service(name: str, file: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a service. Raises `DatabaseAddressError` if no file defines it."""
    folder = home()
    own = Path(file) if file else folder and folder / ".pg_service.conf"
    system = Path(environment.get("PGSYSCONFDIR") or SYSTEM_FOLDER) / "pg_service.conf"
    places = [place for place in (own, system) if place is not None]
    for place in places:
        try:
            lines = place.read_text("utf-8").splitlines()
        except FileNotFoundError:
            if file and place == own:
                refuse(f"its service file {file!r} does not exist")
            continue
        except (OSError, UnicodeDecodeError) as error:
            refuse(f"its service file {str(place)!r} can not be read ({type(error).__name__})")
        found = _section(lines, name, place)
        if found is not None:
            check(found, source=f"in {place}, [{name}]: ")
            return found
    return refuse(f"its service {name!r} is in none of {', '.join(map(str, places))}")


def _section(lines: list[str], name: str, place: Path) -> dict[str, str] | None:
    """Return one section; a value is all that follows the `=`, without quotes."""
    found: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                return found
            found = {} if line == f"[{name}]" else None
        elif found is not None:
            key, sign, value = line.partition("=")
            if not sign or key.strip() in ("service", "servicefile"):
                refuse(f"line {number} of {place} is not name=value, or names another service")
            if value.strip():
                found.setdefault(key.strip(), value.strip())
    return found


def password(file: str | None, host: str, port: int, database: str, user: str) -> str | None:
    """Return the password that a password file has for this server, or None; a file that others may read is not used."""
    folder = home()
    place = Path(file) if file else folder and folder / ".pgpass"
    if place is None:
        return None
    try:
        mode = place.stat().st_mode
        if not stat.S_ISREG(mode):
            return None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("password file not used", path=str(place), reason="others may read it: chmod 600")
            return None
        lines = place.read_text("utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:  # libpq does without, too: the server says whether it wants one
        logger.debug("password file not read", path=str(place), reason=type(error).__name__)
        return None
    for line in lines:
        fields = re.findall(r"((?:[^:\\]|\\.)*)(?::|$)", line) if not line.startswith("#") else []
        if len(fields) > 4 and all(map(_matches, fields, (host, str(port), database, user))):
            return _plain(fields[4])
    return None


def _matches(field: str, value: str) -> bool:
    return field == "*" or _plain(field) == value


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)


def exists(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is there; False also if a folder before it may not be read."""
    try:
        return Path(path).is_file()
    except OSError:
        return False
