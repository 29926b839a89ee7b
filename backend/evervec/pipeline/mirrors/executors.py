"""Threads that open, change and build mirrors, so that the event loop never waits for FAISS."""

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_native_id
from typing import ParamSpec, TypeVar

from evervec.mirror import faiss_library

BUILD_NICENESS = 10

P = ParamSpec("P")
T = TypeVar("T")


class Executors:
    """Two threads: one for quick work (open, apply, compare), so that it never waits for a build, which has the other."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(1, "evervec-mirror", faiss_library.use_threads, (1,))
        self._slow = ThreadPoolExecutor(1, "evervec-build", _lower_priority)
        self.closed = False

    async def quick(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that takes milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, lambda: work(*args, **kwargs))

    async def slow(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that takes seconds, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Stop both threads; a running build ends at its next slice."""
        self.closed = True
        for pool in (self._quick, self._slow):
            pool.shutdown(wait=True, cancel_futures=True)


def _lower_priority() -> None:
    """Give searches precedence over a build. Only Linux has priorities of single threads."""
    faiss_library.use_threads(1)
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), BUILD_NICENESS)
