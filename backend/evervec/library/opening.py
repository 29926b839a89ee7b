"""A core opens itself when it is first used: in the event loop that uses it, or in one of a thread where none runs."""

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

from evervec.errors import Refused

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

Opened = TypeVar("Opened")
P = ParamSpec("P")
T = TypeVar("T")


class Opening(Generic[Opened]):
    """What is opened at its first use, or by `start`, and closed by `close`.

    It belongs to one event loop: calls from others, and from threads without one, are carried out there.
    """

    def __init__(self, resource: Callable[[], AbstractAsyncContextManager[Opened]]) -> None:
        self._resource = resource
        self._choosing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._portal: BlockingPortal | None = None
        self._turn = asyncio.Lock()
        self._closing: AsyncExitStack | None = None
        self._opened: Opened | None = None
        self._closed = False

    @property
    def opened(self) -> Opened:
        """Return what is open. Raises `Refused` before the first use."""
        if self._opened is None:
            self._require_not_closed()
            raise Refused(reason="This core is not open yet. Open it first: `start()`, or a `with` block.")
        return self._opened

    def start(self) -> Any:
        """Open, also what was closed; return as `run` does. May be called twice."""
        self.reopen()
        return self.run(_done)

    def reopen(self) -> None:
        """Let it be used again after `close`."""
        self._closed = False

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> Any:
        """Open, and call: return the answer where no event loop runs, else what the caller awaits."""
        self._require_not_closed()
        return self._carried_out(partial(self._after_start, call))

    async def here(self) -> Opened:
        """Open, and return what is open in this event loop. Raises `Refused` where it is open in another one."""
        await self.run(_done)
        if self._loop is not _running_loop():
            raise Refused(reason="This core is open in another event loop, and a transaction is of one. Open one here.")
        return self.opened

    def block(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Open, in a thread unless it is open already; call, and return the answer, also where an event loop runs.

        Raises `Refused` in the very event loop in which it is open, since that one would wait for itself.
        """
        self._require_not_closed()
        with self._choosing:
            if self._loop is None:
                self._start_thread()
        loop = self._owner()
        if loop is _running_loop():
            raise Refused(reason="This core is open in this event loop, which can not wait for itself: await it.")
        return _result(asyncio.run_coroutine_threadsafe(self._after_start(call), loop))

    def portal(self) -> "BlockingPortal":
        """Return the way into the event loop of a thread of ours. Raises `Refused` where the loop is somebody else's."""
        with self._choosing:
            if self._loop is None:
                self._start_thread()
            if self._portal is None:
                raise Refused(reason="This core was opened in an event loop: await its methods there.")
            return self._portal

    def close(self) -> Any:
        """Close what is open, and end the thread if there is one; return as `run` does. May be called twice."""
        self._closed = True
        if self._loop is not None:
            return self._carried_out(self._close)
        return _done() if _running_loop() is not None else None

    def close_blocking(self) -> None:
        """Close what `block` opened; may be called twice."""
        self._closed = True
        if self._portal is not None:
            _result(asyncio.run_coroutine_threadsafe(self._close(), self._owner()))

    def _require_not_closed(self) -> None:
        if self._closed:
            raise Refused(reason="This core is closed. Open it again with `start()`, or make another one.")

    def _carried_out(self, call: Callable[[], Coroutine[Any, Any, T]]) -> Any:
        here = _running_loop()
        with self._choosing:
            if self._loop is None and here is None:
                self._start_thread()
            elif self._loop is None:
                self._loop = here
        loop = self._owner()
        if loop is here:
            return call()
        future = asyncio.run_coroutine_threadsafe(call(), loop)
        return asyncio.wrap_future(future) if here is not None else _result(future)

    def _owner(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None  # chosen at the first use
        if self._loop.is_closed():
            raise Refused(
                reason="This core was opened in an event loop that has ended. Close it there (`await core.close()`), or "
                "make one for each event loop."
            )
        return self._loop

    async def _after_start(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await self._start()
        return await call()

    async def _start(self) -> None:
        async with self._turn:
            if self._closing is None:
                closing = AsyncExitStack()
                self._opened = await closing.enter_async_context(self._resource())
                self._closing = closing

    async def _close(self) -> None:
        async with self._turn:
            closing, self._closing, self._opened = self._closing, None, None
            try:
                if closing is not None:
                    await closing.aclose()
            finally:
                portal, self._portal, self._loop, self._turn = self._portal, None, None, asyncio.Lock()
                if portal is not None:
                    atexit.unregister(self._at_exit)
                    await portal.stop()

    def _start_thread(self) -> None:
        """Start an event loop in a thread that keeps no program from ending."""
        started: Future[tuple[asyncio.AbstractEventLoop, BlockingPortal]] = Future()
        threading.Thread(target=asyncio.run, args=(_until_stopped(started),), name="evervec", daemon=True).start()
        self._loop, self._portal = started.result()
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        """Close at the end of a program that did not."""
        # the interpreter takes no new threads any more; the servers see connections end in any case
        with suppress(RuntimeError):
            self.close_blocking()


async def _until_stopped(started: "Future[tuple[asyncio.AbstractEventLoop, BlockingPortal]]") -> None:
    from anyio.from_thread import BlockingPortal

    async with BlockingPortal() as portal:
        started.set_result((asyncio.get_running_loop(), portal))
        await portal.sleep_until_stopped()


async def _done() -> None:
    """Return at once."""


def _result(future: Future[T]) -> T:
    """Wait for an answer; whoever is interrupted meanwhile needs none."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Openable(Protocol):
    """An object that has an `Opening`."""

    _opening: Opening[Any]


Self_ = TypeVar("Self_", bound=Openable)


def opens(
    method: Callable[Concatenate[Self_, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Self_, P], Coroutine[Any, Any, T]]:
    """Return a coroutine method that opens its object first, and that blocks where no event loop runs."""

    @wraps(method)
    def call(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        answer = self._opening.run(partial(method, self, *args, **kwargs))
        return cast("Coroutine[Any, Any, T]", answer)

    return call
