"""Locks on files, which the kernel releases when their last holder dies; each user says what its lock protects."""

import asyncio
import fcntl
import os
import time
from pathlib import Path

POLL_SECONDS = 0.01


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock `path` at once: return the descriptor that holds the lock until it is closed, or None if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether another process holds `path` exclusively."""
    descriptor = try_lock(path, shared=True)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


async def lock(path: Path, seconds: float, *, shared: bool = False) -> int:
    """Wait for the lock; return the descriptor that holds it. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while (descriptor := try_lock(path, shared=shared)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        await asyncio.sleep(POLL_SECONDS)
    return descriptor
