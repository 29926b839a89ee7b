"""The library without an event loop of one's own: every call runs in an event loop in a thread, while the block lasts."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from evervec.library.core import SemanticCore
from evervec.pipeline.batch.manager import BatchManager

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


class SyncBatchManager(BlockingProxy[BatchManager]):
    """`BatchManager` without `await`."""

    flush_queue = as_blocking(BatchManager.flush_queue)
    check_and_sync = as_blocking(BatchManager.check_and_sync)
    process_queue = as_blocking(BatchManager.process_queue)
    cancel = as_blocking(BatchManager.cancel)
    get = as_blocking(BatchManager.get)
    list = as_blocking(BatchManager.list)


class SyncSemanticCore(BlockingProxy[SemanticCore]):
    """`SemanticCore` without `await`: `with SyncSemanticCore.open(url) as core`."""

    @classmethod
    @contextmanager
    def open(cls, url: str | None = None, **how: Any) -> "Iterator[SyncSemanticCore]":
        """Open as `SemanticCore.open` does, with an event loop in a thread."""
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
    def batch_manager(self) -> SyncBatchManager:
        """Return the batch manager, without `await`."""
        return SyncBatchManager(self._target.batch_manager, self._portal)
