"""The batch queue: what can wait is embedded at half price by provider batch jobs. Nothing here runs unless it is called."""

from uuid import UUID

from evervec.domain.vendors import BATCH_TYPES, require_batch
from evervec.errors import NoBatchError, ProviderError, Refused
from evervec.pipeline.batch.flush import Flush, FlushResult, Sizes
from evervec.pipeline.batch.media_queue import waiting_files
from evervec.pipeline.batch.payload import Progress
from evervec.pipeline.batch.poll import Poll, PollResult, payloads_for
from evervec.pipeline.batch.served import ServedSpace, spaces_of
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord

MOST_JOBS = 100


class BatchManager:
    """The batch queue of one open database, as `core.batch_manager` and for the commands."""

    def __init__(self, resources: Resources) -> None:
        self._resources, self._database = resources, resources.database

    async def flush_queue(
        self,
        min_batch_size: int = 1,
        max_batch_size: int | None = None,
        dataset: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
        only_deferred: bool = False,
    ) -> FlushResult:
        """Send what waits as jobs of at most `max_batch_size` rows, none of fewer than `min_batch_size`.

        With `only_deferred` only rows are sent that are marked for batch jobs (`mode="async"`, `--batch`), and none that
        a worker is about to embed. Each dataset's rows are sent to the provider that embeds it. Pictures and sounds are sent in jobs of their own, if the provider has a chat model; both
        sizes count files there.

        Raises `NoBatchError` for a provider without a batch API, `Refused` for invalid sizes, and what the provider refuses
        (`AuthError`, `ConfigError`); nothing is lost then, the rows wait as before.
        """
        sizes = _sizes(min_batch_size, max_batch_size)
        served = await self._served(dataset)
        flushed = FlushResult(", ".join(dict.fromkeys(one.provider.name for one in served)))
        refusals: list[ProviderError | NoBatchError] = []
        for one in served:
            try:
                for payload in payloads_for(self._resources, one, marked_only=only_deferred):
                    flush = Flush(self._resources, one.provider, payload, one.dataset_ids, sizes)
                    await (flush.plan(flushed) if dry_run else flush.run(flushed, progress))
            except (ProviderError, NoBatchError) as error:
                refusals.append(error)  # what one provider refuses, another one may take
        if len(refusals) == len(served):
            raise refusals[0]
        if refusals:
            flushed.reason = str(refusals[0])
        for one in served:
            if not one.provider.chat_model and not one.building:
                await self._count_undescribed(flushed, one)
        return flushed

    async def _served(self, dataset: str | None) -> list[ServedSpace]:
        """Return the providers with a batch API, and what each embeds. Raises `NoBatchError` where none has one."""
        async with self._database.read() as tx:
            found = await datasets.find(tx, dataset)
            every = await spaces_of(tx, found)
        served = [one for one in every if one.provider.type in BATCH_TYPES]
        if served:
            return served
        provider = every[0].provider if dataset is not None and every else await self._resources.provider()
        require_batch(provider.name, provider.type)
        return [ServedSpace(provider, [], building=False)]

    async def check_and_sync(self, progress: Progress | None = None) -> PollResult:
        """Poll every open job, save the results of ended ones, send returned rows again, and clean up.

        Safe to call at any time, from any number of processes, after any crash. A provider that does not answer is named
        in `problems` and polled again by the next call.
        """
        return await Poll(self._resources).run(progress)

    async def process_queue(
        self, min_batch_size: int = 1, max_batch_size: int | None = None, only_deferred: bool = False
    ) -> tuple[FlushResult, PollResult]:
        """Save the results of ended jobs, then send what waits.

        Raises what `flush_queue` raises, unless there were results to save: then it is named in `problems`.
        """
        _sizes(min_batch_size, max_batch_size)
        polled = await self.check_and_sync()
        try:
            flushed = await self.flush_queue(min_batch_size, max_batch_size, only_deferred=only_deferred)
        except (ProviderError, NoBatchError) as error:
            if not (polled.ready or polled.failed or polled.dropped or polled.returned):
                raise
            polled.problems.append(f"nothing was sent: {error}")
            flushed = FlushResult((await self._resources.provider()).name)
        return flushed, polled

    async def cancel(self, job: BatchJobRecord | UUID | str) -> BatchJobRecord:
        """End a job, given as `get` takes it: its rows return to the queue.

        Raises `UnknownBatchJobError`, `Refused` for one that is over, a `ProviderError` when the provider does not answer.
        """
        return await Poll(self._resources).cancel(await self.get(job))

    async def get(self, job: BatchJobRecord | UUID | str) -> BatchJobRecord:
        """Return one job as it is now, given by itself, its id, the first digits of that, or the provider's name for it.

        Raises `UnknownBatchJobError`.
        """
        async with self._database.read() as tx:
            return await batch_jobs.find(tx, str(job.id if isinstance(job, BatchJobRecord) else job))

    async def list(self, limit: int = MOST_JOBS) -> list[BatchJobRecord]:
        """Return the newest jobs, newest first."""
        if limit < 1:
            raise Refused(reason=f"limit is {limit}, it must be 1 or more.")
        async with self._database.read() as tx:
            return await batch_jobs.every(tx, limit=limit)

    async def _count_undescribed(self, flushed: FlushResult, served: ServedSpace) -> None:
        """Count files that wait for a model that describes them; they are the reason, where there is no other."""
        waiting = await waiting_files(self._database, served.dataset_ids)
        flushed.files_waiting += waiting
        if waiting and flushed.reason is None:
            flushed.reason = (
                f"{waiting:,} pictures and sounds wait: provider {served.provider.name!r} has no chat model; "
                "add one with --chat-model"
            )


def _sizes(least: int, most: int | None) -> Sizes:
    if least < 1 or (most is not None and most < least):
        raise Refused(
            reason=f"A job can not have {least} to {most} rows: give a minimum of 1 or more, and a maximum not below it."
        )
    return Sizes(least, most)
