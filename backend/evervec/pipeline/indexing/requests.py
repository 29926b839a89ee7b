"""Indexing a dataset from its source: asked for, queued, worked off one run at a time, taken up again after a crash."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec import log
from evervec.domain.document import ChangedIds
from evervec.errors import EvervecError, IndexRunningError, Refused, UnknownDatasetError
from evervec.pipeline import chunking
from evervec.pipeline.batch import router
from evervec.pipeline.chunking import DatasetGone
from evervec.pipeline.indexing import source_registry
from evervec.pipeline.indexing.run import Indexing, Progress, RunOptions
from evervec.pipeline.resources import Resources
from evervec.queue.names import INDEX_WAITING, Lane
from evervec.store import datasets, runs, sources
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord
from evervec.store.session import Database, Tx

logger = log.get("index")

NO_OPTIONS = RunOptions()

ATTEMPTS = 8
RETRIES, RETRY_SECONDS = 10, 0.1

BACKOFF = 5.0
"""Seconds until a run whose source was away is tried again; twice as long each time, until it has failed so often."""


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked for: the `changed` ids alone, or everything compared; `full` removes what is gone as well.

    `scope` are the uris of the folders and files that a file source is kept to, `embeds` says whether the run embeds
    what it writes or leaves that to the workers; `deferred` leaves it to batch jobs, if the provider has such.
    """

    changed: ChangedIds | None = None
    full: bool = False
    trigger: str = "call"
    scope: Sequence[str] | None = None
    embeds: bool = True
    deferred: bool = False

    @property
    def mode(self) -> str:
        """delta, compare or full."""
        return "delta" if self.changed is not None else "full" if self.full else "compare"


async def index_dataset(
    resources: Resources, dataset_id: UUID, changed_ids: ChangedIds | None = None, full_rebuild: bool = False
) -> RunRecord:
    """Index a dataset here and now: see `index`."""
    return await index(resources, dataset_id, RunRequest(changed_ids, full_rebuild))


async def index(
    resources: Resources,
    dataset_id: UUID,
    request: RunRequest,
    options: RunOptions = NO_OPTIONS,
    progress: Progress | None = None,
) -> RunRecord:
    """Index a dataset here and now; answers the finished run. What an earlier run left unfinished is done first.

    Raises `IndexRunningError` with the id of the run that is at work, `UnknownDatasetError`, `UnknownTableError`,
    `NoSourceError`, `EmptySourceError`, and what its source raises. Nothing is half done: the run goes on from where it
    came to when it is taken up again.
    """
    await _check(resources, dataset_id, request, options)
    async with resources.database.read() as tx:
        busy = await runs.is_indexing(tx, dataset_id)
    if busy:  # said at once, and not when it is this process's turn
        raise await _busy(resources.database, dataset_id)
    async with resources.indexing, resources.database.advisory_lock(_lock(dataset_id), wait=False) as held:
        if not held:
            raise await _busy(resources.database, dataset_id)
        await _work_off(resources, dataset_id)
        async with resources.database.transaction() as tx:
            await runs.add(
                tx,
                dataset_id,
                request.mode,
                request.trigger,
                request.changed,
                request.scope,
                request.embeds,
                "running",
                deferred=request.deferred,
            )
            run = await runs.start_next(tx, dataset_id)
        if run is not None:
            await _perform(resources, run, options, progress)
            return run
    raise await _busy(resources.database, dataset_id)


async def dataset(database: Database, name: str) -> DatasetRef:
    """One live dataset by uuid, slug or `project/slug`. Raises `UnknownDatasetError`, or `Refused` for several."""
    async with database.read() as tx:
        found = await datasets.find(tx, name)
    if len(found) > 1:
        known = ", ".join(f"{one.project}/{one.slug}" for one in found)
        raise Refused(reason=f"There are several datasets {name!r}: {known}. Say which one.")
    return found[0]


async def start(resources: Resources, dataset_id: UUID, request: RunRequest) -> UUID:
    """Ask for a run and ring for it; answers its id. Raises `IndexRunningError` while one is at work or waits."""
    await _check(resources, dataset_id, request)
    async with resources.database.transaction() as tx:
        await runs.lock_queue(tx, dataset_id)
        busy = await runs.active(tx, dataset_id)
        if busy is not None:
            raise IndexRunningError(dataset=dataset_id, run_id=busy.id)
        run_id = await _enqueue(tx, dataset_id, request)
    await ring(resources, [dataset_id])
    return run_id


