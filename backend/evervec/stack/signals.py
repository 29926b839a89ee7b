"""Turns SIGTERM and SIGHUP into a cancellation, as Ctrl-C is, so that the servers are stopped properly."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def cancel_on_end_signals() -> Iterator[None]:
    """Cancel the block's task on a signal that would end this process at once.

    The process then ends with the exit code that shells use, 128 + the signal's number. A handler that the process has
    set itself is left alone.
    """
    ours = [number for number in SIGNALS if _is_default(number)]
    if not ours:
        yield
        return
    ending = _Ending(asyncio.current_task())
    loop = asyncio.get_running_loop()
    for number in ours:
        loop.add_signal_handler(number, ending.received, number)
    try:
        yield
    except asyncio.CancelledError:
        if ending.signal is None:
            raise
        raise SystemExit(128 + ending.signal) from None
    finally:
        for number in ours:
            loop.remove_signal_handler(number)


class _Ending:
    def __init__(self, task: asyncio.Task[object] | None) -> None:
        self._task = task
        self.signal: signal.Signals | None = None

    def received(self, number: signal.Signals) -> None:
        if self._task is not None and not self._task.done():
            self.signal = number
            self._task.cancel()
            return
        # There is no task to cancel: the process ends as it would have without us.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _is_default(number: signal.Signals) -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(number) is signal.SIG_DFL
