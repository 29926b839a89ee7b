"""What waits is sent as batch jobs: as many as there is enough for, and as the provider has room for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from uuid import UUID

from evervec.domain.batch import DISCOUNT, BatchClient, JobStatus
from evervec.pipeline.resources import Resources
from evervec.pipeline.submit import Bounds, NoRoomError, Progress, Submission
from evervec.store import batches, deferred
from evervec.store.batches import BatchJob
from evervec.store.providers import Provider

CHARACTERS_A_TOKEN = 4
UNBOUNDED = 2**62


@dataclass
class Flushed:
    """What a flush did, or would do. `waiting` rows are still in the queue, and `reason` says why; `reused` rows got the
    vector of an equal text. Prices are in dollars, None where the provider has none."""

    provider: str
    jobs: list[BatchJob] = field(default_factory=list)
    rows: int = 0
    texts: int = 0
    tokens: int = 0
    reused: int = 0
    waiting: int = 0
    reason: str | None = None
    online_usd: float | None = None
    deferred_usd: float | None = None
    planned_jobs: int = 0


@dataclass(frozen=True)
class Sizes:
    """No job of fewer rows than `least`, none of more than `most` (None: what the provider takes)."""

    least: int = 1
    most: int | None = None


class Flush:
    """One flush of some datasets to a provider. `tries` is how often a job has given the rows back already."""

    def __init__(
        self, resources: Resources, provider: Provider, scope: Sequence[UUID], sizes: Sizes, *, tries: int = 0
    ) -> None:
        self._resources, self._database = resources, resources.database
        self._provider, self._scope, self._sizes, self._tries = provider, scope, sizes, tries
        self._client: BatchClient = resources.models.batch_client(provider)

    async def run(self, progress: Progress | None = None) -> Flushed:
        """Jobs, one after the other, as long as enough waits and the provider has room."""
        flushed = Flushed(self._provider.name)
        submission = Submission(self._resources, self._provider, progress)
        while flushed.reason is None and (waiting := await self._enough(flushed)):
            bounds = await self._room()
            if bounds is None:
                flushed.reason = f"{self._provider.name} has no room for another job until some are done"
                break
            try:
                job = await submission.submit(waiting, bounds, tries=self._tries)
            except NoRoomError as error:
                flushed.reason = f"{self._provider.name} takes no more for now: {error}"
                break
            if job is None:
                break
            self._add(flushed, job)
        flushed.reused = submission.reused
        flushed.waiting = sum(count for _, count in await self._waiting())
        return self._priced(flushed)

    async def plan(self) -> Flushed:
        """What `run` would do, with tokens estimated from the length of the texts. Sends and writes nothing."""
        planned = Flushed(self._provider.name)
        enough = await self._enough(planned)
        planned.rows = planned.waiting = sum(count for _, count in await self._waiting())
        async with self._database.read() as tx:
            planned.tokens = ceil(await deferred.characters(tx, self._scope) / CHARACTERS_A_TOKEN)
        bounds = await self._room()
        if bounds is None:
            planned.reason = f"{self._provider.name} has no room for another job until some are done"
        elif enough:
            planned.planned_jobs = max(ceil(planned.rows / bounds.rows), ceil(planned.tokens / bounds.tokens), 1)
        return self._priced(planned)

    async def _enough(self, flushed: Flushed) -> list[UUID]:
        """The datasets to take from, smallest first; none, with the reason, when that is too little for a job."""
        waiting = await self._waiting()
        total = sum(count for _, count in waiting)
        if 0 < total < self._sizes.least:
            flushed.reason = f"{total:,} rows wait, and a job has to have {self._sizes.least:,}"
        return [dataset_id for dataset_id, _ in waiting] if total >= self._sizes.least else []

    async def _waiting(self) -> list[tuple[UUID, int]]:
        async with self._database.read() as tx:
            return await deferred.waiting(tx, self._scope, tries=self._tries)

    async def _room(self) -> Bounds | None:
        """What the next job may hold, beside those that the provider has; None for nothing."""
        limits = self._client.limits
        async with self._database.read() as tx:
            jobs, tokens = await batches.in_flight(tx, self._provider.id)
        left = UNBOUNDED if limits.queued_tokens is None else limits.queued_tokens - tokens
        if left <= 0 or (limits.jobs is not None and jobs >= limits.jobs):
            return None
        rows = limits.rows if self._sizes.most is None else min(self._sizes.most, limits.rows)
        return Bounds(rows, min(left, limits.tokens or UNBOUNDED), limits.bytes)

    def _add(self, flushed: Flushed, job: BatchJob) -> None:
        flushed.jobs.append(job)
        flushed.rows += job.stats["rows"]
        flushed.texts += job.stats["texts"]
        flushed.tokens += job.stats["tokens"]
        if job.status is JobStatus.CREATED:
            flushed.reason = f"{self._provider.name} gave no answer; the job is kept, and the next sync goes on with it"
        elif job.status is JobStatus.FAILED:
            flushed.reason = f"{self._provider.name} refused the job: {job.error}"

    def _priced(self, flushed: Flushed) -> Flushed:
        price = self._provider.usd_per_million_tokens
        if price is not None:
            flushed.online_usd = flushed.tokens * price / 1_000_000
            flushed.deferred_usd = flushed.online_usd * DISCOUNT
        return flushed
