"""What jobs that embed carry: rows held by a lease on their way out, vectors written where the text is still the same."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import IO
from uuid import UUID

import numpy as np

from evervec.domain.batch import BatchClient, JobType, Line, RemoteJob, Results
from evervec.domain.protocols import Vectors
from evervec.domain.vectors import check_vectors
from evervec.errors import BadResponseError
from evervec.pipeline.batch.payload import BAD_INPUT, UNBOUNDED, Bounds, Intent, ReturnReason
from evervec.pipeline.resources import Resources
from evervec.store import rows, vectors
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord, InputFileSize, JobRow
from evervec.store.providers import Provider
from evervec.store.rows import ClaimedRow, FailedRow
from evervec.store.schema.embeddables import BY_KIND
from evervec.store.session import ReadTx, Tx

ROWS_CLAIMED = 2000
"""Rows that are claimed, written down and put into the input file together."""

INTENT_SECONDS = 900.0
"""So long an intent holds its rows until it is sent: one whose process died gives them back."""

MARGIN_HOURS = 1.0
"""Rows are held so much longer than their job may take, so that its last word is heard."""

CHARACTERS_A_TOKEN = 4


@dataclass
class EmbeddingInput:
    """An input file as it grows, within its bounds."""

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

    def take(self, claimed: Sequence[ClaimedRow]) -> list[JobRow]:
        """Write rows down until nothing more fits; answers what is in. Rows of one text share its line. Blocking."""
        items: list[JobRow] = []
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
                self.characters += len(row.text)
            items.append(JobRow(row.vector_id, key, row.content_hash))
        self.rows += len(items)
        self.full = self.full or self.rows >= self.bounds.rows
        return items

    def weight(self) -> InputFileSize:
        """What is in the file. Bounds are kept by tokens that are counted on the high side, a price is not made of those."""
        return InputFileSize(self.texts, ceil(self.characters / CHARACTERS_A_TOKEN), self.tokens, self.size)

    def _fits(self, size: int, tokens: int) -> bool:
        # a text that is too much by itself has to travel alone, or it would never be sent
        most = self.bounds
        return not self.texts or (self.size + size <= most.bytes and self.tokens + tokens <= most.tokens)


@dataclass
class _Piece:
    """What one piece of results does to which rows."""

    write: list[JobRow] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    give_up: list[FailedRow] = field(default_factory=list)
    give_back: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    strays: int = 0


class EmbeddingPayload:
    """The load of `EMBEDDING` jobs: whatever waits, or with `kept` only what was put into the batch lane."""

    job_type = JobType.EMBEDDING

    def __init__(self, resources: Resources, *, kept: bool = False) -> None:
        self._resources, self._database, self._kept = resources, resources.database, kept
        self._hours = resources.settings.batch_hours

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """Rows that nobody holds."""
        return await batch_queue.waiting(tx, scope, tries=tries, marked=self._kept)

    async def weight(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """Tokens, estimated from the length of the texts."""
        return ceil(await batch_queue.characters(tx, scope, marked=self._kept) / CHARACTERS_A_TOKEN), 0

    # --- out -----------------------------------------------------------------------------------------------------

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """Rows with a lease; what somebody has embedded already is copied, and needs no line."""
        with intent.path.open("wb") as file:
            count = self._resources.clients.embedder(intent.provider).count_tokens
            into = EmbeddingInput(intent.client, count, file, intent.bounds)
            for dataset_id in dataset_ids:
                while not into.full:
                    claimed = await self._claim(intent, dataset_id, min(ROWS_CLAIMED, intent.bounds.rows - into.rows))
                    if not claimed:
                        break
                    await self._take(intent, into, claimed)
        return into.rows > 0

    async def _claim(self, intent: Intent, dataset_id: UUID, limit: int) -> list[ClaimedRow] | None:
        """Rows with a lease; None when there are none."""

        async def once(tx: Tx) -> tuple[list[ClaimedRow], set[int]]:
            claimed = await batch_queue.claim(
                tx,
                dataset_id,
                tries=intent.tries,
                limit=limit,
                owner=intent.id,
                lease=INTENT_SECONDS,
                marked=self._kept,
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

    async def _take(self, intent: Intent, into: EmbeddingInput, claimed: Sequence[ClaimedRow]) -> None:
        items = await asyncio.to_thread(into.take, claimed)
        surplus = [row.vector_id for row in claimed[len(items) :]]
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
                    price=provider.usd_per_million_tokens,
                    hours=self._hours,
                )
                await batch_jobs.add_items(tx, intent.id, items)
                await batch_jobs.record_size(tx, intent.id, into.weight())
            if surplus:
                await rows.release(tx, intent.id, surplus)

        await self._database.with_retries(once)
        intent.tell(len(items))

    async def rewrite(self, job: BatchJobRecord, intent: Intent) -> bool:
        """Rows whose lease is still the intent's, and whose text is the same."""
        async with self._database.transaction() as tx:
            await batch_jobs.drop_lost(tx, job.id)
            await rows.renew(tx, job.id, lease=INTENT_SECONDS)
        with intent.path.open("wb") as file:
            embedder = self._resources.clients.embedder(intent.provider)
            into = EmbeddingInput(intent.client, embedder.count_tokens, file, Bounds(UNBOUNDED, UNBOUNDED, UNBOUNDED))
            reached = 0
            while True:
                async with self._database.transaction() as tx:
                    held = await batch_jobs.leased_rows(tx, job.id, after=reached, limit=ROWS_CLAIMED)
                if not held:
                    break
                reached = held[-1].vector_id
                await asyncio.to_thread(into.take, held)
        async with self._database.transaction() as tx:
            await batch_jobs.record_size(tx, job.id, into.weight())
        return into.texts > 0

    async def hold(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """By the lease, and a margin."""
        await batch_queue.extend_leases(tx, job_id, hours=hours + MARGIN_HOURS)
        return not await batch_jobs.has_lost(tx, job_id)

    async def create(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """A job that embeds."""
        return await client.create_embedding_job(intent, file)

    # --- back ----------------------------------------------------------------------------------------------------

    async def wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Whether any row still waits for the vector of the text that was sent."""
        return await batch_jobs.is_wanted(tx, job_id)

    def width(self, provider: Provider) -> int | None:
        """That of the space."""
        return provider.space.dimensions

    async def apply(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Vectors are written, and rows given up or given back."""
        async with self._database.read() as tx:
            keys = [*results.keys, *(key for key, _, _ in results.errors)]
            found = await batch_jobs.items(tx, job_id, keys)
        piece, answer = _sorted(results, found, provider)
        changed = await self._database.with_retries(
            lambda tx: self._settle(tx, job_id, provider.space.id, piece, answer)
        )
        await self._resources.doorbell.changed(changed)

    async def _settle(self, tx: Tx, job_id: UUID, space_id: int, piece: _Piece, answer: Vectors) -> set[UUID]:
        """One transaction: vectors, failures and what goes back, and the items struck off. Answers the changed datasets."""
        written = await vectors.update_vectors_bulk(tx, space_id, piece.write, answer) if piece.write else set()
        dropped = [item.vector_id for item in piece.write if item.vector_id not in written]
        if dropped:
            await rows.release(tx, job_id, dropped)
        failed = await rows.give_up(tx, job_id, piece.give_up)
        edited = len(piece.give_up) - failed
        if edited:
            await rows.release(tx, job_id, [one.vector_id for one in piece.give_up])
        returned = [vector_id for ids in piece.give_back.values() for vector_id in ids]
        for (code, message), ids in piece.give_back.items():
            await batch_queue.return_rows(tx, job_id, ids, hours=self._hours, online=False, code=code, error=message)
        settled = [item.vector_id for item in piece.write]
        settled += [one.vector_id for one in piece.give_up] + returned
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

    async def give_back(self, tx: Tx, job_id: UUID, why: ReturnReason | None) -> None:
        """The first time for a smaller job, then for online."""
        while left := await batch_jobs.unanswered(tx, job_id, limit=50_000):
            ids = [item.vector_id for item in left]
            if why is None:
                await rows.release(tx, job_id, ids)
            else:
                await batch_queue.return_rows(
                    tx, job_id, ids, hours=self._hours, online=why.online, code=why.code, error=why.error
                )
            await batch_jobs.settle_items(tx, job_id, ids, returned=len(ids))


def _sorted(results: Results, found: Sequence[JobRow], provider: Provider) -> tuple[_Piece, Vectors]:
    """Every row with what was answered for it. The first answer to a key is the one that counts."""
    waiting: dict[str, list[JobRow]] = {}
    for item in found:
        waiting.setdefault(item.key, []).append(item)
    piece, dimensions = _Piece(strays=results.garbled), provider.space.dimensions
    answer = results.vectors
    if answer is None or not len(answer):
        answer = np.empty((0, dimensions), dtype=np.float32)
    sound = check_vectors(answer, count=len(results.keys), dimensions=dimensions, provider=provider.name)
    for place, key in enumerate(results.keys):
        items = waiting.pop(key, None)
        if items is None:
            piece.strays += 1
        elif sound[place]:
            piece.write += items
            piece.places += [place] * len(items)
        else:
            unsound = BadResponseError(provider.name, "the vector is not finite, or zero")
            _return(piece, items, unsound.code, str(unsound))
    for key, code, message in results.errors:
        items = waiting.pop(key, None)
        if items is None:
            piece.strays += 1
        elif code in BAD_INPUT:
            piece.give_up += [FailedRow(item.vector_id, item.content_hash, code, message[:500]) for item in items]
        else:
            _return(piece, items, code, message)
    return piece, answer[piece.places]


def _return(piece: _Piece, items: Sequence[JobRow], code: str, message: str) -> None:
    piece.give_back.setdefault((code, message), []).extend(item.vector_id for item in items)
