"""The library without an event loop of one's own: every call runs in an event loop in a thread, while the block lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evervec.library.blocking_proxy import BlockingProxy, as_blocking
from evervec.library.core import SemanticCore
from evervec.library.transaction import Transaction

if TYPE_CHECKING:
    from evervec.library.blocking_batches import SyncBatchManager
    from evervec.library.blocking_spaces import SyncSpaces


class SyncTransaction(BlockingProxy[Transaction]):
    """`Transaction` without `await`."""

    ingest = as_blocking(Transaction.ingest)
    delete = as_blocking(Transaction.delete)
    fetch = as_blocking(Transaction.fetch)
    execute = as_blocking(Transaction.execute)


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
    delete = as_blocking(SemanticCore.delete)
    search = as_blocking(SemanticCore.search)
    attach = as_blocking(SemanticCore.attach)
    detach = as_blocking(SemanticCore.detach)
    attachments = as_blocking(SemanticCore.attachments)
    backfill = as_blocking(SemanticCore.backfill)
    status = as_blocking(SemanticCore.status)
    add_provider = as_blocking(SemanticCore.add_provider)

    @contextmanager
    def transaction(self) -> "Iterator[SyncTransaction]":
        """Open a transaction, whose `fetch` and `execute` are for SQL of your own; commit it at the end of the block."""
        core = self._target
        with self._portal.wrap_async_context_manager(core.transaction()) as opened:
            yield SyncTransaction(opened, self._portal)

    @property
    def spaces(self) -> "SyncSpaces":
        """Return the spaces of datasets, without `await`."""
        from evervec.library.blocking_spaces import SyncSpaces

        return SyncSpaces(self._target.spaces, self._portal)

    @property
    def batch_manager(self) -> "SyncBatchManager":
        """Return the batch manager, without `await`."""
        from evervec.library.blocking_batches import SyncBatchManager

        return SyncBatchManager(self._target.batch_manager, self._portal)
