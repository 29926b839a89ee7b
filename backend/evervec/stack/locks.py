"""Locks on files, which the kernel gives back when their last holder dies; what one protects, its user says."""

import asyncio
import fcntl
import os
import time
from pathlib import Path

POLL_SECONDS = 0.01


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock `path` at once: the descriptor that holds the lock until it is closed, or None if somebody is in the way."""
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
    """Whether somebody holds `path` exclusively."""
    descriptor = try_lock(path, shared=True)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


async def lock(path: Path, seconds: float, *, shared: bool = False) -> int:
    """Wait for the lock; the descriptor that holds it. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while (descriptor := try_lock(path, shared=shared)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        await asyncio.sleep(POLL_SECONDS)
    return descriptor
