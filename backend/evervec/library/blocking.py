"""The same without an event loop of one's own: every call is handed to one that runs in a thread while the block lasts."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from evervec.library.core import SemanticCore

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from evervec.library.blocking_batches import SyncBatchManager

Asynchronous = TypeVar("Asynchronous")
P = ParamSpec("P")
T = TypeVar("T")


class BlockingProxy(Generic[Asynchronous]):
    """An object whose coroutine methods are called from a program without an event loop."""

    def __init__(self, twin: Asynchronous, portal: "BlockingPortal") -> None:
        self._twin, self._portal = twin, portal


def as_blocking(
    method: Callable[Concatenate[Asynchronous, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingProxy[Asynchronous], P], T]:
    """A coroutine method as a plain one of its twin: same arguments, same answer, same errors."""

    @wraps(method)
    def call(self: BlockingProxy[Asynchronous], /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = self._portal.call(partial(method, self._twin, *args, **kwargs))
        return answer

    return call


class SyncSemanticCore(BlockingProxy[SemanticCore]):
    """`with SyncSemanticCore.open(url) as core`: what `SemanticCore` is, without `await`."""

    @classmethod
    @contextmanager
    def open(cls, url: str | None = None, **how: Any) -> "Iterator[SyncSemanticCore]":
        """As `SemanticCore.open`."""
        from anyio.from_thread import start_blocking_portal

        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(SemanticCore.open(url, **how)) as core,
        ):
            yield cls(core, portal)

    ingest = as_blocking(SemanticCore.ingest)
    search = as_blocking(SemanticCore.search)
    backfill = as_blocking(SemanticCore.backfill)
    status = as_blocking(SemanticCore.status)
    add_provider = as_blocking(SemanticCore.add_provider)

    @property
    def batch_manager(self) -> "SyncBatchManager":
        """The batch lane, without `await`."""
        from evervec.library.blocking_batches import SyncBatchManager

        return SyncBatchManager(self._twin.batch_manager, self._portal)
