"""The batch lane: what can wait is embedded at half price by provider batch jobs. Nothing here runs unless it is called."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from uuid import UUID

from evervec.domain.batch import JobStatus, JobType
from evervec.domain.vendors import BATCH_TYPES
from evervec.errors import NoBatchError, ProviderError, Refused
from evervec.pipeline.batch import cleanup
from evervec.pipeline.batch.collect import Collection
from evervec.pipeline.batch.embedding_jobs import EmbeddingPayload
from evervec.pipeline.batch.flush import Flush, FlushResult, Sizes
from evervec.pipeline.batch.media_jobs import MediaPayload, waiting_files
from evervec.pipeline.batch.payload import Payload, Progress, ReturnReason
from evervec.pipeline.batch.submit import NoRoomError, Submission, lock
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_rows
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers, vectors
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import BY_KIND

MOST_JOBS = 100
RETURNED = 2000
"""Rows that are embedded online together after jobs have given them back."""


@dataclass
class PollResult:
    """What a look at the provider brought. `running` jobs are still to be waited for, `busy` ones another process looks
    after; `copied` rows got the vector of an equal text that a job brought; `again` are jobs of rows that an earlier job gave back, `online` what was embedded at once in the end. A file
    that was described counts as one that is ready; its chunks wait for a job of their own."""

    jobs: list[BatchJobRecord] = field(default_factory=list)
    ready: int = 0
    failed: int = 0
    dropped: int = 0
    returned: int = 0
    running: int = 0
    busy: int = 0
    copied: int = 0
    again: list[BatchJobRecord] = field(default_factory=list)
    online: EmbedCounts = field(default_factory=EmbedCounts)
    removed: int = 0
    problems: list[str] = field(default_factory=list)


class BatchManager:
    """The batch lane of one open database: what `core.batch_manager` is, and what the commands call."""

    def __init__(self, resources: Resources) -> None:
        self._resources, self._database = resources, resources.database
        self._texts, self._files = EmbeddingPayload(resources), MediaPayload(resources)

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

        With `only_deferred` that is what was told to wait (`mode="async"`, `--deferred`), and no row that a worker is about
        to embed. Pictures and sounds travel in jobs of their own, if the provider has a chat model; both sizes count files there.

        Raises `NoBatchError` for a provider that embeds at once, `Refused` for sizes that can not be, and what the
        provider refuses (`AuthError`, `ConfigError`); nothing is lost then, the rows wait as before.
        """
        sizes = _sizes(min_batch_size, max_batch_size)
        provider = await self._resources.provider()
        async with self._database.read() as tx:
            scope = [one.id for one in await datasets.find(tx, dataset)]
        flushed = FlushResult(provider.name)
        for load in self._loads(provider, kept=only_deferred):
            flush = Flush(self._resources, provider, load, scope, sizes)
            await (flush.plan(flushed) if dry_run else flush.run(flushed, progress))
        if not provider.chat_model:
            await self._count_undescribed(flushed, scope)
        return flushed

    async def check_and_sync(self, progress: Progress | None = None) -> PollResult:
        """Ask after every open job, take in what is done, send again what came back, and clean up.

        Safe to call at any time, from any number of processes, after any crash. A provider that is out is named in
        `problems` and asked again by the next call.
        """
        synced = PollResult()
        async with self._database.read() as tx:
            unfinished = await batch_jobs.unfinished(tx)
        ended = not unfinished
        for job in unfinished:
            looked = await self._look(job, synced)
            if looked is not None and looked.finished_at is not None:
                ended = True
            if progress is not None:
                progress(1)
        if ended:
            await self._copy(synced)
        await self._send_again(synced)
        await self._embed_returned(synced)
        if ended:
            await self._remove_remains(synced)
        return synced

    async def process_queue(
        self, min_batch_size: int = 1, max_batch_size: int | None = None, only_deferred: bool = False
    ) -> tuple[FlushResult, PollResult]:
        """Take in what is done, then send what waits.

        Raises what `flush_queue` raises, unless there was something to take in: then it is named in `problems`.
        """
        _sizes(min_batch_size, max_batch_size)
        synced = await self.check_and_sync()
        try:
            flushed = await self.flush_queue(min_batch_size, max_batch_size, only_deferred=only_deferred)
        except (ProviderError, NoBatchError) as error:
            if not (synced.ready or synced.failed or synced.dropped or synced.returned):
                raise
            synced.problems.append(f"nothing was sent: {error}")
            flushed = FlushResult((await self._resources.provider()).name)
        return flushed, synced

    async def cancel(self, job: BatchJobRecord | UUID | str) -> BatchJobRecord:
        """End a job, given as `get` takes it: its rows go back to the queue.

        Raises `UnknownBatchJobError`, `Refused` for one that is over, a `ProviderError` when the provider is out.
        """
        found = await self.get(job)
        async with self._held(found) as held:
            if not held:
                raise Refused(
                    reason=f"Batch job {found.id} is being worked on by another process. Try again in a moment."
                )
            found = await self._job(found.id)
            if found.finished_at is not None:
                raise Refused(reason=f"Batch job {found.id} is over already: it is {found.status}.")
            if found.external_id is None and found.submitting_at is not None:
                found = await self._looked_up(found)
            return found if found.finished_at is not None else await (await self._collection(found)).cancel(found)

    async def _looked_up(self, job: BatchJobRecord) -> BatchJobRecord:
        """A job of which nobody knows whether the provider has it, after another look."""
        try:
            return await (await self._submission(job)).resume(job)
        except NoRoomError:
            return await self._job(job.id)  # it was not there, and is not any more

    async def get(self, job: BatchJobRecord | UUID | str) -> BatchJobRecord:
        """One job as it is now, by itself, its id, the first digits of that, or the provider's name for it.

        Raises `UnknownBatchJobError`.
        """
        async with self._database.read() as tx:
            return await batch_jobs.find(tx, str(job.id if isinstance(job, BatchJobRecord) else job))

    # --- back --------------------------------------------------------------------------------------------------

    async def _look(self, job: BatchJobRecord, synced: PollResult) -> BatchJobRecord | None:
        """See one job as far as it goes now."""
        async with self._held(job) as held:
            if not held:
                synced.busy += 1
                return None
            before = job = await self._job(job.id)
            try:
                if job.finished_at is None:
                    job = await self._step(job, synced)
                if job.finished_at is not None and job.cleaned_at is None:
                    await self._clean(job)
            except (NoRoomError, ProviderError) as error:
                synced.problems.append(f"job {job.id}: {error}")
            job = await self._job(job.id)
        _count(synced, before, job)
        return job

    async def _step(self, job: BatchJobRecord, synced: PollResult) -> BatchJobRecord:
        if job.provider_id is None:
            return await self._orphaned(job, "its provider was removed")
        try:
            await self._collection(job)
        except NoBatchError as error:
            return await self._orphaned(job, str(error))
        if job.external_id is None:
            submission = await self._submission(job)
            job = await submission.resume(job)
            if submission.problem is not None:
                synced.problems.append(f"job {job.id}: {submission.problem}")
        if job.external_id is not None and job.finished_at is None:
            job = await (await self._collection(job)).collect(job)
        return job

    async def _clean(self, job: BatchJobRecord) -> None:
        try:
            collection = None if job.provider_id is None else await self._collection(job)
        except NoBatchError:
            collection = None
        if collection is not None:
            await collection.clean(job)
            return
        # there is nobody to clean up at
        async with self._database.transaction() as tx:
            await batch_jobs.mark_cleaned(tx, job.id)

    async def _orphaned(self, job: BatchJobRecord, reason: str) -> BatchJobRecord:
        """Its provider was removed, or is another one now: nobody can be asked any more."""
        async with self._database.transaction() as tx:
            await self._load(job).give_back(tx, job.id, ReturnReason("config", reason, online=True))
            await batch_jobs.finish(tx, job.id, JobStatus.FAILED, said=None, error=reason)
        return await self._job(job.id)

    async def _copy(self, synced: PollResult) -> None:
        """Rows that waited for a text that was on its way already."""
        space_id = (await self._resources.provider()).space.id
        while True:
            async with self._database.read() as tx:
                twins = await batch_queue.copyable(tx, space_id, limit=RETURNED)
            copied = await self._database.with_retries(partial(vectors.reuse, space_id=space_id, rows=twins))
            synced.copied += len(copied)
            await self._resources.doorbell.changed({one.dataset_id for one in twins if one.vector_id in copied})
            if not copied:
                return

    async def _send_again(self, synced: PollResult) -> None:
        """What a job gave back for the first time travels once more, in jobs of half the size."""
        provider = await self._resources.provider()
        if provider.type not in BATCH_TYPES:
            return
        for load in self._loads(provider):
            async with self._database.read() as tx:
                scope = [one.id for one in await datasets.live(tx)]
                total = sum(count for _, count in await load.waiting(tx, scope, tries=1))
            if not total:
                continue
            sizes, flushed = Sizes(most=ceil(total / 2)), FlushResult(provider.name)
            try:
                await Flush(self._resources, provider, load, scope, sizes, tries=1).run(flushed)
            except ProviderError as error:
                synced.problems.append(f"sent again: {error}")
            synced.again += flushed.jobs

    async def _embed_returned(self, synced: PollResult) -> None:
        """What no job could do is embedded online."""
        while True:
            async with self._database.read() as tx:
                returned = await batch_queue.returned_rows(tx, limit=RETURNED)
            if not returned:
                return
            counts = EmbedCounts()
            for kind, ids in returned.items():
                counts.add(await embed_rows(self._resources, BY_KIND[kind], ids))
            synced.online.add(counts)
            if not counts.success:
                await self._tell_pause(synced, counts.skipped)
                return

    async def _tell_pause(self, synced: PollResult, left: int) -> None:
        """Why rows that no job could do are not embedded online either, if it is the provider's doing."""
        provider = await self._resources.provider()
        if left and provider.paused_seconds > 0:
            synced.problems.append(
                f"{left:,} rows that no job could do wait to be embedded online: {provider.pause_error}"
            )

    async def _remove_remains(self, synced: PollResult) -> None:
        """What a crash left at the provider: files without a job, jobs that nobody here knows."""
        provider = await self._resources.provider()
        if provider.type not in BATCH_TYPES:
            return
        try:
            synced.removed += await cleanup.remove_orphans(self._resources, provider)
        except ProviderError as error:
            synced.problems.append(f"cleaning up: {error}")

    # --- who -----------------------------------------------------------------------------------------------------

    async def _count_undescribed(self, flushed: FlushResult, scope: Sequence[UUID]) -> None:
        """Files that wait for a model: a reason, where there is no other."""
        flushed.files_waiting = await waiting_files(self._resources.database, scope)
        if flushed.files_waiting and flushed.reason is None:
            flushed.reason = (
                f"{flushed.files_waiting:,} pictures and sounds wait: provider {flushed.provider!r} has no chat model; "
                "add one with --chat-model"
            )

    def _load(self, job: BatchJobRecord) -> Payload:
        return self._files if job.job_type is JobType.MEDIA_DESCRIPTION else self._texts

    def _loads(self, provider: Provider, *, kept: bool = False) -> tuple[Payload, ...]:
        """What this provider has models for; with `kept` of the texts only those that were told to wait."""
        texts = EmbeddingPayload(self._resources, kept=True) if kept else self._texts
        return (texts, self._files) if provider.chat_model else (texts,)

    async def _of(self, job: BatchJobRecord) -> Provider:
        if job.provider_id is None:
            raise Refused(
                reason=f"The provider of batch job {job.id} was removed. `evervec batch sync` gives its rows back."
            )
        async with self._database.read() as tx:
            return await providers.by_id(tx, job.provider_id)

    async def _submission(self, job: BatchJobRecord) -> Submission:
        return Submission(self._resources, await self._of(job), self._load(job))

    async def _collection(self, job: BatchJobRecord) -> Collection:
        return Collection(self._resources, await self._of(job), self._load(job))

    @asynccontextmanager
    async def _held(self, job: BatchJobRecord) -> AsyncIterator[bool]:
        async with self._database.advisory_lock(lock(job.id), wait=False) as held:
            yield held

    async def _job(self, job_id: UUID) -> BatchJobRecord:
        async with self._database.read() as tx:
            return await batch_jobs.by_id(tx, job_id)

    async def list(self, limit: int = MOST_JOBS) -> list[BatchJobRecord]:
        """The newest jobs, newest first."""
        if limit < 1:
            raise Refused(reason=f"limit is {limit}, it must be 1 or more.")
        async with self._database.read() as tx:
            return await batch_jobs.every(tx, limit=limit)


def _sizes(least: int, most: int | None) -> Sizes:
    if least < 1 or (most is not None and most < least):
        raise Refused(
            reason=f"A job can not have {least} to {most} rows: give a least of 1 or more, and a most that is not below it."
        )
    return Sizes(least, most)


def _count(synced: PollResult, before: BatchJobRecord, after: BatchJobRecord) -> None:
    for name in ("ready", "failed", "dropped", "returned"):
        setattr(synced, name, getattr(synced, name) + after.stats[name] - before.stats[name])
    synced.running += after.finished_at is None
    synced.jobs.append(after)
