"""The batch manager without an event loop; in a file of its own, since it brings a second of imports."""

from evervec.library.blocking import Twin, blocking
from evervec.pipeline.batch.manager import BatchManager


class SyncBatchManager(Twin[BatchManager]):
    """What `BatchManager` is, without `await`."""

    flush_queue = blocking(BatchManager.flush_queue)
    check_and_sync = blocking(BatchManager.check_and_sync)
    process_queue = blocking(BatchManager.process_queue)
    cancel = blocking(BatchManager.cancel)
    get = blocking(BatchManager.get)
    list = blocking(BatchManager.list)
