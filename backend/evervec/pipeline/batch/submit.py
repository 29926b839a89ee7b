"""A batch job on its way out: an intent is written down, filled and brought to the provider, and never sent twice.

Before a job is asked for, the intent says so; if no answer comes, the provider's own list tells whether it was made.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from evervec import log
from evervec.domain.batch import JobStatus, RemoteJob, RemoteState, new_intent
from evervec.errors import (
    BadInputError,
    BadResponseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
    TransientError,
)
from evervec.pipeline.batch.payload import UNBOUNDED, Bounds, Intent, Payload, Progress, ReturnReason, is_outdated
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.providers import Provider

logger = log.get("batch")

LISTED_BACK = timedelta(hours=1)
"""A provider's clock may be behind ours by so much."""

LISTINGS = 2
"""So many whole listings without an intent, and a grace period, before it is believed that no job was made."""


class NoRoomError(Exception):
    """The provider takes no more jobs for now; the rows are back in the queue."""


class Submission:
    """One provider's jobs of one type on their way out."""

    def __init__(
        self, resources: Resources, provider: Provider, load: Payload, progress: Progress | None = None
    ) -> None:
        self._resources, self._database = resources, resources.database
        self._provider, self._load = provider, load
        self._client = resources.clients.batch_client(provider)
        self._progress = progress
        self.reused = 0
        """Rows that got an equal text's vector, and are in no job."""
        self.failed = 0
        """What can have no line, and was given up."""
        self.problem: ProviderError | None = None
        """What keeps the last job from being at the provider."""

    async def submit(self, dataset_ids: Sequence[UUID], bounds: Bounds, *, tries: int) -> BatchJobRecord | None:
        """Fill one job with what waits and send it; None when nothing was there to take.

        A job whose sending came to no end is answered as it is, `CREATED`. Raises `NoRoomError`, and a `ProviderError`
        for what a person has to mend; then nothing was sent and the rows are back.
        """
        async with self._database.read() as tx:
            intent = new_intent(await batch_jobs.database_tag(tx))
        async with AsyncExitStack() as closing:
            await closing.enter_async_context(self._database.advisory_lock(lock(intent)))
            path = Path(closing.enter_context(TemporaryDirectory(prefix="evervec-"))) / "input.jsonl"
            about = self._intent(intent, path, bounds, tries)
            filled = await self._load.fill(about, dataset_ids)
            self.reused, self.failed = self.reused + about.reused, self.failed + about.failed
            return await self.send(await self._job(intent), path) if filled else None

    def _intent(self, intent: UUID, path: Path, bounds: Bounds, tries: int) -> Intent:
        return Intent(intent, self._provider, self._client, path, bounds, tries, self._progress or _say_nothing)

    async def resume(self, job: BatchJobRecord) -> BatchJobRecord:
        """Go on with an intent that another process left behind. Called with its lock held."""
        if job.submitting_at is not None:
            return await self._adopt(job)
        if job.late:
            return await self._end(job, JobStatus.EXPIRED, "it could not be sent before its deadline", online=True)
        if is_outdated(job, self._provider):
            return await self._end(job, JobStatus.CANCELLED, "another embedding space is active; nothing was sent")
        with TemporaryDirectory(prefix="evervec-") as folder:
            path = Path(folder) / "input.jsonl"
            about = self._intent(job.id, path, Bounds(UNBOUNDED, UNBOUNDED, UNBOUNDED), 0)
            if not await self._load.rewrite(job, about):
                return await self._end(job, JobStatus.CANCELLED, "none of its rows waited any more; nothing was sent")
            return await self.send(job, path)

    async def send(self, job: BatchJobRecord, path: Path) -> BatchJobRecord:
        """Upload an input file and ask for its job. Called with the job's lock held."""
        try:
            file = await self._client.upload(job.id, path)
        except ProviderError as error:
            return await self._not_sent(job, error)
        hours = self._resources.settings.batch_hours
        async with self._database.transaction() as tx:
            await batch_jobs.mark_uploaded(tx, job.id, file)
            held = await self._load.hold(tx, job.id, hours=hours)
            if held:
                await batch_jobs.mark_submitting(tx, job.id, hours=hours)
        if not held:
            # the upload, or a machine that slept, took longer than the lease: what is left is written anew
            logger.warning("rows went to somebody else meanwhile", job=str(job.id))
            return await self.resume(await self._job(job.id))
        return await self._create(job, file)

    async def _create(self, job: BatchJobRecord, file: str) -> BatchJobRecord:
        try:
            remote = await self._load.create(self._client, job.id, file)
        except TransientError as error:
            return await self._adopt(await self._job(job.id), error)
        except ProviderError as error:
            async with self._database.transaction() as tx:
                await batch_jobs.mark_not_sent(tx, job.id)
            return await self._not_sent(job, error)
        return await self._submitted(job, remote)

    async def _submitted(self, job: BatchJobRecord, remote: RemoteJob) -> BatchJobRecord:
        async with self._database.transaction() as tx:
            await batch_jobs.mark_submitted(tx, job.id, remote.external_id)
        return await self._job(job.id)

    async def _adopt(self, job: BatchJobRecord, unanswered: ProviderError | None = None) -> BatchJobRecord:
        """Find the job that carries this intent; the oldest is kept, others are cancelled. If there is none for long
        enough, it is asked for again."""
        try:
            found = await self._listed(job)
        except ProviderError as error:
            return await self._kept(job, error)
        if found:
            job = await self._submitted(job, found[0])
            for twin in found[1:]:
                await self._cancel_twin(job, twin)
            return job
        async with self._database.transaction() as tx:
            listings, seconds = await batch_jobs.count_listing(tx, job.id)
        # the answer may be lost before the job is listed: the one that has just failed is no reason to ask again
        if unanswered is None and listings >= LISTINGS and seconds >= self._resources.settings.batch_grace_seconds:
            async with self._database.transaction() as tx:
                await batch_jobs.mark_not_sent(tx, job.id)
            return await self.resume(await self._job(job.id))
        return await self._job(job.id) if unanswered is None else await self._kept(job, unanswered)

    async def _cancel_twin(self, job: BatchJobRecord, twin: RemoteJob) -> None:
        logger.warning("a second job of one intent is cancelled", job=str(job.id), external_id=twin.external_id)
        try:
            await self._client.cancel(twin.external_id)
        except ProviderError as error:
            # it is found again when the remains are removed
            logger.warning("it could not be cancelled", external_id=twin.external_id, error=str(error))

    async def _listed(self, job: BatchJobRecord) -> list[RemoteJob]:
        """The jobs of an intent, oldest first; a cancelled one counts only where there is no other."""
        assert job.submitting_at is not None
        since = job.submitting_at - LISTED_BACK
        found = [one async for one in self._client.jobs(since) if one.intent == job.id]
        found.reverse()
        return [one for one in found if one.state is not RemoteState.CANCELLED] or found[:1]

    async def _not_sent(self, job: BatchJobRecord, error: ProviderError) -> BatchJobRecord:
        """For sure there is no job. What is only away is tried again; what was refused gives its rows back."""
        match error:
            case TransientError() | BadResponseError():
                # a page of a proxy, too, says nothing about the texts
                return await self._kept(job, error)
            case RateLimitedError() | QuotaExhaustedError():
                await self._end(job, JobStatus.CANCELLED, f"no room at the provider, nothing was sent: {error}")
                raise NoRoomError(str(error)) from error
            case BadInputError() | TooLargeError():
                return await self._end(job, JobStatus.FAILED, str(error), refused=error)
            case _:
                await self._end(job, JobStatus.CANCELLED, f"nothing was sent: {error}")
                raise error

    async def _kept(self, job: BatchJobRecord, error: ProviderError) -> BatchJobRecord:
        """The intent stays for the next sync, and says what it waits for."""
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
        """An intent that comes to nothing: its rows go back, by one rung if it was their texts that were refused."""
        async with self._database.transaction() as tx:
            why = (
                ReturnReason("expired", reason, online=True)
                if online
                else ReturnReason(refused.code, reason)
                if refused
                else None
            )
            await self._load.give_back(tx, job.id, why)
            await batch_jobs.finish(tx, job.id, status, said=None, error=reason)
        logger.warning("job given up", job=str(job.id), status=str(status), reason=reason)
        return await self._job(job.id)

    async def _job(self, job_id: UUID) -> BatchJobRecord:
        async with self._database.read() as tx:
            return await batch_jobs.by_id(tx, job_id)


def lock(job_id: UUID) -> str:
    """The name of the lock that whoever works on a job holds."""
    return f"batch:{job_id}"


def _say_nothing(_: int) -> None:
    """What is told where nobody asked for progress."""
