"""The file of one dataset's mirror, as one process loads and publishes it. What can not be written stays in memory."""

from contextlib import suppress

from evervec import log
from evervec.domain.feed import DatabaseIdentity
from evervec.errors import MirrorBusyError, MirrorFolderError
from evervec.mirror.disk.folder import LoadResult, MirrorFolder
from evervec.mirror.segment import Segment
from evervec.pipeline.mirrors.carry_over import CarriedOver
from evervec.pipeline.mirrors.executors import Executors
from evervec.store.datasets import DatasetRef

logger = log.get("mirror")

MOST_REREAD = 10_000
"""A file that differs in more vectors than this, unknown to the feed, keeps its old identity: the next start compares it."""


class PublishedFile:
    """The file of one mirror. `state` is how it was found last, `problem` says why the mirror is in memory only."""

    def __init__(self, folder: MirrorFolder, executors: Executors, of: DatasetRef) -> None:
        self.state = ""
        self.problem = ""
        self._folder = folder
        self._executors = executors
        self._place = of.project_id, of.id
        self._name = f"{of.project}/{of.slug}"

    async def load(self, identity: DatabaseIdentity) -> LoadResult:
        """Return what is on disk, if it can be of this database."""
        loaded = await self._executors.quick(self._folder.load, *self._place, identity)
        if loaded.reason:
            logger.info("no mirror on disk", dataset=self._name, state=loaded.state, reason=loaded.reason)
        if loaded.state == "set aside":
            logger.warning("mirror quarantined", dataset=self._name, reason=loaded.reason)
        self.state = loaded.state
        return loaded

    async def save(self, segment: Segment) -> Segment:
        """Return the segment as mapped from disk, or unchanged if it can not be written; of two builders, the first one's."""
        self.problem = ""
        try:
            return await self._executors.slow(self._folder.save, *self._place, segment)
        except MirrorBusyError as error:
            loaded = await self._executors.slow(self._folder.load, *self._place, segment.identity)
            if loaded.segment is not None and loaded.segment.identity == segment.identity and not loaded.reread:
                return loaded.segment
            self._in_memory_only(error)
        except MirrorFolderError as error:
            self._in_memory_only(error)
        return segment

    async def move_to(self, folder: MirrorFolder) -> bool:
        """Publish the file in another folder from now on, that of the spaces that are searched; return whether there was one."""
        former, self._folder = self._folder, folder
        try:
            return await self._executors.quick(folder.take_over, *self._place, former)
        except MirrorBusyError as error:  # another process does the same
            logger.info("mirror file not moved", dataset=self._name, reason=str(error))
        except MirrorFolderError as error:
            self._in_memory_only(error)
        return True

    async def relabel(self, carried: CarriedOver) -> None:
        """Publish the file as one of the history that its mirror was carried over into: the next start compares nothing."""
        if len(carried.reread) > MOST_REREAD:
            return
        reread = tuple(carried.reread.tolist())
        try:
            await self._executors.quick(self._folder.relabel, *self._place, carried.identity, carried.watermark, reread)
        except MirrorBusyError as error:  # another process has a newer one, or the folder is gone
            logger.info("mirror file left as it is", dataset=self._name, reason=str(error))
        except MirrorFolderError as error:
            self._in_memory_only(error)

    async def remove(self, reason: str) -> None:
        """Remove a file whose watermark this database never reached: it would count as newer than any rebuilt one."""
        logger.warning("mirror removed", dataset=self._name, reason=reason)
        # if that fails, the rebuilt mirror stays in memory only, and its reason says so
        with suppress(MirrorBusyError, MirrorFolderError):
            await self._executors.quick(self._folder.remove, *self._place)

    def _in_memory_only(self, error: Exception) -> None:
        logger.warning("mirror is in memory only", dataset=self._name, reason=str(error))
        self.problem = f"in memory only: {error}"
