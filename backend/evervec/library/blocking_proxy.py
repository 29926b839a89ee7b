"""Coroutine methods as plain ones, which run in the event loop of another thread."""

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

Asynchronous = TypeVar("Asynchronous")
P = ParamSpec("P")
T = TypeVar("T")


class BlockingProxy(Generic[Asynchronous]):
    """An object whose coroutine methods are called from a program without an event loop."""

    def __init__(self, target: Asynchronous, portal: "BlockingPortal") -> None:
        self._target, self._portal = target, portal


def as_blocking(
    method: Callable[Concatenate[Asynchronous, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingProxy[Asynchronous], P], T]:
    """Return a plain method that calls a coroutine method: same arguments, same answer, same errors."""

    @wraps(method)
    def call(self: BlockingProxy[Asynchronous], /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = self._portal.call(partial(method, self._target, *args, **kwargs))
        return answer

    return call
