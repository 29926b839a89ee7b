"""A batch job on its way out: an intent is written down, filled and brought to the provider, and never sent twice.

Before a job is asked for, the intent says so; if no answer comes, the provider's own list tells whether it was made.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from uuid import UUID

from evervec import log
from evervec.domain.batch import BatchClient, JobStatus, JobType, Line, RemoteJob, RemoteState, new_intent
from evervec.errors import (
    BadInputError,
    BadResponseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitedError,
    TooLargeError,
    TransientError,
)
from evervec.pipeline.resources import Resources
from evervec.store import batches, deferred, rows, vectors
from evervec.store.batches import BatchJob, Item
from evervec.store.embeddables import BY_KIND
from evervec.store.providers import Provider
from evervec.store.rows import Claimed
from evervec.store.session import Tx

logger = log.get("batch")

STEP = 2000
"""Rows that are claimed, written down and put into the input file together."""

INTENT_SECONDS = 900.0
"""So long an intent holds its rows until it is sent: one whose process died gives them back."""

MARGIN_HOURS = 1.0
"""Rows are held so much longer than their job may take, so that its last word is heard."""

LISTED_BACK = timedelta(hours=1)
"""A provider's clock may be behind ours by so much."""

LISTINGS = 2
"""So many whole listings without an intent, and a grace period, before it is believed that no job was made."""

REFUSED_FOR_ITS_TEXTS = (BadInputError, TooLargeError, BadResponseError)

Progress = Callable[[int], None]


class NoRoomError(Exception):
    """The provider takes no more jobs for now; the rows are back in the queue."""


@dataclass
class Input:
    """An input file as it grows: at most `rows` rows, `tokens` tokens and `size` bytes."""

    client: BatchClient
    count_tokens: Callable[[Sequence[str]], list[int]]
    file: IO[bytes]
    most_rows: int
    most_tokens: int
    most_bytes: int
    rows: int = 0
    texts: int = 0
    tokens: int = 0
    size: int = 0
    full: bool = False
    keys: dict[bytes, str] = field(default_factory=dict)

    def take(self, claimed: Sequence[Claimed]) -> list[Item]:
        """Write rows down until nothing more fits; answers what is in. Rows of one text share its line. Blocking."""
        items: list[Item] = []
        for row, tokens in zip(claimed, self.count_tokens([row.text for row in claimed]), strict=True):
            key = self.keys.get(row.content_hash)
            if key is None:
                key = f"{BY_KIND[row.kind].name}:{row.row_id}"
                line = self.client.line(Line(key, row.text))
                if not self._fits(len(line), tokens):
                    self.full = True
                    break
                self.file.write(line)
                self.keys[row.content_hash] = key
                self.texts, self.tokens, self.size = self.texts + 1, self.tokens + tokens, self.size + len(line)
            items.append(Item(row.vector_id, key, row.content_hash))
        self.rows += len(items)
        self.full = self.full or self.rows >= self.most_rows
        return items

    def _fits(self, size: int, tokens: int) -> bool:
        # a text that is too much by itself has to travel alone, or it would never be sent
        return not self.texts or (self.size + size <= self.most_bytes and self.tokens + tokens <= self.most_tokens)


@dataclass(frozen=True)
class Bounds:
    """What one job may hold."""

    rows: int
    tokens: int
    bytes: int


