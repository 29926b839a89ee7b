"""The library without an event loop of one's own: every call runs in an event loop in a thread, while the block lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

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
    update_metadata = as_blocking(Transaction.update_metadata)
    fetch = as_blocking(Transaction.fetch)
    execute = as_blocking(Transaction.execute)


class SyncSemanticCore(BlockingProxy[SemanticCore]):
    """`SemanticCore` without `await`, open in a thread from its first use until `close`: `with SyncSemanticCore(url) as core`."""

    def __init__(self, url: str | None = None, **how: Any) -> None:
        """Name a database as `SemanticCore` does; nothing is opened yet."""
        self._core = SemanticCore(url, **how)
        super().__init__(lambda: self._core, self._core._opening.block)

    @classmethod
    @contextmanager
    def open(cls, url: str | None = None, **how: Any) -> "Iterator[Self]":
        """Open as `SemanticCore.open` does, with an event loop in a thread."""
        core = cls(url, **how)
        try:
            core.start()
            yield core
        finally:
            core.close()

    def start(self) -> None:
        """Open the database now, also after `close`. May be called twice. Raises what `open` raises."""
        self._core._opening.reopen()
        self._carry_out(self._core.start)

    def close(self) -> None:
        """Close the database, and stop what was started. May be called twice."""
        self._core._opening.close_blocking()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    ingest = as_blocking(SemanticCore.ingest)
    delete = as_blocking(SemanticCore.delete)
    get = as_blocking(SemanticCore.get)
    get_many = as_blocking(SemanticCore.get_many)
    update_metadata = as_blocking(SemanticCore.update_metadata)
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
        portal = self._core._opening.portal()
        with portal.wrap_async_context_manager(self._core.transaction()) as opened:
            yield SyncTransaction(lambda: opened, self._carry_out)

    @property
    def spaces(self) -> "SyncSpaces":
        """Return the spaces of datasets, without `await`."""
        from evervec.library.blocking_spaces import SyncSpaces
        from evervec.library.spaces import Spaces

        return SyncSpaces(lambda: Spaces(self._core._resources), self._carry_out)

    @property
    def batch_manager(self) -> "SyncBatchManager":
        """Return the batch manager, without `await`."""
        from evervec.library.blocking_batches import SyncBatchManager
        from evervec.pipeline.batch.manager import BatchManager

        return SyncBatchManager(lambda: BatchManager(self._core._resources), self._carry_out)

    list = as_blocking(SemanticCore.list)