async def enqueue(resources: Resources, dataset_id: UUID, request: RunRequest) -> UUID:
    """The same for who can wait: ids are added to the run that waits already. Answers the id of the run that does it."""
    await _check(resources, dataset_id, request)
    async with resources.database.transaction() as tx:
        run_id = await _enqueue(tx, dataset_id, request)
    await ring(resources, [dataset_id])
    return run_id


async def _check(resources: Resources, dataset_id: UUID, request: RunRequest, options: RunOptions = NO_OPTIONS) -> None:
    await source_registry.check(
        resources, dataset_id, request.changed, request.scope, lets_go=options.lets_go(request.mode)
    )
    if request.deferred:
        await router.require_batch_api(resources)


async def _enqueue(tx: Tx, dataset_id: UUID, request: RunRequest) -> UUID:
    return await runs.enqueue(
        tx, dataset_id, request.mode, request.trigger, request.changed, request.embeds, deferred=request.deferred
    )


async def index_all_datasets(resources: Resources, full_rebuild: bool = False, trigger: str = "schedule") -> list[UUID]:
    """Ask for a run of every dataset that has a source, and ring for each: one task a dataset. Answers the runs' ids."""
    async with resources.database.transaction() as tx:
        filled = await sources.assigned_datasets(tx)
        asked = [await runs.enqueue(tx, one, RunRequest(full=full_rebuild).mode, trigger, None, True) for one in filled]
    await ring(resources, filled)
    return asked


async def ring(resources: Resources, dataset_ids: Sequence[UUID]) -> None:
    """Tell the workers that runs wait. Without NATS the sweepers find them."""
    for dataset_id in dataset_ids:
        await resources.doorbell.ring(INDEX_WAITING, lane=Lane.BACKFILL, dataset_id=str(dataset_id))


async def run_due(resources: Resources, dataset_id: UUID) -> list[RunRecord]:
    """Work off the runs of a dataset that are due, one that died first; nothing when another process is at it."""
    async with resources.indexing, resources.database.advisory_lock(_lock(dataset_id), wait=False) as held:
        return await _work_off(resources, dataset_id) if held else []


async def _work_off(resources: Resources, dataset_id: UUID) -> list[RunRecord]:
    done: list[RunRecord] = []
    while True:
        async with resources.database.transaction() as tx:
            run = await runs.start_next(tx, dataset_id)
        if run is None:
            return done
        try:
            await _perform(resources, run)
        except EvervecError as error:
            logger.warning("index run failed", run=str(run.id), dataset=str(dataset_id), error=str(error))
        done.append(run)


async def _perform(
    resources: Resources, run: RunRecord, options: RunOptions = NO_OPTIONS, progress: Progress | None = None
) -> None:
    """See a run through. Cancelled or killed it stays `running` with a lock that nobody holds: whoever looks next goes on."""
    try:
        lets_go = options.lets_go(run.mode)
        source = await source_registry.open_source(
            resources, run.dataset_id, run.scope, checksum=options.checksum, lets_go=lets_go
        )
        try:
            chunker = await chunking.active(resources)
            await Indexing(resources, run, source, chunker, options, progress).perform()
            if lets_go:
                await source_registry.forget_missing_roots(resources.database, run.dataset_id, source)
        finally:
            await source.aclose()
    except (DatasetGone, UnknownDatasetError):
        await _end(resources.database, run, "cancelled")
    except Exception as error:
        await _failed(resources.database, run, error)
        raise
    else:
        await _end(resources.database, run, "done")


async def _failed(database: Database, run: RunRecord, error: Exception) -> None:
    """What the caller did wrong has failed; what is only away is tried again."""
    later = isinstance(error, EvervecError) and not isinstance(error, Refused) and run.attempts < ATTEMPTS
    said = str(error) or type(error).__name__
    if not later:
        await _end(database, run, "failed", said)
        return
    async with database.transaction() as tx:
        await runs.postpone(tx, run, seconds=BACKOFF * 2 ** (run.attempts - 1), error=said)


async def _end(database: Database, run: RunRecord, state: str, error: str | None = None) -> None:
    run.state, run.error = state, error
    async with database.transaction() as tx:
        await runs.finish(tx, run)


async def _busy(database: Database, dataset_id: UUID) -> IndexRunningError:
    """Who has the lock of a dataset is just about to say which run is at work, or has just ended it."""
    busy: RunRecord | None = None
    for _ in range(RETRIES):
        async with database.read() as tx:
            busy = await runs.active(tx, dataset_id)
        if busy is not None:
            break
        await asyncio.sleep(RETRY_SECONDS)
    return IndexRunningError(dataset=dataset_id, run_id="(over by now: try again)" if busy is None else busy.id)


def _lock(dataset_id: UUID) -> str:
    return f"index:{dataset_id}"
