"""Files are watched: what changes on disk is indexed at once, and embedded by the workers."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from evervec import log
from evervec.errors import EmptySourceError, EvervecError, IndexRunningError, NoSourceError, UnknownDatasetError
from evervec.extras import extra
from evervec.pipeline import chunking
from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.indexing.run import Progress
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.resources import Resources
from evervec.sources.files.file_source import FILES_TABLE
from evervec.sources.files.file_uris import path_of, uri_of
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord

with extra("files", "Watching files"):
    from evervec.sources.files.watcher import ChangedFiles, FileWatcher

logger = log.get("watch")

WATCH_TRIGGER: Final = "watch"

TURN_SECONDS, QUIET_SECONDS, LONG_TURN_SECONDS = 0.1, 2.0, 1.0
"""Seconds between two tries while another run of the dataset is active; until the user is told; and after that."""

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.2, 5.0
"""Seconds until a failed run is tried again: doubled each time."""


class WatchListener(Protocol):
    """The listener that tells the user what a watch does."""

    def indexed(self, run: RunRecord) -> None:
        """Handle the end of a run."""
        ...

    def note(self, text: str) -> None:
        """Handle a problem, or its end; each is told once."""
        ...

    async def started(self, dataset: DatasetRef) -> None:
        """Handle the end of the first, complete run: from now on changes are indexed."""
        ...


async def watch(
    resources: Resources,
    project: str,
    dataset: str,
    files: FileSelection,
    listener: WatchListener,
    finish: asyncio.Event,
    *,
    poll: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Index the files, and then what changes, until `finish`; an active run is completed before the return.

    No text is sent to a provider. `progress` is called in the first, complete run. After that run a problem (an
    unreachable database, a root that is not mounted) is waited for, and changes are remembered meanwhile. Raises what
    `ingest_files` raises, until the first run is complete; `UnknownDatasetError` or `NoSourceError` when the dataset or
    its source is removed.
    """
    watching = FileWatcher(
        files.roots,
        include=files.include,
        exclude=files.exclude,
        most_bytes=files.most_bytes,
        poll=poll,
        note=listener.note,
    )
    target, _ = await source_registry.register_files(resources.database, project, dataset, files)
    following = asyncio.create_task(watching.run())
    try:
        await _Watch(resources, target, watching, listener, progress).run(following, finish)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class _Watch:
    """One watch: it takes paths that may have changed and indexes them; after an error they are put back."""

    def __init__(
        self,
        resources: Resources,
        target: DatasetRef,
        watching: FileWatcher,
        listener: WatchListener,
        progress: Progress | None,
    ) -> None:
        self._resources, self._target, self._watching, self._listener = resources, target, watching, listener
        self._progress, self._started = progress, False
        self._trouble = ""
        self._away: Sequence[Path] = ()
        self._failures, self._waits_since = 0, 0.0

    async def run(self, following: "asyncio.Task[None]", finish: asyncio.Event) -> None:
        """Index changes until `finish`."""
        ending = asyncio.create_task(finish.wait())
        try:
            while not finish.is_set():
                coming = asyncio.create_task(self._watching.has_changes.wait())
                await asyncio.wait({coming, ending, following}, return_when=asyncio.FIRST_COMPLETED)
                coming.cancel()
                if following.done():
                    following.result()
                if not finish.is_set():
                    await asyncio.wait({ending}, timeout=await self._index_changes())
        finally:
            ending.cancel()

    async def _index_changes(self) -> float:
        """Index what may have changed; return the seconds to wait before the next time."""
        seen = await self._watching.take()
        self._report_away(seen.away)
        try:
            await self._index(seen)
        except IndexRunningError as error:
            self._watching.put_back(seen)
            return self._wait_for_turn(error)
        except (UnknownDatasetError, NoSourceError):
            raise
        except Exception as error:
            if not self._started:
                raise
            self._watching.put_back(seen)
            return self._wait_after_error(error)
        self._end_trouble()
        return 0

    def _wait_for_turn(self, error: IndexRunningError) -> float:
        self._waits_since = self._waits_since or monotonic()
        if monotonic() - self._waits_since < QUIET_SECONDS:
            return TURN_SECONDS
        self._failures += 1
        self._say(f"{error} Changes wait for their turn.")
        return LONG_TURN_SECONDS

    def _wait_after_error(self, error: Exception) -> float:
        """Return the pause after any error: the watch goes on, or later changes would never be indexed."""
        self._failures += 1
        if self._say(f"{error} Changes are remembered until indexing works again.") and not isinstance(
            error, EvervecError | OSError
        ):
            logger.error("indexing failed", exc_info=error)
        return float(min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (self._failures - 1)))

    def _end_trouble(self) -> None:
        if self._failures:
            self._trouble = ""
            self._listener.note("Indexing works again.")
        self._failures, self._waits_since = 0, 0.0

    def _say(self, trouble: str) -> bool:
        """Tell the user, unless this was told last; return whether it was told."""
        is_new, self._trouble = trouble != self._trouble, trouble
        if is_new:
            self._listener.note(trouble)
        return is_new

    async def _index(self, seen: ChangedFiles) -> None:
        for request in await asyncio.to_thread(_requests, seen):
            try:
                run = await requests.index(self._resources, self._target.id, request, progress=self._progress)
            except EmptySourceError as error:
                if not self._started:
                    raise
                self._say(str(error))
                for uri in request.scope or ():
                    self._watching.distrust(path_of(uri))
                continue
            if run.state != "done":  # the dataset was deleted: the next try raises that
                self._watching.put_back(seen)
                continue
            self._tell(run)
        if seen.everything and not self._started:
            await asyncio.to_thread((await chunking.default(self._resources)).warm_up)
            await self._listener.started(self._target)
            self._started, self._progress = True, None

    def _tell(self, run: RunRecord) -> None:
        logger.info("indexed", run=str(run.id), mode=run.mode, seconds=round(run.seconds.total, 3))
        self._listener.indexed(run)

    def _report_away(self, away: Sequence[Path]) -> None:
        for path in away:
            if path not in self._away:
                self._listener.note(f"{path} is away. What is known of it stays; it is watched again when it is back.")
        for path in self._away:
            if path not in away:
                self._listener.note(f"{path} is back.")
        self._away = away


def _requests(seen: ChangedFiles) -> list[RunRequest]:
    """Return the runs to request. A complete comparison is one run a root.

    When one folder is suddenly empty (not mounted), its documents do not count as gone because another one has files.
    """
    scope = [uri_of(root) for root in seen.roots]
    if seen.everything:
        files = [uri for root, uri in zip(seen.roots, scope, strict=True) if root.is_file()]
        folders = [uri for uri in scope if uri not in files]
        return [
            RunRequest(full=True, trigger=WATCH_TRIGGER, scope=one, embeds=False)
            for one in (*([f] for f in folders), files)
            if one
        ]
    paths = [path for path in seen.paths if any(path.is_relative_to(root) for root in seen.roots)]
    # removed files last: until then a moved document is found by its text under its old path
    paths.sort(key=lambda path: (not os.path.lexists(path), path))
    changed = {FILES_TABLE: [uri_of(path) for path in paths]}
    return [RunRequest(changed, trigger=WATCH_TRIGGER, scope=scope, embeds=False)] if paths else []
