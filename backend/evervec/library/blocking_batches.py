"""The batch manager without an event loop of one's own; in a file of its own, because it takes half a second to import."""

from evervec.library.blocking_proxy import BlockingProxy, as_blocking
from evervec.pipeline.batch.manager import BatchManager


class SyncBatchManager(BlockingProxy[BatchManager]):
    """`BatchManager` without `await`."""

    flush_queue = as_blocking(BatchManager.flush_queue)
    check_and_sync = as_blocking(BatchManager.check_and_sync)
    process_queue = as_blocking(BatchManager.process_queue)
    cancel = as_blocking(BatchManager.cancel)
    get = as_blocking(BatchManager.get)
    list = as_blocking(BatchManager.list)
