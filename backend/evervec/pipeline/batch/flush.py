"""Waiting rows are sent as batch jobs, as long as there are enough for a job and the provider takes another one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from uuid import UUID

from evervec.domain.batch import DISCOUNT, BatchClient, JobStatus, JobType, new_intent
from evervec.domain.spending import cost
from evervec.errors import LeaseLostError
from evervec.pipeline.batch import job_spend
from evervec.pipeline.batch.payload import UNBOUNDED, Bounds, Payload, Progress
from evervec.pipeline.batch.submit import NoRoomError, Submission, lease_name
from evervec.pipeline.budget import prices
from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.budget import budgets
from evervec.store.providers import Provider


@dataclass
class FlushResult:
    """The outcome of a flush, or its plan.

    `provider` names all that rows were sent to. `waiting` rows are still in the queue, and `reason` says why; `reused` rows
    got the vector of an equal text. Prices are in dollars and for the rows alone, None where a provider has none. `files` are the pictures and sounds in the jobs;
    `files_waiting` are still in the queue, and `files_failed` could not be sent and have failed.
    """

    provider: str
    jobs: list[BatchJobRecord] = field(default_factory=list)
    rows: int = 0
    texts: int = 0
    tokens: int = 0
    reused: int = 0
    waiting: int = 0
    reason: str | None = None
    online_usd: float | None = 0.0
    deferred_usd: float | None = 0.0
    planned_jobs: int = 0
    files: int = 0
    files_waiting: int = 0
    files_failed: int = 0


@dataclass(frozen=True)
class Sizes:
    """The bounds of a job: at least `least` rows and at most `most` (None: what the provider takes)."""

    least: int = 1
    most: int | None = None


LEAST_QUOTA_LEFT = 0.1
"""Share of a provider's quota that has to be left for another job while some run."""


