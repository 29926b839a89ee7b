"""Cancellation of long loops, which must not depend on a library that may lose it."""

import asyncio


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if the current task was cancelled and something on the way swallowed that.

    Until Python 3.12 `wait_for` does, when the cancellation comes together with the answer
    (https://github.com/python/cpython/issues/86296). A loop that has no other end asks in each round.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
