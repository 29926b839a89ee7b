"""A batch job is submitted: an intent is saved, filled and sent to the provider, and never sent twice.

Before the request for a job the intent is marked; if no answer comes, the provider's list of jobs shows whether it was made.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from evervec import log
from evervec.domain.batch import JobStatus, RemoteJob, RemoteState
from evervec.errors import (
    BadInputError,
    BadResponseError,
    LeaseLostError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
    TransientError,
)
from evervec.pipeline.batch import job_spend
from evervec.pipeline.batch.payload import UNBOUNDED, Bounds, Intent, Payload, Progress, ReturnReason, is_outdated
from evervec.pipeline.leases import HeldLease
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.providers import Provider

logger = log.get("batch")

LISTED_BACK = timedelta(hours=1)
"""How far a provider's clock may be behind ours."""

LISTINGS = 2
"""Complete listings without the intent, besides a grace period, after which no job counts as made."""


class NoRoomError(Exception):
    """The provider takes no more jobs for now; the rows are in the queue again."""


class Submission:
    """Submits the jobs of one type to one provider, while it has the lease of the job.

    Everything is written through the lease's database: what another process continues by now is not written twice.
    """

    def __init__(
        self,
        resources: Resources,
        lease: HeldLease,
        provider: Provider,
        payload: Payload,
        progress: Progress | None = None,
    ) -> None:
        guarded = replace(resources, database=lease.database)
        self._resources, self._database, self._lease = guarded, lease.database, lease
        self._provider, self._payload = provider, payload.using(guarded)
        self._client = resources.clients.batch_client(provider)
        self._progress = progress
        self.reused = 0
        """Rows that got the vector of an equal text, and are in no job."""
        self.failed = 0
        """Items for which no line can be written; they have failed."""
        self.problem: ProviderError | None = None
        """The error that keeps the job from being submitted."""

    async def submit(
        self, intent: UUID, dataset_ids: Sequence[UUID], bounds: Bounds, *, tries: int
    ) -> BatchJobRecord | None:
        """Fill one job with what waits and send it; return None when nothing waits.

        A job that could not be sent yet is returned as `CREATED`. Raises `NoRoomError`, and a `ProviderError` for what a
        person has to repair; then nothing was sent and the rows are in the queue again.
        """
        with TemporaryDirectory(prefix="evervec-") as folder:
            path = Path(folder) / "input.jsonl"
            draft = self._intent(intent, path, bounds, tries)
            filled = await self._payload.fill(draft, dataset_ids)
            self.reused, self.failed = self.reused + draft.reused, self.failed + draft.failed
            return await self.send(await self._job(intent), path) if filled else None

    def _intent(self, intent: UUID, path: Path, bounds: Bounds, tries: int) -> Intent:
        return Intent(intent, self._provider, self._client, path, bounds, tries, self._progress or _ignore_progress)

    async def resume(self, job: BatchJobRecord) -> BatchJobRecord:
        """Continue an intent that another process left behind."""
        if job.submitting_at is not None:
            return await self._adopt(job)
        if job.late:
            return await self._end(job, JobStatus.EXPIRED, "it could not be sent before its deadline", online=True)
        async with self._database.read() as tx:
            outdated = await is_outdated(tx, job, self._provider)
        if outdated:
            return await self._end(job, JobStatus.CANCELLED, "no dataset has its space any more; nothing was sent")
        with TemporaryDirectory(prefix="evervec-") as folder:
            path = Path(folder) / "input.jsonl"
            draft = self._intent(job.id, path, Bounds(UNBOUNDED, UNBOUNDED, UNBOUNDED), 0)
            if not await self._payload.rewrite(job, draft):
                return await self._end(job, JobStatus.CANCELLED, "none of its rows waited any more; nothing was sent")
            return await self.send(job, path)

    async def send(self, job: BatchJobRecord, path: Path) -> BatchJobRecord:
        """Upload an input file and request its job, if the budgets allow it."""
        if self._provider.limited and job.budget_tokens is None:
            job = await self._reserved(job)
        try:
            file = await self._client.upload(job.id, path)
        except ProviderError as error:
            return await self._not_sent(job, error)
        hours = self._resources.settings.batch_hours
        async with self._database.transaction() as tx:
            await batch_jobs.mark_uploaded(tx, job.id, file)
            complete = await self._payload.extend_claims(tx, job.id, hours=hours)
            if complete:
                await batch_jobs.mark_submitting(tx, job.id, hours=hours)
        if not complete:
            # the upload, or a machine that slept, took longer than the lease: the rows that are left are written again
            logger.warning("leases lost", job=str(job.id))
            return await self.resume(await self._job(job.id))
        return await self._create(job, file)

    async def _reserved(self, job: BatchJobRecord) -> BatchJobRecord:
        """Take what the job needs from the budgets. Raises `NoRoomError` where a ceiling forbids it."""
        async with self._database.transaction() as tx:
            grant = await job_spend.reserve(tx, job, self._provider)
        if not grant.granted:
            reason = f"it does not fit under the ceiling {grant.ceiling}: see `evervec budget list`"
            await self._end(job, JobStatus.CANCELLED, f"{reason}; nothing was sent")
            raise NoRoomError(reason)
        return await self._job(job.id)

    async def _create(self, job: BatchJobRecord, file: str) -> BatchJobRecord:
        # a request is the one thing that no transaction can undo
        await self._lease.confirm()
        try:
            remote = await self._payload.create_job(self._client, job.id, file)
        except TransientError as error:
            return await self._adopt(await self._job(job.id), error)
        except ProviderError as error:
            async with self._database.transaction() as tx:
                await batch_jobs.mark_not_sent(tx, job.id)
            return await self._not_sent(job, error)
        try:
            return await self._submitted(job, remote)
        except LeaseLostError:
            await self._withdraw(job, remote)
            raise

    async def _submitted(self, job: BatchJobRecord, remote: RemoteJob) -> BatchJobRecord:
        async with self._database.transaction() as tx:
            await batch_jobs.mark_submitted(tx, job.id, remote.external_id)
            await job_spend.count(tx, job, self._provider)
        return await self._job(job.id)

    async def _withdraw(self, job: BatchJobRecord, remote: RemoteJob) -> None:
        """Cancel a job that was made while another process took the intent over, unless that one has found it or will."""
        now = await self._job(job.id)
        looks_for_it = now.external_id is None and now.finished_at is None and now.submitting_at is not None
        if now.external_id != remote.external_id and not looks_for_it:
            await self._cancel_duplicate(job, remote)

    async def _adopt(self, job: BatchJobRecord, unanswered: ProviderError | None = None) -> BatchJobRecord:
        """Find the job with this intent in the provider's list; keep the oldest and cancel others.

        If the list has had none for long enough, the job is requested again.
        """
        try:
            found = await self._listed(job)
        except ProviderError as error:
            return await self._postpone(job, error)
        if found:
            job = await self._submitted(job, found[0])
            for duplicate in found[1:]:
                await self._cancel_duplicate(job, duplicate)
            return job
        async with self._database.transaction() as tx:
            listings, seconds = await batch_jobs.count_listing(tx, job.id)
        # a job may be made and not listed yet: a request that has failed just now is not repeated at once
        if unanswered is None and listings >= LISTINGS and seconds >= self._resources.settings.batch_grace_seconds:
            async with self._database.transaction() as tx:
                await batch_jobs.mark_not_sent(tx, job.id)
            return await self.resume(await self._job(job.id))
        return await self._job(job.id) if unanswered is None else await self._postpone(job, unanswered)

    async def _cancel_duplicate(self, job: BatchJobRecord, duplicate: RemoteJob) -> None:
        logger.warning("duplicate job cancelled", job=str(job.id), external_id=duplicate.external_id)
        try:
            await self._client.cancel(duplicate.external_id)
        except ProviderError as error:
            # the cleanup finds it again
            logger.warning("duplicate job not cancelled", external_id=duplicate.external_id, error=str(error))

    async def _listed(self, job: BatchJobRecord) -> list[RemoteJob]:
        """List the jobs of an intent, oldest first; a cancelled one counts only where there is no other."""
        assert job.submitting_at is not None
        since = job.submitting_at - LISTED_BACK
        found = [one async for one in self._client.jobs(since) if one.intent == job.id]
        found.reverse()
        return [one for one in found if one.state is not RemoteState.CANCELLED] or found[:1]

    async def _not_sent(self, job: BatchJobRecord, error: ProviderError) -> BatchJobRecord:
        """Handle an error after which there certainly is no job: try again later, or return the rows to the queue."""
        match error:
            case TransientError() | BadResponseError():
                # an error page of a proxy, too, says nothing about the texts
                return await self._postpone(job, error)
            case RateLimitedError() | QuotaExhaustedError():
                await self._end(job, JobStatus.CANCELLED, f"no room at the provider, nothing was sent: {error}")
                raise NoRoomError(str(error)) from error
            case BadInputError() | TooLargeError():
                return await self._end(job, JobStatus.FAILED, str(error), refused=error)
            case _:
                await self._end(job, JobStatus.CANCELLED, f"nothing was sent: {error}")
                raise error

    async def _postpone(self, job: BatchJobRecord, error: ProviderError) -> BatchJobRecord:
        """Leave the intent to the next poll, with the error that it waits for."""
        self.problem = error
        logger.warning("job not sent yet", job=str(job.id), error=str(error))
        async with self._database.transaction() as tx:
            await batch_jobs.record_error(tx, job.id, str(error))
        return await self._job(job.id)

    async def _end(
        self,
        job: BatchJobRecord,
        status: JobStatus,
        reason: str,
        refused: ProviderError | None = None,
        *,
        online: bool = False,
    ) -> BatchJobRecord:
        """End an intent without a job: return its rows to the queue, with an attempt counted if their texts were refused."""
        async with self._database.transaction() as tx:
            cause = None if refused is None else ReturnReason(refused.code, reason)
            if online:
                cause = ReturnReason("expired", reason, online=True)
            await job_spend.give_back(tx, job)
            await self._payload.return_items(tx, job.id, cause)
            await batch_jobs.finish(tx, job.id, status, said=None, error=reason)
        logger.warning("job ended without submission", job=str(job.id), status=str(status), reason=reason)
        return await self._job(job.id)

    async def _job(self, job_id: UUID) -> BatchJobRecord:
        async with self._database.read() as tx:
            return await batch_jobs.by_id(tx, job_id)


def lease_name(job_id: UUID) -> str:
    """Return the name of the lease for work on a job."""
    return f"batch:{job_id}"


def _ignore_progress(_: int) -> None:
    """Ignore progress."""
