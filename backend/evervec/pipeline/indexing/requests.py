"""Index runs of a dataset are requested, queued, run one at a time, and continued after a crash."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

from evervec import log
from evervec.domain.documents.document import ChangedIds
from evervec.domain.sources import SourceType
from evervec.domain.spending import LedgerKey, Reason, Spent, cost
from evervec.domain.vendors import require_batch
from evervec.errors import (
    EvervecError,
    IndexRunningError,
    LeaseLostError,
    MissingExtraError,
    Refused,
    UnknownDatasetError,
)
from evervec.pipeline import chunking
from evervec.pipeline.budget import prices
from evervec.pipeline.chunking import DatasetGone
from evervec.pipeline.indexing import source_registry
from evervec.pipeline.indexing.run import Indexing, Progress, RunOptions
from evervec.pipeline.leases import HeldLease, held
from evervec.pipeline.resources import Resources
from evervec.queue.names import INDEX_WAITING, Lane
from evervec.store import datasets, providers, runs, sources
from evervec.store.attached import changes
from evervec.store.budget import ledger
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord

logger = log.get("index")

NO_OPTIONS = RunOptions()

ATTEMPTS = 8
RETRIES, RETRY_SECONDS = 10, 0.1

BACKOFF = 5.0
"""Seconds until a run whose source was unreachable is tried again; doubled each time, up to `ATTEMPTS` times."""


@dataclass(frozen=True)
class RunRequest:
    """The request for a run: of the `changed` ids alone, or of everything; `full` also removes what is gone.

    `scope` limits a file source to folders and files, by their uris. `embeds` tells whether the run embeds what it writes
    or leaves that to the workers; `deferred` leaves it to batch jobs, if the provider has a batch API.
    """

    changed: ChangedIds | None = None
    full: bool = False
    trigger: str = "call"
    scope: Sequence[str] | None = None
    embeds: bool = True
    deferred: bool = False

    @property
    def mode(self) -> str:
        """Return `delta`, `compare` or `full`."""
        return "delta" if self.changed is not None else "full" if self.full else "compare"


async def index_dataset(
    resources: Resources, dataset_id: UUID, changed_ids: ChangedIds | None = None, full_rebuild: bool = False
) -> RunRecord:
    """Index a dataset in this process, as `index` does."""
    return await index(resources, dataset_id, RunRequest(changed_ids, full_rebuild))


async def index(
    resources: Resources,
    dataset_id: UUID,
    request: RunRequest,
    options: RunOptions = NO_OPTIONS,
    progress: Progress | None = None,
) -> RunRecord:
    """Index a dataset in this process and return the finished run. An unfinished earlier run is completed first.

    Raises `IndexRunningError` with the id of the active run, `LeaseLostError`, `UnknownDatasetError`, `UnknownTableError`,
    `NoSourceError`, `EmptySourceError`, and what its source raises. After an error the run continues from its cursor when
    it is tried again.
    """
    await _check(resources, dataset_id, request, options)
    async with resources.database.read() as tx:
        busy = await runs.is_indexing(tx, dataset_id)
    if busy:  # raised now, without waiting for a slot of this process
        raise await _busy(resources.database, dataset_id)
    async with resources.indexing, _leased(resources, dataset_id) as lease:
        if lease is None:
            raise await _busy(resources.database, dataset_id)
        await _run_queue(resources, lease.database, dataset_id)
        async with lease.database.transaction() as tx:
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
            await _perform(resources, lease.database, run, options, progress)
            return run
    raise await _busy(resources.database, dataset_id)


async def dataset(database: Database, name: str) -> DatasetRef:
    """Find one live dataset by uuid, slug or `project/slug`. Raises `UnknownDatasetError`, or `Refused` for several."""
    async with database.read() as tx:
        found = await datasets.find(tx, name)
    if len(found) > 1:
        known = ", ".join(f"{one.project}/{one.slug}" for one in found)
        raise Refused(reason=f"There are several datasets {name!r}: {known}. Say which one.")
    return found[0]


async def start(resources: Resources, dataset_id: UUID, request: RunRequest) -> UUID:
    """Request a run, ring for it and return its id. Raises `IndexRunningError` while one runs or waits."""
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
    """Request a run, or add the ids to the run that waits already, and ring for it; return the id of that run."""
    await _check(resources, dataset_id, request)
    async with resources.database.transaction() as tx:
        run_id = await _enqueue(tx, dataset_id, request)
    await ring(resources, [dataset_id])
    return run_id


async def _check(resources: Resources, dataset_id: UUID, request: RunRequest, options: RunOptions = NO_OPTIONS) -> None:
    await source_registry.check(
        resources, dataset_id, request.changed, request.scope, forget_missing=options.forgets_missing(request.mode)
    )
    if request.deferred:
        provider = (await chunking.by_id(resources, dataset_id)).provider
        require_batch(provider.name, provider.type)


async def _enqueue(tx: Tx, dataset_id: UUID, request: RunRequest) -> UUID:
    return await runs.enqueue(
        tx, dataset_id, request.mode, request.trigger, request.changed, request.embeds, deferred=request.deferred
    )


async def index_all_datasets(resources: Resources, full_rebuild: bool = False, trigger: str = "schedule") -> list[UUID]:
    """Request a run of every dataset that has a source, and ring for each: one task a dataset. Return the runs' ids.

    An attached table has no runs: with `full_rebuild` whoever follows it compares all its rows.
    """
    async with resources.database.transaction() as tx:
        if full_rebuild:
            for source in await sources.of_type(tx, SourceType.ATTACHED):
                await changes.ask_comparison(tx, source.id)
        dataset_ids = await sources.assigned_datasets(tx)
        asked = [
            await runs.enqueue(tx, one, RunRequest(full=full_rebuild).mode, trigger, None, True) for one in dataset_ids
        ]
    await ring(resources, dataset_ids)
    return asked


async def ring(resources: Resources, dataset_ids: Sequence[UUID]) -> None:
    """Ring for runs that wait. If nobody hears it, the sweep finds them."""
    for dataset_id in dataset_ids:
        await resources.doorbell.ring(INDEX_WAITING, of=dataset_id, lane=Lane.BACKFILL, dataset_id=str(dataset_id))


async def run_due(resources: Resources, dataset_id: UUID) -> list[RunRecord]:
    """Run the due runs of a dataset, first one whose process died; return none when another process runs them."""
    try:
        async with resources.indexing, _leased(resources, dataset_id) as lease:
            return [] if lease is None else await _run_queue(resources, lease.database, dataset_id)
    except LeaseLostError as error:
        logger.warning("index runs left to another process", dataset=str(dataset_id), error=str(error))
        return []


def _leased(resources: Resources, dataset_id: UUID) -> AbstractAsyncContextManager[HeldLease | None]:
    return held(resources.database, runs.lease_name(dataset_id), resources.settings.lease_seconds)


async def _run_queue(resources: Resources, database: Database, dataset_id: UUID) -> list[RunRecord]:
    done: list[RunRecord] = []
    while True:
        async with database.transaction() as tx:
            run = await runs.start_next(tx, dataset_id)
        if run is None:
            return done
        try:
            await _perform(resources, database, run)
        except LeaseLostError:
            raise
        except EvervecError as error:
            logger.warning("index run failed", run=str(run.id), dataset=str(dataset_id), error=str(error))
        done.append(run)


async def _perform(
    resources: Resources,
    database: Database,
    run: RunRecord,
    options: RunOptions = NO_OPTIONS,
    progress: Progress | None = None,
) -> None:
    """Perform a run to its end. When it is killed, it stays `running`, and after its lease the next worker continues it.

    Everything of the run is written through `database`, that of the lease: a process that has lost it changes nothing.
    """
    try:
        forget_missing = options.forgets_missing(run.mode)
        source = await source_registry.open_source(
            resources, run.dataset_id, run.scope, checksum=options.checksum, forget_missing=forget_missing
        )
        try:
            chunker = await chunking.by_id(resources, run.dataset_id)
            await Indexing(resources, run, source, chunker, options, progress, database=database).perform()
            if forget_missing:
                await source_registry.forget_missing_roots(database, run.dataset_id, source)
        finally:
            await source.aclose()
    except LeaseLostError:
        raise  # the run is another process's now
    except (DatasetGone, UnknownDatasetError):
        await _end(database, run, "cancelled")
    except Exception as error:
        await _failed(database, run, error)
        raise
    else:
        await _end(database, run, "done")


async def _failed(database: Database, run: RunRecord, error: Exception) -> None:
    """End a run that would fail again in the same way; postpone one whose source or provider is unreachable."""
    same_again = isinstance(error, Refused | MissingExtraError) or not isinstance(error, EvervecError)
    message = str(error) or type(error).__name__
    if same_again or run.attempts >= ATTEMPTS:
        await _end(database, run, "failed", message)
        return
    async with database.transaction() as tx:
        await runs.postpone(tx, run, seconds=BACKOFF * 2 ** (run.attempts - 1), error=message)


async def _end(database: Database, run: RunRecord, state: str, error: str | None = None) -> None:
    run.state, run.error = state, error
    async with database.transaction() as tx:
        await runs.finish(tx, run)
        await ledger.add(tx, await _unchanged(tx, run))


async def _unchanged(tx: Tx, run: RunRecord) -> dict[LedgerKey, Spent]:
    """Return what a run that came to its end left as it was, for the ledger."""
    counts = run.counts
    left = counts.full_texts - counts.chunks_new - counts.chunks_updated
    active = await providers.active(tx)
    if run.state != "done" or left <= 0 or active is None:
        return {}
    tokens = max(0, counts.full_tokens - counts.tokens)
    saved = Spent(unchanged=left, unchanged_tokens=tokens, saved_usd=cost(tokens, prices.of_embedding(active)) or 0.0)
    return {LedgerKey(active.name, active.model, run.dataset_id, Reason.LIVE): saved}


async def _busy(database: Database, dataset_id: UUID) -> IndexRunningError:
    """Return the error for a dataset that another process indexes. Its active run may be about to be saved, or may just have ended."""
    busy: RunRecord | None = None
    for _ in range(RETRIES):
        async with database.read() as tx:
            busy = await runs.active(tx, dataset_id)
        if busy is not None:
            break
        await asyncio.sleep(RETRY_SECONDS)
    return IndexRunningError(dataset=dataset_id, run_id="(it has just ended: try again)" if busy is None else busy.id)
