"""The writer's lock of one dataset: taken only to publish or to set aside, given back by the kernel when a writer dies."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evervec.errors import MirrorBusyError, MirrorFolderError

POLL_SECONDS = 0.005
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def held(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock on `path`, whose folder is made if need be. Blocks, so not for an event loop.

    Raises `MirrorBusyError` when somebody else still has it after `patience` seconds, `MirrorFolderError` where the
    file system has no locks, `OSError` where the file can not be made.
    """
    descriptor = _acquire(path, patience)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, patience: float) -> int:
    deadline = time.monotonic() + patience
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            raise MirrorBusyError(dataset=path.stem, reason="another process is writing it")
        time.sleep(POLL_SECONDS)
    return descriptor


def _try(path: Path) -> int | None:
    """The descriptor that holds the lock until it is closed; None when it is held elsewhere, or was on a dead file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        return None  # the folder went away in between: the next try makes it again
    got = False
    try:
        got = _locked(path, descriptor) and _is_still_there(path, descriptor)
    finally:
        if not got:
            os.close(descriptor)
    return descriptor if got else None


def _locked(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise MirrorFolderError(
                path=path.parent,
                reason="its file system has no locks",
                advice="Set EVERVEC_FAISS_DIR to a folder on a local disk; until then mirrors stay in memory.",
            ) from error
        raise
    return True


def _is_still_there(path: Path, descriptor: int) -> bool:
    """A lock on a file that was removed meanwhile keeps nobody out: whoever comes next locks a new one."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
