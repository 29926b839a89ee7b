"""The spaces of datasets without an event loop of one's own."""

from evervec.library.blocking_proxy import BlockingProxy, as_blocking
from evervec.library.spaces import Spaces


class SyncSpaces(BlockingProxy[Spaces]):
    """`Spaces` without `await`."""

    status = as_blocking(Spaces.status)
    plan = as_blocking(Spaces.plan)
    build = as_blocking(Spaces.build)
    activate = as_blocking(Spaces.activate)
    rollback = as_blocking(Spaces.rollback)
    drop = as_blocking(Spaces.drop)
    list = as_blocking(Spaces.list)
