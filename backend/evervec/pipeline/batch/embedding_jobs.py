"""The payload of embedding jobs: rows are claimed with a lease and sent, vectors written where the text is still the same."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import IO
from uuid import UUID

import numpy as np

from evervec.domain.batch import BatchClient, JobType, Line, RemoteJob, Results
from evervec.domain.protocols import Vectors
from evervec.domain.vectors import check_distinct, check_vectors
from evervec.errors import BadResponseError, TooLargeError
from evervec.pipeline.batch.payload import BAD_INPUT, UNBOUNDED, Bounds, Intent, ReturnReason, Unanswered
from evervec.pipeline.budget import prices
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord, InputFileSize, JobRow
from evervec.store.database.session import ReadTx, Tx
from evervec.store.embeddings import rows, vectors
from evervec.store.embeddings.rows import ClaimedRow, FailedRow
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import BY_KIND

ROWS_CLAIMED = 2000
"""Rows that are claimed and written into the input file together."""

INTENT_SECONDS = 900.0
"""Lease of an intent on its rows until it is sent: when its process dies, they become free after it."""

MARGIN_HOURS = 1.0
"""Rows stay claimed longer than their job may take, so that its last poll can still save results."""

CHARACTERS_A_TOKEN = 4


@dataclass
class EmbeddingInput:
    """An input file of texts that is being written, within its bounds."""

    client: BatchClient
    count_tokens: Callable[[Sequence[str]], list[int]]
    file: IO[bytes]
    bounds: Bounds
    rows: int = 0
    texts: int = 0
    tokens: int = 0
    characters: int = 0
    size: int = 0
    full: bool = False
    keys: dict[bytes, str] = field(default_factory=dict)
    text_tokens: int | None = None
    too_long: list[int] = field(default_factory=list)
    """Vector ids of texts that have more tokens than the model takes: only online they are embedded in windows, or refused."""

    def add(self, claimed: Sequence[ClaimedRow]) -> list[JobRow]:
        """Write rows until no more fit; return what is in. Rows of one text share its line. Blocks."""
        items: list[JobRow] = []
        for row, tokens in zip(claimed, self.count_tokens([row.text for row in claimed]), strict=True):
            if self.text_tokens is not None and tokens > self.text_tokens:
                self.too_long.append(row.vector_id)
                continue
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
                self.characters += len(row.text)
            items.append(JobRow(row.vector_id, key, row.content_hash))
        self.rows += len(items)
        self.full = self.full or self.rows >= self.bounds.rows
        return items

    def total_size(self) -> InputFileSize:
        """Return what is in the file: the tokens that a price is made of are estimated, those for the bounds counted high."""
        return InputFileSize(self.texts, ceil(self.characters / CHARACTERS_A_TOKEN), self.tokens, self.size)

    def _fits(self, size: int, tokens: int) -> bool:
        # a text that alone exceeds the bounds is sent alone, or it would never be sent
        most = self.bounds
        return not self.texts or (self.size + size <= most.bytes and self.tokens + tokens <= most.tokens)


@dataclass
class _Piece:
    """What one piece of results means for which rows."""

    write: list[JobRow] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    failed: list[FailedRow] = field(default_factory=list)
    to_return: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    strays: int = 0

    def return_rows(self, rows_of_key: Sequence[JobRow], code: str, message: str) -> None:
        """Note rows that go back to the queue, by the reason."""
        if rows_of_key:
            self.to_return.setdefault((code, message), []).extend(row.vector_id for row in rows_of_key)


class EmbeddingPayload:
    """The payload of `EMBEDDING` jobs: whatever waits in a space, or only the rows that are marked for batch jobs."""

    job_type = JobType.EMBEDDING

    def __init__(self, resources: Resources, space_id: int, *, marked_only: bool = False) -> None:
        self._resources, self._database = resources, resources.database
        self._space_id, self._marked_only = space_id, marked_only
        self._hours = resources.settings.batch_hours

    def using(self, resources: Resources) -> "EmbeddingPayload":
        """Return the same payload with other resources."""
        return EmbeddingPayload(resources, self._space_id, marked_only=self._marked_only)

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """Return the free rows by dataset."""
        return await batch_queue.waiting(tx, scope, space_id=self._space_id, tries=tries, marked=self._marked_only)

    async def waiting_size(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """Estimate tokens from the length of the texts."""
        characters = await batch_queue.characters(tx, scope, space_id=self._space_id, marked=self._marked_only)
        return ceil(characters / CHARACTERS_A_TOKEN), 0

    # --- submission ----------------------------------------------------------------------------------------------

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """Claim rows and write their lines; a vector that an equal text has already is copied, and needs no line."""
        with intent.path.open("wb") as file:
            count = self._resources.clients.embedder(intent.provider).count_tokens
            longest = intent.provider.space.text_tokens
            into = EmbeddingInput(intent.client, count, file, intent.bounds, text_tokens=longest)
            for dataset_id in dataset_ids:
                while not into.full:
                    claimed = await self._claim(intent, dataset_id, min(ROWS_CLAIMED, intent.bounds.rows - into.rows))
                    if not claimed:
                        break
                    await self._add(intent, into, claimed)
        return into.rows > 0

    async def _claim(self, intent: Intent, dataset_id: UUID, limit: int) -> list[ClaimedRow] | None:
        """Claim rows; return None when there are none."""

        async def once(tx: Tx) -> tuple[list[ClaimedRow], set[int]]:
            claimed = await batch_queue.claim(
                tx,
                dataset_id,
                space_id=intent.provider.space.id,
                tries=intent.tries,
                limit=limit,
                owner=intent.id,
                lease=INTENT_SECONDS,
                marked=self._marked_only,
            )
            return claimed, await vectors.reuse(tx, intent.provider.space.id, claimed) if claimed else set()

        while True:
            claimed, reused = await self._database.with_retries(once)
            if reused:
                intent.reused += len(reused)
                await self._resources.doorbell.changed({dataset_id})
                intent.tell(len(reused))
            fresh = [row for row in claimed if row.vector_id not in reused]
            if fresh or not claimed:
                return fresh or None

    async def _add(self, intent: Intent, into: EmbeddingInput, claimed: Sequence[ClaimedRow]) -> None:
        items = await asyncio.to_thread(into.add, claimed)
        too_long, into.too_long = into.too_long, []
        taken = {item.vector_id for item in items}.union(too_long)
        surplus = [row.vector_id for row in claimed if row.vector_id not in taken]
        provider = intent.provider

        async def once(tx: Tx) -> None:
            if items:
                await batch_jobs.add(
                    tx,
                    intent.id,
                    self.job_type,
                    provider_id=provider.id,
                    space_id=provider.space.id,
                    model=provider.model,
                    price=prices.of_embedding(provider),
                    hours=self._hours,
                )
                await batch_jobs.add_items(tx, intent.id, items)
                await batch_jobs.record_size(tx, intent.id, into.total_size())
            if surplus:
                await rows.release(tx, intent.id, surplus)
            if too_long:
                why = f"the text has more than the {into.text_tokens:,} tokens that the model takes, so it is embedded online"
                await batch_queue.return_rows(
                    tx, intent.id, too_long, hours=self._hours, online=True, code=TooLargeError.code, error=why
                )

        await self._database.with_retries(once)
        intent.tell(len(items))

    async def rewrite(self, job: BatchJobRecord, intent: Intent) -> bool:
        """Write the lines of rows that the intent still has claimed and whose text is the same."""
        async with self._database.transaction() as tx:
            await batch_jobs.drop_lost(tx, job.id)
            await rows.renew(tx, job.id, lease=INTENT_SECONDS)
        with intent.path.open("wb") as file:
            embedder = self._resources.clients.embedder(intent.provider)
            into = EmbeddingInput(intent.client, embedder.count_tokens, file, Bounds(UNBOUNDED, UNBOUNDED, UNBOUNDED))
            reached = 0
            while True:
                async with self._database.transaction() as tx:
                    leased = await batch_jobs.leased_rows(tx, job.id, after=reached, limit=ROWS_CLAIMED)
                if not leased:
                    break
                reached = leased[-1].vector_id
                await asyncio.to_thread(into.add, leased)
        async with self._database.transaction() as tx:
            await batch_jobs.record_size(tx, job.id, into.total_size())
        return into.texts > 0

    async def extend_claims(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """Extend the leases, by a margin more; return False when a row of the job is lost."""
        await batch_queue.extend_leases(tx, job_id, hours=hours + MARGIN_HOURS)
        return not await batch_jobs.has_lost(tx, job_id)

    async def create_job(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """Request a job that embeds."""
        return await client.create_embedding_job(intent, file)

    # --- collection ----------------------------------------------------------------------------------------------

    async def is_wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Return whether any row still waits for the vector of the text that was sent."""
        return await batch_jobs.is_wanted(tx, job_id)

    def dimensions(self, provider: Provider) -> int | None:
        """Return the width of the space."""
        return provider.space.dimensions

    async def save_results(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Write vectors, mark rows as failed, or return them to the queue."""
        async with self._database.read() as tx:
            keys = [*results.keys, *(key for key, _, _ in results.errors)]
            found = await batch_jobs.items(tx, job_id, keys)
        piece, answer = _match(results, found, provider)
        changed = await self._database.with_retries(lambda tx: self._save(tx, job_id, provider.space.id, piece, answer))
        await self._resources.doorbell.changed(changed)

    async def _save(self, tx: Tx, job_id: UUID, space_id: int, piece: _Piece, answer: Vectors) -> set[UUID]:
        """Save one piece of results and settle its items in one transaction; return the datasets with new vectors."""
        written = await vectors.update_vectors_bulk(tx, space_id, piece.write, answer) if piece.write else set()
        dropped = [item.vector_id for item in piece.write if item.vector_id not in written]
        if dropped:
            await rows.release(tx, job_id, dropped)
        failed = await rows.give_up(tx, job_id, piece.failed)
        edited = len(piece.failed) - failed
        if edited:
            await rows.release(tx, job_id, [one.vector_id for one in piece.failed])
        returned = [vector_id for ids in piece.to_return.values() for vector_id in ids]
        for (code, message), ids in piece.to_return.items():
            await batch_queue.return_rows(tx, job_id, ids, hours=self._hours, online=False, code=code, error=message)
        settled = [item.vector_id for item in piece.write]
        settled += [one.vector_id for one in piece.failed] + returned
        await batch_jobs.settle_items(
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

    async def return_items(self, tx: Tx, job_id: UUID, reason: ReturnReason | None) -> None:
        """Return rows to the queue: the first time for a smaller job, then to be embedded online."""
        while left := await batch_jobs.unanswered(tx, job_id, limit=50_000):
            ids = [item.vector_id for item in left]
            if reason is None:
                await rows.release(tx, job_id, ids)
            else:
                await batch_queue.return_rows(
                    tx, job_id, ids, hours=self._hours, online=reason.online, code=reason.code, error=reason.error
                )
            await batch_jobs.settle_items(tx, job_id, ids, returned=len(ids))


def _match(results: Results, found: Sequence[JobRow], provider: Provider) -> tuple[_Piece, Vectors]:
    """Match rows with their answers; return also the vectors to write, one for each row of `write`."""
    unanswered, piece, dimensions = Unanswered(found, results.garbled), _Piece(), provider.space.dimensions
    answer = results.vectors
    if answer is None or not len(answer):
        answer = np.empty((0, dimensions), dtype=np.float32)
    valid = check_vectors(answer, count=len(results.keys), dimensions=dimensions, provider=provider.name)
    invalid = BadResponseError(provider.name, "the vector is not finite, or zero")
    try:
        check_distinct(answer, provider=provider.name)
    except BadResponseError as same:
        invalid, valid = same, np.zeros_like(valid)
    for position, key in enumerate(results.keys):
        rows_of_key = unanswered.take(key)
        if valid[position]:
            piece.write += rows_of_key
            piece.positions += [position] * len(rows_of_key)
        else:
            piece.return_rows(rows_of_key, invalid.code, str(invalid))
    for key, code, message in results.errors:
        rows_of_key = unanswered.take(key)
        if code in BAD_INPUT:
            piece.failed += [FailedRow(row.vector_id, row.content_hash, code, message[:500]) for row in rows_of_key]
        else:
            piece.return_rows(rows_of_key, code, message)
    piece.strays = unanswered.strays
    return piece, answer[piece.positions]