class Flush:
    """One flush of one payload of some datasets to a provider. `tries` is how often a job has returned its rows already."""

    def __init__(
        self,
        resources: Resources,
        provider: Provider,
        payload: Payload,
        scope: Sequence[UUID],
        sizes: Sizes,
        *,
        tries: int = 0,
    ) -> None:
        self._resources, self._database, self._payload = resources, resources.database, payload
        self._provider, self._scope, self._sizes, self._tries = provider, scope, sizes, tries
        self._client: BatchClient = resources.clients.batch_client(provider)

    async def run(self, flushed: FlushResult, progress: Progress | None = None) -> FlushResult:
        """Submit jobs one after the other while enough waits and the provider has room; add the outcome to `flushed`."""
        reason, before = None, flushed.tokens
        while reason is None:
            waiting, reason = await self._enough()
            if not waiting:
                break
            waiting, allowed, reason = await self._allowed(waiting)
            if not waiting:
                break
            bounds = await self._room(allowed)
            if bounds is None:
                reason = self._no_room()
                break
            try:
                job = await self._submit(waiting, bounds, flushed, progress)
            except NoRoomError as error:
                reason = f"{self._provider.name} takes no more for now: {error}"
                break
            except LeaseLostError as error:
                reason = str(error)
                break
            if job is None:
                break
            self._add(flushed, job)
            reason = self._stop_reason(job)
        left = await self._waiting()
        self._count_waiting(flushed, left)
        if left and reason is None:
            reason = "the waiting rows have the text of rows that are being embedded, and get their vectors when those are done"
        flushed.reason = flushed.reason or reason
        return self._priced(flushed, flushed.tokens - before)

    async def _submit(
        self, waiting: Sequence[UUID], bounds: Bounds, flushed: FlushResult, progress: Progress | None
    ) -> BatchJobRecord | None:
        async with self._database.read() as tx:
            intent = new_intent(await batch_jobs.database_tag(tx))
        async with held(self._database, lease_name(intent), self._resources.settings.lease_seconds) as lease:
            assert lease is not None  # nobody else knows the intent yet
            submission = Submission(self._resources, lease, self._provider, self._payload, progress)
            try:
                return await submission.submit(intent, waiting, bounds, tries=self._tries)
            finally:
                flushed.reused += submission.reused
                flushed.files_failed += submission.failed

    async def plan(self, planned: FlushResult) -> FlushResult:
        """Add to `planned` what `run` would do, with tokens estimated from the texts' length. Sends and writes nothing."""
        waiting, before = await self._waiting(), planned.tokens
        total = sum(count for _, count in waiting)
        self._count_waiting(planned, waiting)
        sent, reason, bounds = 0, self._too_few(total), await self._room()
        if total and bounds is None:
            reason = self._no_room()
        elif bounds is not None and reason is None:
            rest = total % bounds.rows
            reason = self._too_few(rest)
            sent = total if reason is None else total - rest
        if sent and bounds is not None:
            async with self._database.read() as tx:
                tokens, size = (ceil(part * sent / total) for part in await self._payload.waiting_size(tx, self._scope))
            planned.planned_jobs += ceil(max(sent / bounds.rows, tokens / bounds.tokens, size / bounds.bytes))
            planned.tokens += tokens
        if self._payload.job_type is JobType.EMBEDDING:
            planned.rows += sent
        else:
            planned.files += sent
        planned.reason = planned.reason or reason
        return self._priced(planned, planned.tokens - before)

    async def _enough(self) -> tuple[list[UUID], str | None]:
        """Return the datasets with waiting rows, smallest first; none, with the reason, when a job would be too small."""
        waiting = await self._waiting()
        reason = self._too_few(sum(count for _, count in waiting))
        return [dataset_id for dataset_id, _ in waiting] if reason is None else [], reason

    def _too_few(self, count: int) -> str | None:
        """Return the reason why so many are too few for a job, if they are; zero needs no reason."""
        if not 0 < count < self._sizes.least:
            return None
        what = "rows" if self._payload.job_type is JobType.EMBEDDING else "pictures and sounds"
        return f"{count:,} {what} wait, and a job has to have {self._sizes.least:,}"

    async def _waiting(self) -> list[tuple[UUID, int]]:
        async with self._database.read() as tx:
            return await self._payload.waiting(tx, self._scope, tries=self._tries)

    async def _allowed(self, waiting: Sequence[UUID]) -> tuple[list[UUID], int, str | None]:
        """Return the datasets that the ceilings allow, and the tokens that a job of theirs may have; or none, and why."""
        if not self._provider.limited or self._payload.job_type is not JobType.EMBEDDING:
            return list(waiting), UNBOUNDED, None
        async with self._database.read() as tx:
            found = await budgets.beside(tx, self._provider.id, waiting)
        rate = job_spend.usd_per_token(prices.of_embedding(self._provider))
        used_up = {dataset_id: budget for dataset_id, budget in found if budget.room(rate) < 1}
        left = [] if None in used_up else [dataset_id for dataset_id in waiting if dataset_id not in used_up]
        if not left:
            return [], 0, f"the ceiling of {next(iter(used_up.values())).owner} is reached: see `evervec budget list`"
        rooms = [budget.room(rate) for dataset_id, budget in found if dataset_id not in used_up]
        return left, int(min(*rooms, UNBOUNDED)) if rooms else UNBOUNDED, None

    async def _room(self, allowed: int = UNBOUNDED) -> Bounds | None:
        """Return what the next job may hold beside those that the provider has; None for nothing."""
        limits = self._client.limits
        async with self._database.read() as tx:
            jobs, tokens = await batch_jobs.in_flight(tx, self._provider.id)
        # the limits of tokens are those of the model that embeds
        metered = self._payload.job_type is JobType.EMBEDDING
        left = limits.queued_tokens - tokens if metered and limits.queued_tokens is not None else UNBOUNDED
        # the small rest of a quota would make a job of a few rows, or of one text that exceeds the rest
        little = tokens and left < (limits.queued_tokens or 0) * LEAST_QUOTA_LEFT
        if little or left <= 0 or (limits.jobs is not None and jobs >= limits.jobs):
            return None
        rows = limits.rows if self._sizes.most is None else min(self._sizes.most, limits.rows)
        most = limits.tokens if metered and limits.tokens is not None else UNBOUNDED
        return Bounds(rows, min(left, most, allowed), limits.bytes)

    def _no_room(self) -> str:
        return f"{self._provider.name} has no room for another job until some are done"

    def _stop_reason(self, job: BatchJobRecord) -> str | None:
        """Return the reason why no job follows this one, if there is one."""
        match job.status:
            case JobStatus.CREATED:
                return f"the last job is not sent yet, and `evervec batch sync` continues it: {job.error}"
            # rows that a job has returned are sent in smaller jobs: one that is refused says nothing about the others
            case JobStatus.FAILED if not self._tries:
                return f"{self._provider.name} refused the job: {job.error}"
            case _:
                return None

    def _add(self, flushed: FlushResult, job: BatchJobRecord) -> None:
        flushed.jobs.append(job)
        if job.job_type is JobType.MEDIA_DESCRIPTION:
            flushed.files += job.stats["rows"]
            return
        flushed.rows += job.stats["rows"]
        flushed.texts += job.stats["texts"]
        flushed.tokens += job.stats["tokens"]

    def _count_waiting(self, flushed: FlushResult, waiting: Sequence[tuple[UUID, int]]) -> None:
        total = sum(count for _, count in waiting)
        if self._payload.job_type is JobType.MEDIA_DESCRIPTION:
            flushed.files_waiting += total
        else:
            flushed.waiting += total

    def _priced(self, flushed: FlushResult, tokens: int) -> FlushResult:
        """Add the price of the tokens of this flush."""
        price = cost(tokens, prices.of_embedding(self._provider))
        flushed.online_usd = None if price is None or flushed.online_usd is None else flushed.online_usd + price
        flushed.deferred_usd = None if flushed.online_usd is None else flushed.online_usd * DISCOUNT
        return flushed
