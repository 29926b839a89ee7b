"""Open batch jobs are polled: ended ones are collected, returned rows are sent again, leftovers at the provider removed."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from uuid import UUID

from evervec import log
from evervec.domain.batch import JobStatus, JobType
from evervec.domain.vendors import BATCH_TYPES
from evervec.errors import LeaseLostError, NoBatchError, ProviderError, Refused
from evervec.pipeline.batch import cleanup, job_spend
from evervec.pipeline.batch.collect import Collection
from evervec.pipeline.batch.embedding_jobs import EmbeddingPayload
from evervec.pipeline.batch.flush import Flush, FlushResult, Sizes
from evervec.pipeline.batch.media_jobs import MediaPayload
from evervec.pipeline.batch.payload import Payload, Progress, ReturnReason
from evervec.pipeline.batch.served import ServedSpace, spaces_of
from evervec.pipeline.batch.submit import NoRoomError, Submission, lease_name
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_rows
from evervec.pipeline.leases import HeldLease, held
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.embeddings import vectors
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import BY_KIND

logger = log.get("batch")

RETURNED_ROWS = 2000
"""Rows that are embedded online together after jobs have returned them."""


@dataclass
class PollResult:
    """The outcome of a poll.

    `running` jobs are not over yet, another process works on `busy` ones; `copied` rows got the vector of an equal text
    that a job brought; `again` are jobs of rows that an earlier job returned, `online` counts rows that were embedded
    online in the end. A file that was described counts as `ready`; its chunks wait for a job of their own.
    """

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


def payloads_for(resources: Resources, served: ServedSpace, *, marked_only: bool = False) -> tuple[Payload, ...]:
    """Return the payloads that a provider has models for; `marked_only` leaves out texts that are not marked for a job."""
    space_id = served.provider.space.id
    texts = EmbeddingPayload(resources, space_id, marked_only=marked_only or served.building)
    # a description is text of every space: it is asked for once
    return (texts, MediaPayload(resources)) if served.provider.chat_model and not served.building else (texts,)


class Poll:
    """One poll of all open jobs."""

    def __init__(self, resources: Resources) -> None:
        self._resources, self._database = resources, resources.database
        self._result = PollResult()

    async def run(self, progress: Progress | None = None) -> PollResult:
        """Poll every open job, send returned rows again, and clean up where a job has ended."""
        async with self._database.read() as tx:
            unfinished = await batch_jobs.unfinished(tx)
        ended = not unfinished
        for job in unfinished:
            polled = await self._poll(job)
            if polled is not None and polled.finished_at is not None:
                ended = True
            if progress is not None:
                progress(1)
        if ended:
            await self._copy_vectors()
        await self._resubmit()
        await self._embed_returned()
        if ended:
            await self._remove_orphans()
        return self._result

    async def cancel(self, job: BatchJobRecord) -> BatchJobRecord:
        """Cancel one job. Raises `Refused` for one that is over, a `ProviderError` when the provider does not answer."""
        async with self._leased(job) as lease:
            if lease is None:
                raise Refused(
                    reason=f"Batch job {job.id} is being worked on by another process. Try again in a moment."
                )
            job = await self._job(job.id)
            if job.finished_at is not None:
                raise Refused(reason=f"Batch job {job.id} is over already: it is {job.status}.")
            if job.external_id is None and job.submitting_at is not None:
                job = await self._resume(lease, job)
            return job if job.finished_at is not None else await (await self._collection(lease, job)).cancel(job)

    async def _resume(self, lease: HeldLease, job: BatchJobRecord) -> BatchJobRecord:
        """Find out whether the provider has a job whose submission got no answer."""
        try:
            return await (await self._submission(lease, job)).resume(job)
        except NoRoomError:
            return await self._job(job.id)  # the provider did not have it, and takes no job now

    async def _poll(self, job: BatchJobRecord) -> BatchJobRecord | None:
        """Advance one job as far as possible now; return None when another process works on it."""
        try:
            async with self._leased(job) as lease:
                if lease is not None:
                    return await self._poll_leased(lease, job)
        except LeaseLostError as error:
            logger.warning("job left to another process", job=str(job.id), error=str(error))
        self._result.busy += 1
        return None

    async def _poll_leased(self, lease: HeldLease, job: BatchJobRecord) -> BatchJobRecord:
        before = job = await self._job(job.id)
        try:
            if job.finished_at is None:
                job = await self._advance(lease, job)
            if job.finished_at is not None and job.cleaned_at is None:
                await self._clean(lease, job)
        except (NoRoomError, ProviderError) as error:
            self._result.problems.append(f"job {job.id}: {error}")
        job = await self._job(job.id)
        self._count(before, job)
        return job

    def _count(self, before: BatchJobRecord, after: BatchJobRecord) -> None:
        result = self._result
        for name in ("ready", "failed", "dropped", "returned"):
            setattr(result, name, getattr(result, name) + after.stats[name] - before.stats[name])
        result.running += after.finished_at is None
        result.jobs.append(after)

    async def _advance(self, lease: HeldLease, job: BatchJobRecord) -> BatchJobRecord:
        if job.provider_id is None:
            return await self._fail_without_provider(lease, job, "its provider was removed")
        try:
            await self._collection(lease, job)
        except NoBatchError as error:
            return await self._fail_without_provider(lease, job, str(error))
        if job.external_id is None:
            submission = await self._submission(lease, job)
            job = await submission.resume(job)
            if submission.problem is not None:
                self._result.problems.append(f"job {job.id}: {submission.problem}")
        if job.external_id is not None and job.finished_at is None:
            job = await (await self._collection(lease, job)).collect(job)
        return job

    async def _clean(self, lease: HeldLease, job: BatchJobRecord) -> None:
        try:
            collection = None if job.provider_id is None else await self._collection(lease, job)
        except NoBatchError:
            collection = None
        if collection is not None:
            await collection.clean(job)
            return
        # without its provider there is nothing that can be removed
        async with lease.database.transaction() as tx:
            await batch_jobs.mark_cleaned(tx, job.id)

    async def _fail_without_provider(self, lease: HeldLease, job: BatchJobRecord, reason: str) -> BatchJobRecord:
        """Fail a job whose provider was removed or replaced: its results can not be fetched any more."""
        async with lease.database.transaction() as tx:
            await job_spend.give_back(tx, job)
            await self._payload(job).return_items(tx, job.id, ReturnReason("config", reason, online=True))
            await batch_jobs.finish(tx, job.id, JobStatus.FAILED, said=None, error=reason)
        return await self._job(job.id)

    async def _copy_vectors(self) -> None:
        """Copy vectors to rows that waited for a job with an equal text."""
        async with self._database.read() as tx:
            waiting = await batch_queue.waiting_spaces(tx)
        for space_id in waiting:
            await self._copy_within(space_id)

    async def _copy_within(self, space_id: int) -> None:
        while True:
            async with self._database.read() as tx:
                rows = await batch_queue.copyable(tx, space_id, limit=RETURNED_ROWS)
            copied = await self._database.with_retries(partial(vectors.reuse, space_id=space_id, rows=rows))
            self._result.copied += len(copied)
            await self._resources.doorbell.changed({one.dataset_id for one in rows if one.vector_id in copied})
            if not copied:
                return

    async def _resubmit(self) -> None:
        """Send rows that a job returned for the first time once more, in jobs of half the size."""
        for served in await self._served():
            if served.provider.type in BATCH_TYPES:
                for payload in payloads_for(self._resources, served):
                    await self._send_again(served, payload)

    async def _send_again(self, served: ServedSpace, payload: Payload) -> None:
        async with self._database.read() as tx:
            total = sum(count for _, count in await payload.waiting(tx, served.dataset_ids, tries=1))
        if not total:
            return
        sizes, flushed = Sizes(most=ceil(total / 2)), FlushResult(served.provider.name)
        try:
            flush = Flush(self._resources, served.provider, payload, served.dataset_ids, sizes, tries=1)
            await flush.run(flushed)
        except ProviderError as error:
            self._result.problems.append(f"sent again: {error}")
        self._result.again += flushed.jobs

    async def _served(self) -> list[ServedSpace]:
        async with self._database.read() as tx:
            return await spaces_of(tx, await datasets.live(tx))

    async def _embed_returned(self) -> None:
        """Embed online the rows that no job could do."""
        while True:
            async with self._database.read() as tx:
                returned = await batch_queue.returned_rows(tx, limit=RETURNED_ROWS)
            if not returned:
                return
            counts = EmbedCounts()
            for kind, ids in returned.items():
                counts.add(await embed_rows(self._resources, BY_KIND[kind], ids))
            self._result.online.add(counts)
            if not counts.success:
                await self._report_pause(counts.skipped)
                return

    async def _report_pause(self, left: int) -> None:
        """Report rows that no job could do and that a paused provider does not embed online either."""
        paused = [one.provider for one in await self._served() if one.provider.breaker.is_open]
        if left and paused:
            self._result.problems.append(
                f"{left:,} rows that no job could do wait to be embedded online: {paused[0].breaker.error}"
            )

    async def _remove_orphans(self) -> None:
        async with self._database.read() as tx:
            default = await providers.active(tx)
        used = [one.provider for one in await self._served()] + ([default] if default is not None else [])
        for provider in {one.id: one for one in used}.values():
            if provider.type in BATCH_TYPES:
                try:
                    self._result.removed += await cleanup.remove_orphans(self._resources, provider)
                except ProviderError as error:
                    self._result.problems.append(f"cleaning up: {error}")

    def _payload(self, job: BatchJobRecord) -> Payload:
        is_media = job.job_type is JobType.MEDIA_DESCRIPTION
        return MediaPayload(self._resources) if is_media else EmbeddingPayload(self._resources, job.space_id or 0)

    async def _provider_of(self, job: BatchJobRecord) -> Provider:
        if job.provider_id is None:
            raise Refused(
                reason=f"The provider of batch job {job.id} was removed. `evervec batch sync` returns its rows to the queue."
            )
        async with self._database.read() as tx:
            if job.space_id is not None:
                found = await providers.serving(tx, job.space_id, only=job.provider_id)
                if found is not None:
                    return found
            return await providers.by_id(tx, job.provider_id)

    async def _submission(self, lease: HeldLease, job: BatchJobRecord) -> Submission:
        return Submission(self._resources, lease, await self._provider_of(job), self._payload(job))

    async def _collection(self, lease: HeldLease, job: BatchJobRecord) -> Collection:
        guarded = replace(self._resources, database=lease.database)
        return Collection(guarded, await self._provider_of(job), self._payload(job).using(guarded))

    def _leased(self, job: BatchJobRecord) -> AbstractAsyncContextManager[HeldLease | None]:
        return held(self._database, lease_name(job.id), self._resources.settings.lease_seconds)

    async def _job(self, job_id: UUID) -> BatchJobRecord:
        async with self._database.read() as tx:
            return await batch_jobs.by_id(tx, job_id)
