"""A submitted batch job is collected: polled, downloaded in pieces, written where the text is still the same, cleaned up.

Every piece is saved in one transaction. After a stop at any point the results are downloaded again, and pieces that are
saved already are skipped.
"""

from uuid import UUID

from evervec import log
from evervec.domain.batch import BatchClient, JobStatus, RemoteJob, RemoteState
from evervec.errors import ProviderError, ResultsDeletedError
from evervec.pipeline.batch.payload import Payload, ReturnReason, is_outdated
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.database.session import Tx
from evervec.store.providers import Provider

logger = log.get("batch")

LINES = 1000
"""Result lines that are saved together."""

ENDED: dict[RemoteState, JobStatus] = {
    RemoteState.SUCCEEDED: JobStatus.COMPLETED,
    RemoteState.FAILED: JobStatus.FAILED,
    RemoteState.CANCELLED: JobStatus.CANCELLED,
    RemoteState.EXPIRED: JobStatus.EXPIRED,
    RemoteState.GONE: JobStatus.FAILED,
}


class Collection:
    """Collects the jobs of one type from one provider. The caller has the lease of the job, whose database these resources have."""

    def __init__(self, resources: Resources, provider: Provider, payload: Payload) -> None:
        self._database, self._provider, self._payload = resources.database, provider, payload
        self._client: BatchClient = resources.clients.batch_client(provider)

    async def collect(self, job: BatchJobRecord) -> BatchJobRecord:
        """Poll a job and save its results if it is over. Raises a `ProviderError` when the provider does not answer."""
        assert job.external_id is not None
        async with self._database.read() as tx:
            outdated = await is_outdated(tx, job, self._provider)
        if outdated:
            return await self._abandon(job, "no dataset has its space any more")
        try:
            remote = await self._client.get_job_status(job.external_id)
            if not remote.state.over:
                return await self._still_running(job, remote)
        except ProviderError as error:
            if not job.late:
                raise
            # after its deadline a job is not waited for
            unknown = f"not done by its deadline, and the provider does not answer: {error}"
            return await self._finish(job, JobStatus.EXPIRED, None, unknown, penalty=True, online=True, code="expired")
        return await self._save_ended(job, remote)

    async def cancel(self, job: BatchJobRecord) -> BatchJobRecord:
        """End a job here and at the provider; its results until now are not saved."""
        return await self._abandon(job, "cancelled on request")

    async def clean(self, job: BatchJobRecord) -> None:
        """Remove the files of a finished job at the provider. Raises a `ProviderError`; then it is tried again later."""
        if job.external_id is not None:
            remote = await self._client.get_job_status(job.external_id)
            for name in remote.result_files:
                await self._client.remove_file(name)
            if remote.state is not RemoteState.GONE:
                await self._client.remove_job(job.external_id)
        if job.input_file is not None:
            await self._client.remove_file(job.input_file)
        async with self._database.transaction() as tx:
            await batch_jobs.mark_cleaned(tx, job.id)

    async def _still_running(self, job: BatchJobRecord, remote: RemoteJob) -> BatchJobRecord:
        if job.late:
            error = f"not done by its deadline, the provider's last status was {remote.said}"
            return await self._abandon(job, error, status=JobStatus.EXPIRED, online=True)
        async with self._database.read() as tx:
            wanted = await self._payload.is_wanted(tx, job.id)
        if not wanted:
            return await self._abandon(job, "none of its rows waits any more")
        async with self._database.transaction() as tx:
            await batch_jobs.mark_processing(tx, job.id, remote.said)
        return await self._job(job.id)

    async def _abandon(
        self, job: BatchJobRecord, reason: str, *, status: JobStatus = JobStatus.CANCELLED, online: bool = False
    ) -> BatchJobRecord:
        """Cancel a job at the provider and return its rows to the queue; with `online` no other job takes them."""
        if job.external_id is not None:
            await self._client.cancel(job.external_id)
        return await self._finish(job, status, None, reason, penalty=online, online=online, code="expired")

    async def _save_ended(self, job: BatchJobRecord, remote: RemoteJob) -> BatchJobRecord:
        if remote.no_room:
            return await self._finish(
                job,
                JobStatus.CANCELLED,
                remote.said,
                f"no room at the provider, nothing was done: {remote.error}",
                penalty=False,
                online=False,
                code="quota_exhausted",
            )
        status, error = ENDED[remote.state], remote.error
        if remote.result_files:
            try:
                await self._save_results(job, remote)
            except ResultsDeletedError as gone:
                status, error = JobStatus.FAILED, str(gone)
        if remote.state is RemoteState.GONE:
            error = "the provider does not know this job any more"
        if status is JobStatus.FAILED and error is None:
            error = "the provider gives no reason"
        code = "bad_response" if status is JobStatus.COMPLETED else str(remote.state)
        return await self._finish(job, status, remote.said, error, penalty=True, online=False, code=code)

    async def _save_results(self, job: BatchJobRecord, remote: RemoteJob) -> None:
        dimensions = self._payload.dimensions(self._provider)
        async for results in self._client.download_results(remote, lines=LINES, dimensions=dimensions):
            await self._payload.save_results(job.id, self._provider, results)

    async def _finish(
        self,
        job: BatchJobRecord,
        status: JobStatus,
        said: str | None,
        error: str | None,
        *,
        penalty: bool,
        online: bool,
        code: str,
    ) -> BatchJobRecord:
        """Finish a job: return rows without an answer to the queue, with the reason. `penalty` counts it as an attempt."""
        reason = error or "the provider's answer has no line for this row"

        async def once(tx: Tx) -> None:
            await self._payload.return_items(tx, job.id, ReturnReason(code, reason, online) if penalty else None)
            await batch_jobs.finish(tx, job.id, status, said=said, error=error)

        await self._database.with_retries(once)
        logger.info("job ended", job=str(job.id), status=str(status), error=error)
        return await self._job(job.id)

    async def _job(self, job_id: UUID) -> BatchJobRecord:
        async with self._database.read() as tx:
            return await batch_jobs.by_id(tx, job_id)
