"""The writer's lock of one dataset: held only to publish or to quarantine, released when a writer dies."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evervec.errors import MirrorBusyError, MirrorFolderError

LOCK_POLL_SECONDS = 0.005
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def exclusive(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the lock on `path`, whose folder is created if needed. It blocks: do not call it in an event loop.

    Raises `MirrorBusyError` when another process still has it after `wait_seconds`, `MirrorFolderError` where the file
    system has no locks, `OSError` where the file can not be created.
    """
    descriptor = _acquire(path, wait_seconds)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, wait_seconds: float) -> int:
    deadline = time.monotonic() + wait_seconds
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            raise MirrorBusyError(dataset=path.stem, reason="another process is writing it")
        time.sleep(LOCK_POLL_SECONDS)
    return descriptor


def _try(path: Path) -> int | None:
    """Return the descriptor that holds the lock until it is closed; None if it is taken, or its file was removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        return None  # the folder was removed meanwhile: the next try creates it again
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
    """Return whether `path` is still the locked file: a lock on a removed file keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
