"""A batch job on its way back: asked after, downloaded piece by piece, written where the text is still the same, cleaned up.

Every piece is settled in one transaction with its vectors. Stopped anywhere, the rest is downloaded again and what is
settled is passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from evervec import log
from evervec.domain.batch import BatchClient, JobStatus, RemoteJob, RemoteState, Results
from evervec.domain.protocols import Vectors
from evervec.domain.vectors import gate
from evervec.errors import BadResponseError, ResultsGoneError
from evervec.pipeline.resources import Resources
from evervec.store import batches, deferred, rows, vectors
from evervec.store.batches import BatchJob, Item
from evervec.store.providers import Provider
from evervec.store.rows import GivenUp
from evervec.store.session import Tx

logger = log.get("batch")

LINES = 1000
"""Answered lines that are applied together."""

BAD_INPUT = ("bad_input", "too_large")
"""What a provider says of a line alone is about its text: the row is given up, with these words."""

ENDED: dict[RemoteState, JobStatus] = {
    RemoteState.SUCCEEDED: JobStatus.COMPLETED,
    RemoteState.FAILED: JobStatus.FAILED,
    RemoteState.CANCELLED: JobStatus.CANCELLED,
    RemoteState.EXPIRED: JobStatus.EXPIRED,
    RemoteState.GONE: JobStatus.FAILED,
}


@dataclass
class _Piece:
    """What one piece of results does to which rows."""

    write: list[Item] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    give_up: list[GivenUp] = field(default_factory=list)
    give_back: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    strays: int = 0


class Collection:
    """One provider's jobs on their way back. Each call is made with the job's lock held."""

    def __init__(self, resources: Resources, provider: Provider) -> None:
        self._resources, self._database = resources, resources.database
        self._provider = provider
        self._client: BatchClient = resources.models.batch_client(provider)
        self._hours = resources.settings.batch_hours

    async def collect(self, job: BatchJob) -> BatchJob:
        """Look how a job stands, and take in what there is. Raises a `ProviderError` when the provider can not tell."""
        assert job.external_id is not None
        if job.space_id != self._provider.space.id or not self._provider.space.active:
            return await self._abandon(job, "another embedding space is active now")
        remote = await self._client.get_job_status(job.external_id)
        if not remote.state.over:
            return await self._still_running(job, remote)
        return await self._ended(job, remote)

    async def cancel(self, job: BatchJob) -> BatchJob:
        """End a job here and at the provider; what it has done until now is not taken in."""
        return await self._abandon(job, "cancelled on request")

    async def clean(self, job: BatchJob) -> None:
        """Remove what a finished job left at the provider. Raises a `ProviderError`; then it is tried again later."""
        if job.external_id is not None:
            remote = await self._client.get_job_status(job.external_id)
            for name in remote.result_files:
                await self._client.remove_file(name)
            if remote.state is not RemoteState.GONE:
                await self._client.remove_job(job.external_id)
        if job.input_file is not None:
            await self._client.remove_file(job.input_file)
        async with self._database.transaction() as tx:
            await batches.cleaned(tx, job.id)

    async def _still_running(self, job: BatchJob, remote: RemoteJob) -> BatchJob:
        if job.late:
            error = f"not done by its deadline, the provider's last word was {remote.said}"
            return await self._abandon(job, error, status=JobStatus.EXPIRED, online=True)
        async with self._database.read() as tx:
            wanted = await batches.wanted(tx, job.id)
        if not wanted:
            return await self._abandon(job, "none of its rows waits any more")
        async with self._database.transaction() as tx:
            await batches.seen(tx, job.id, remote.said)
        return await self._job(job.id)

    async def _abandon(
        self, job: BatchJob, reason: str, *, status: JobStatus = JobStatus.CANCELLED, online: bool = False
    ) -> BatchJob:
        """The provider need not go on: its rows go back, by the last rung where they have waited too long already."""
        if job.external_id is not None:
            await self._client.cancel(job.external_id)
        return await self._finish(job, status, None, reason, penalty=online, online=online, code="expired")

    async def _ended(self, job: BatchJob, remote: RemoteJob) -> BatchJob:
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
                await self._take_in(job, remote)
            except ResultsGoneError as gone:
                status, error = JobStatus.FAILED, str(gone)
        if remote.state is RemoteState.GONE:
            error = "the provider does not know this job any more"
        if status is JobStatus.FAILED and error is None:
            error = "the provider gives no reason"
        code = "bad_response" if status is JobStatus.COMPLETED else str(remote.state)
        return await self._finish(job, status, remote.said, error, penalty=True, online=False, code=code)

    async def _take_in(self, job: BatchJob, remote: RemoteJob) -> None:
        dimensions = self._provider.space.dimensions
        async for results in self._client.download_results(remote, lines=LINES, dimensions=dimensions):
            await self._apply(job.id, results)

    async def _apply(self, job_id: UUID, results: Results) -> None:
        async with self._database.read() as tx:
            keys = [*results.keys, *(key for key, _, _ in results.errors)]
            found = await batches.items(tx, job_id, keys)
        piece, answer = self._sorted(results, found)
        changed = await self._database.in_turn(lambda tx: self._settle(tx, job_id, piece, answer))
        await self._resources.doorbell.changed(changed)

    def _sorted(self, results: Results, found: Sequence[Item]) -> tuple[_Piece, Vectors]:
        """Every row with what was answered for it. The first answer to a key is the one that counts."""
        waiting: dict[str, list[Item]] = {}
        for item in found:
            waiting.setdefault(item.key, []).append(item)
        piece = _Piece(strays=results.garbled)
        answer = results.vectors
        if answer is None or not len(answer):
            answer = np.empty((0, self._provider.space.dimensions), dtype=np.float32)
        sound = gate(
            answer, count=len(results.keys), dimensions=self._provider.space.dimensions, provider=self._provider.name
        )
        for place, key in enumerate(results.keys):
            items = waiting.pop(key, None)
            if items is None:
                piece.strays += 1
            elif sound[place]:
                piece.write += items
                piece.places += [place] * len(items)
            else:
                unsound = BadResponseError(self._provider.name, "the vector is not finite, or zero")
                _return(piece, items, unsound.code, str(unsound))
        for key, code, message in results.errors:
            items = waiting.pop(key, None)
            if items is None:
                piece.strays += 1
            elif code in BAD_INPUT:
                piece.give_up += [GivenUp(item.vector_id, item.content_hash, code, message[:500]) for item in items]
            else:
                _return(piece, items, code, message)
        return piece, answer[piece.places]

    async def _settle(self, tx: Tx, job_id: UUID, piece: _Piece, answer: Vectors) -> set[UUID]:
        """One transaction: vectors, failures and what goes back, and the items struck off. Answers the changed datasets."""
        written = await vectors.write(tx, self._provider.space.id, piece.write, answer) if piece.write else set()
        dropped = [item.vector_id for item in piece.write if item.vector_id not in written]
        if dropped:
            await rows.release(tx, job_id, dropped)
        failed = await rows.give_up(tx, job_id, piece.give_up)
        edited = len(piece.give_up) - failed
        if edited:
            await rows.release(tx, job_id, [one.vector_id for one in piece.give_up])
        returned = [vector_id for ids in piece.give_back.values() for vector_id in ids]
        for (code, message), ids in piece.give_back.items():
            await deferred.give_back(tx, job_id, ids, hours=self._hours, online=False, code=code, error=message)
        settled = [item.vector_id for item in piece.write]
        settled += [one.vector_id for one in piece.give_up] + returned
        await batches.settle(
            tx,
            job_id,
            settled,
            ready=len(written),
            failed=failed,
            dropped=len(dropped) + edited,
            returned=len(returned),
            strays=piece.strays,
        )
        return {item.dataset_id for item in piece.write if item.vector_id in written and item.dataset_id is not None}

    async def _finish(
        self,
        job: BatchJob,
        status: JobStatus,
        said: str | None,
        error: str | None,
        *,
        penalty: bool,
        online: bool,
        code: str,
    ) -> BatchJob:
        """The end: rows without an answer go back, each with the reason. `penalty` counts it as a try of theirs."""
        reason = error or "the provider's answer has no line for this row"

        async def once(tx: Tx) -> None:
            while left := await batches.left(tx, job.id, limit=50_000):
                ids = [item.vector_id for item in left]
                if penalty:
                    await deferred.give_back(tx, job.id, ids, hours=self._hours, online=online, code=code, error=reason)
                else:
                    await rows.release(tx, job.id, ids)
                await batches.settle(tx, job.id, ids, returned=len(ids))
            await batches.finish(tx, job.id, status, said=said, error=error)

        await self._database.in_turn(once)
        logger.info("job ended", job=str(job.id), status=str(status), error=error)
        return await self._job(job.id)

    async def _job(self, job_id: UUID) -> BatchJob:
        async with self._database.read() as tx:
            return await batches.by_id(tx, job_id)


def _return(piece: _Piece, items: Sequence[Item], code: str, message: str) -> None:
    piece.give_back.setdefault((code, message), []).extend(item.vector_id for item in items)