class Submission:
    """One provider's jobs on their way out."""

    def __init__(self, resources: Resources, provider: Provider, progress: Progress | None = None) -> None:
        self._resources, self._database = resources, resources.database
        self._provider = provider
        self._client = resources.models.batch_client(provider)
        self._progress = progress
        self.reused = 0
        """Rows that got an equal text's vector, and are in no job."""

    async def submit(self, dataset_ids: Sequence[UUID], bounds: Bounds, *, tries: int) -> BatchJob | None:
        """Fill one job with what waits and send it; None when nothing was there to take.

        A job whose sending came to no end is answered as it is, `CREATED`. Raises `NoRoomError`, and a `ProviderError`
        for what a person has to mend; then nothing was sent and the rows are back.
        """
        async with self._database.read() as tx:
            intent = new_intent(await batches.tag(tx))
        async with AsyncExitStack() as closing:
            await closing.enter_async_context(self._database.advisory_lock(lock(intent)))
            path = Path(closing.enter_context(TemporaryDirectory(prefix="evervec-"))) / "input.jsonl"
            if not await self._fill(intent, path, dataset_ids, bounds, tries):
                return None
            return await self.send(await self._job(intent), path)

    async def _fill(self, intent: UUID, path: Path, dataset_ids: Sequence[UUID], bounds: Bounds, tries: int) -> bool:
        with path.open("wb") as file:
            count = self._resources.models.embedder(self._provider).count_tokens
            into = Input(self._client, count, file, bounds.rows, bounds.tokens, bounds.bytes)
            for dataset_id in dataset_ids:
                while not into.full:
                    claimed = await self._claim(intent, dataset_id, min(STEP, bounds.rows - into.rows), tries)
                    if not claimed:
                        break
                    await self._take(intent, into, claimed)
        return into.rows > 0

    async def _claim(self, intent: UUID, dataset_id: UUID, limit: int, tries: int) -> list[Claimed] | None:
        """Rows with a lease; None when there are none. What somebody has embedded already is copied, and not among them."""

        async def once(tx: Tx) -> tuple[list[Claimed], set[int]]:
            claimed = await deferred.claim(tx, dataset_id, tries=tries, limit=limit, owner=intent, lease=INTENT_SECONDS)
            return claimed, await vectors.reuse(tx, self._provider.space.id, claimed) if claimed else set()

        while True:
            claimed, reused = await self._database.in_turn(once)
            if reused:
                self.reused += len(reused)
                await self._resources.doorbell.changed({dataset_id})
                self._tell(len(reused))
            fresh = [row for row in claimed if row.vector_id not in reused]
            if fresh or not claimed:
                return fresh or None

    async def _take(self, intent: UUID, into: Input, claimed: Sequence[Claimed]) -> None:
        items = await asyncio.to_thread(into.take, claimed)
        surplus = [row.vector_id for row in claimed[len(items) :]]

        async def once(tx: Tx) -> None:
            if items:
                await self._intend(tx, intent)
                await batches.fill(tx, intent, items)
                await batches.sized(tx, intent, texts=into.texts, tokens=into.tokens, size=into.size)
            if surplus:
                await rows.release(tx, intent, surplus)

        await self._database.in_turn(once)
        self._tell(len(items))

    async def _intend(self, tx: Tx, intent: UUID) -> None:
        provider = self._provider
        await batches.add(
            tx,
            intent,
            JobType.EMBEDDING,
            provider_id=provider.id,
            space_id=provider.space.id,
            model=provider.model,
            price=provider.usd_per_million_tokens,
        )

    async def resume(self, job: BatchJob) -> BatchJob:
        """Go on with an intent that another process left behind. Called with its lock held."""
        if job.submitting_at is not None:
            return await self._adopt(job)
        with TemporaryDirectory(prefix="evervec-") as folder:
            path = Path(folder) / "input.jsonl"
            async with self._database.transaction() as tx:
                await batches.forget_lost(tx, job.id)
                await rows.renew(tx, job.id, lease=INTENT_SECONDS)
            if not await self._write_again(job, path):
                return await self._end(job, JobStatus.CANCELLED, "none of its rows waited any more; nothing was sent")
            return await self.send(job, path)

    async def _write_again(self, job: BatchJob, path: Path) -> bool:
        with path.open("wb") as file:
            embedder = self._resources.models.embedder(self._provider)
            unbounded = 2**62
            into = Input(self._client, embedder.count_tokens, file, unbounded, unbounded, unbounded)
            reached = 0
            while True:
                async with self._database.transaction() as tx:
                    held = await batches.still_held(tx, job.id, after=reached, limit=STEP)
                if not held:
                    break
                reached = held[-1].vector_id
                await asyncio.to_thread(into.take, held)
        async with self._database.transaction() as tx:
            await batches.sized(tx, job.id, texts=into.texts, tokens=into.tokens, size=into.size)
        return into.texts > 0

    async def send(self, job: BatchJob, path: Path) -> BatchJob:
        """Upload an input file and ask for its job. Called with the job's lock held."""
        try:
            file = await self._client.upload(job.id, path)
        except ProviderError as error:
            return await self._not_sent(job, error)
        hours = self._resources.settings.batch_hours
        async with self._database.transaction() as tx:
            await batches.uploaded(tx, job.id, file)
            await deferred.hold_until(tx, job.id, hours=hours + MARGIN_HOURS)
            await batches.submitting(tx, job.id, hours=hours)
        return await self._create(job, file)

    async def _create(self, job: BatchJob, file: str) -> BatchJob:
        try:
            if job.job_type is JobType.MEDIA_DESCRIPTION:
                remote = await self._client.describe_media(job.id, file)
            else:
                remote = await self._client.create_embedding_job(job.id, file)
        except TransientError as error:
            logger.warning("no answer to a job", job=str(job.id), error=str(error))
            return await self._adopt(await self._job(job.id), error)
        except ProviderError as error:
            async with self._database.transaction() as tx:
                await batches.not_sent(tx, job.id)
            return await self._not_sent(job, error)
        return await self._submitted(job, remote)

    async def _submitted(self, job: BatchJob, remote: RemoteJob) -> BatchJob:
        async with self._database.transaction() as tx:
            await batches.submitted(tx, job.id, remote.external_id)
        return await self._job(job.id)

    async def _adopt(self, job: BatchJob, unanswered: ProviderError | None = None) -> BatchJob:
        """Find the job that carries this intent; the oldest is kept, others are cancelled. If there is none for long
        enough, it is asked for again."""
        try:
            found = await self._listed(job)
        except ProviderError as error:
            logger.warning("jobs not listed", job=str(job.id), error=str(error))
            return job
        if found:
            job = await self._submitted(job, found[0])
            for twin in found[1:]:
                await self._cancel_twin(job, twin)
            return job
        async with self._database.transaction() as tx:
            listings, seconds = await batches.not_listed(tx, job.id)
        # the answer may be lost before the job is listed: the one that has just failed is no reason to ask again
        if unanswered is None and listings >= LISTINGS and seconds >= self._resources.settings.batch_grace_seconds:
            async with self._database.transaction() as tx:
                await batches.not_sent(tx, job.id)
            return await self.resume(await self._job(job.id))
        return await self._job(job.id)

    async def _cancel_twin(self, job: BatchJob, twin: RemoteJob) -> None:
        logger.warning("a second job of one intent is cancelled", job=str(job.id), external_id=twin.external_id)
        try:
            await self._client.cancel(twin.external_id)
        except ProviderError as error:
            # it is found again when the remains are removed
            logger.warning("it could not be cancelled", external_id=twin.external_id, error=str(error))

    async def _listed(self, job: BatchJob) -> list[RemoteJob]:
        """The jobs of an intent, oldest first; a cancelled one counts only where there is no other."""
        assert job.submitting_at is not None
        since = job.submitting_at - LISTED_BACK
        found = [one async for one in self._client.jobs(since) if one.intent == job.id]
        found.reverse()
        return [one for one in found if one.state is not RemoteState.CANCELLED] or found[:1]

    async def _not_sent(self, job: BatchJob, error: ProviderError) -> BatchJob:
        """For sure there is no job. What is only away is tried again; what was refused gives its rows back."""
        match error:
            case TransientError():
                logger.warning("job not sent yet", job=str(job.id), error=str(error))
                return await self._job(job.id)
            case RateLimitedError() | QuotaExhaustedError():
                await self._end(job, JobStatus.CANCELLED, f"no room at the provider, nothing was sent: {error}")
                raise NoRoomError(str(error)) from error
            case BadInputError() | TooLargeError() | BadResponseError():
                return await self._end(job, JobStatus.FAILED, str(error), refused=error)
            case _:
                await self._end(job, JobStatus.CANCELLED, f"nothing was sent: {error}")
                raise error

    async def _end(
        self, job: BatchJob, status: JobStatus, reason: str, refused: ProviderError | None = None
    ) -> BatchJob:
        """An intent that comes to nothing: its rows go back, by one rung if it was their texts that were refused."""
        hours = self._resources.settings.batch_hours
        async with self._database.transaction() as tx:
            while left := await batches.left(tx, job.id, limit=50_000):
                ids = [item.vector_id for item in left]
                if refused is None:
                    await rows.release(tx, job.id, ids)
                else:
                    await deferred.give_back(
                        tx, job.id, ids, hours=hours, online=False, code=refused.code, error=reason
                    )
                await batches.settle(tx, job.id, ids, returned=len(ids))
            await batches.finish(tx, job.id, status, said=None, error=reason)
        logger.warning("job given up", job=str(job.id), status=str(status), reason=reason)
        return await self._job(job.id)

    async def _job(self, job_id: UUID) -> BatchJob:
        async with self._database.read() as tx:
            return await batches.by_id(tx, job_id)

    def _tell(self, count: int) -> None:
        if self._progress is not None:
            self._progress(count)


def lock(job_id: UUID) -> str:
    """The name of the lock that whoever works on a job holds."""
    return f"batch:{job_id}"
