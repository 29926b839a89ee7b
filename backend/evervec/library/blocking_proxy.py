"""Coroutine methods as plain ones, carried out in the event loop in which their object is open."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

Asynchronous = TypeVar("Asynchronous")
P = ParamSpec("P")
T = TypeVar("T")

CarryOut = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""Opens, calls and returns the answer: `Opening.block`, or `Opening.run`, which returns what is awaited where a loop runs."""


class BlockingProxy(Generic[Asynchronous]):
    """An object whose coroutine methods are called from a program without an event loop.

    `target` is asked for it once everything is open.
    """

    def __init__(self, target: Callable[[], Asynchronous], carry_out: CarryOut) -> None:
        self._target, self._carry_out = target, carry_out


def as_blocking(
    method: Callable[Concatenate[Asynchronous, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingProxy[Asynchronous], P], T]:
    """Return a plain method that calls a coroutine method: same arguments, same answer, same errors."""

    @wraps(method)
    def call(self: BlockingProxy[Asynchronous], /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def carried_out() -> T:
            return await method(self._target(), *args, **kwargs)

        answer: T = self._carry_out(carried_out)
        return answer

    return call
