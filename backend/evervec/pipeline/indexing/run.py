"""One index run: documents are listed or looked up, compared, chunked and written, and their new chunks embedded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from evervec.domain.documents.document import ListedDocument, SkippedDocument, SourceReader
from evervec.domain.spending import cost
from evervec.domain.vendors import BATCH_TYPES
from evervec.errors import EmptySourceError
from evervec.pipeline.budget import prices
from evervec.pipeline.chunking import ChunkedDocument, Chunker, lock_dataset
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_dataset, embed_rows
from evervec.pipeline.indexing.plan import ChangePlan, Planner
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_CHUNKS, Lane
from evervec.store import documents, runs
from evervec.store.database.session import Database, Tx
from evervec.store.documents import WriteResult
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.runs import RunCounts, RunRecord
from evervec.store.schema.embeddables import CHUNK

IDS_TOGETHER = 500
"""Ids that are handled together: named records, chunks to ring for, documents to remove."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that the caller waits for. `checksum` reads every file instead of trusting its stamp.

    `dry` counts what would be done and writes nothing; the texts to send are counted as if no vector were reused.
    `allow_empty` removes all documents of a place that is empty now, and lets a full run forget a missing folder or file.
    `planned` is given the texts that a dry run would send.
    """

    checksum: bool = False
    dry: bool = False
    allow_empty: bool = False
    planned: Callable[[Sequence[str]], None] | None = None

    def forgets_missing(self, mode: str) -> bool:
        """Return whether a run of this mode forgets folders and files that do not exist any more."""
        return self.allow_empty and mode == "full"


class Indexing:
    """One index run. The changes of a batch, its counts and its cursor are written in one transaction of `database`, that of its lease."""

    def __init__(
        self,
        resources: Resources,
        run: RunRecord,
        source: SourceReader,
        chunker: Chunker,
        options: RunOptions,
        progress: Progress | None = None,
        *,
        database: Database | None = None,
    ) -> None:
        # embedding goes without: its rows have leases of their own, and what is paid for is written
        self._resources, self._database = resources, database or resources.database
        self._run, self._source, self._chunker = run, source, chunker
        self._planner = Planner(self._database, run.dataset_id, source, self._clock)
        self._options, self._progress = options, progress
        self._embedding: asyncio.Task[None] | None = None

    async def perform(self) -> None:
        """Index everything, or the named ids; a full run then removes what is gone.

        Raises what the source raises, and `DatasetGone`. What was committed before stays.
        """
        started, before = perf_counter(), self._run.seconds.total
        try:
            async for batch in self._batches():
                await self._index(batch)
                self._run.seconds.total = before + perf_counter() - started
            if self._run.mode == "full":
                await self._remove_gone()
            if not self._options.dry:
                await self._embed_rest()
                await self._count_full_run()
        finally:
            if self._embedding is not None:
                self._embedding.cancel()
                await asyncio.gather(self._embedding, return_exceptions=True)
            self._run.seconds.total = before + perf_counter() - started
            self._price()

    async def _batches(self) -> AsyncIterator[Sequence[ListedDocument | SkippedDocument]]:
        if self._run.changed is None:
            listing = self._source.listing(after=self._run.cursor)
            while (batch := await self._next(listing)) is not None:
                if batch:
                    yield batch
            return
        named = await asyncio.to_thread(self._source.named, self._run.changed)
        uris = sorted(uri for uri in named if self._run.cursor is None or uri > self._run.cursor)
        for start in range(0, len(uris), IDS_TOGETHER):
            yield [ListedDocument(uri) for uri in uris[start : start + IDS_TOGETHER]]

    async def _next(
        self, listing: AsyncIterator[list[ListedDocument | SkippedDocument]]
    ) -> list[ListedDocument | SkippedDocument] | None:
        with self._clock("list"):
            return await anext(listing, None)

    async def _index(self, batch: Sequence[ListedDocument | SkippedDocument]) -> None:
        """Read and chunk what changed while nothing is locked, then write it in one transaction."""
        plan = await self._planner.plan(batch)
        if not plan.writes():
            self._run.advance(plan.cursor, plan.counts, plan.skipped)
        else:
            with self._clock("chunk"):
                chunked = await asyncio.to_thread(self._chunker.chunk, plan.changed)
            if self._options.dry:
                await self._preview(plan, chunked)
            else:
                with self._clock("write"):
                    written = await self._write(plan, chunked)
                await self._embed_or_ring(written.pending)
        if self._progress is not None:
            self._progress(len(batch))

    async def _write(self, plan: ChangePlan, chunked: Sequence[ChunkedDocument]) -> WriteResult:
        async def once(tx: Tx) -> WriteResult:
            written = await self._apply(tx, plan, chunked)
            # in a copy: the transaction may have to be repeated, and embedding counts meanwhile what it sends
            run = self._run.copy()
            run.advance(plan.cursor, plan.counts + written.counts, plan.skipped)
            await runs.save(tx, run)
            return written

        written = await self._database.with_retries(once)
        self._run.advance(plan.cursor, plan.counts + written.counts, plan.skipped)
        return written

    async def _preview(self, plan: ChangePlan, chunked: Sequence[ChunkedDocument]) -> None:
        async with self._database.read() as tx:
            written = await documents.preview(tx, self._run.dataset_id, chunked, self._chunker.provider.space.id)
        if self._options.planned is not None:
            self._options.planned(written.texts)
        counts = RunCounts(documents_moved=len(plan.moved), documents_deleted=len(plan.gone))
        counts.chunks_deleted = sum(one.chunk_count for one in plan.gone)
        counts.texts_sent, counts.tokens = len(written.pending), sum(written.pending.values())
        self._run.advance(plan.cursor, plan.counts + written.counts + counts, plan.skipped)

    async def _apply(self, tx: Tx, plan: ChangePlan, chunked: Sequence[ChunkedDocument]) -> WriteResult:
        await lock_dataset(tx, self._run.dataset_id)
        if plan.touched:
            await documents.save_stamps(tx, plan.touched)
        if plan.moved:
            await documents.move(tx, plan.moved)
        deferred = self._run.deferred and self._chunker.provider.type in BATCH_TYPES
        hours = self._resources.settings.batch_hours if deferred else None
        written = await self._chunker.write(tx, self._run.dataset_id, chunked, batch_hours=hours)
        written.counts += RunCounts(documents_moved=len(plan.moved))
        if plan.gone:
            written.counts += await documents.remove(tx, [one.id for one in plan.gone])
        return written

    async def _remove_gone(self) -> None:
        """Remove the documents of this source that a complete listing does not have; an incomplete one has raised before."""
        listed: set[str] = set()
        with self._clock("list"):
            async for uris in self._source.uris():
                listed.update(uris)
        gone: dict[int, str] = {}
        async with self._database.read() as tx:
            async for batch in documents.every(tx, self._run.dataset_id):
                gone.update((row_id, uri) for row_id, uri in batch if uri not in listed and self._source.owns(uri))
        if not self._options.allow_empty:
            self._require_not_empty(listed, gone)
        if self._options.dry:
            self._run.counts.documents_deleted += len(gone)
            return
        ids = list(gone)
        with self._clock("write"):
            for start in range(0, len(ids), IDS_TOGETHER):
                self._run.counts += await self._database.with_retries(
                    partial(self._remove, ids[start : start + IDS_TOGETHER])
                )

    def _require_not_empty(self, listed: set[str], gone: Mapping[int, str]) -> None:
        """Raise `EmptySourceError` for a folder that had documents and is empty now: it may not be mounted."""
        dataset = self._run.dataset_id
        if gone and not listed:
            raise EmptySourceError(where=self._source.where, count=len(gone), dataset=dataset)
        for folder in self._source.folders:
            lost = sum(uri.startswith(folder) for uri in gone.values())
            if lost and not any(uri.startswith(folder) for uri in listed):
                raise EmptySourceError(where=folder, count=lost, dataset=dataset)

    async def _remove(self, document_ids: Sequence[int], tx: Tx) -> RunCounts:
        await lock_dataset(tx, self._run.dataset_id)
        return await documents.remove(tx, document_ids)

    async def _embed_or_ring(self, pending: Mapping[int, int]) -> None:
        """Embed new chunks while the next batch is read, or ring for the workers, or leave them to batch jobs."""
        if not pending or self._run.deferred:
            return
        if self._run.embeds:
            await self._embedding_done()
            self._embedding = asyncio.create_task(self._embed(pending))
            return
        lane = Lane.INTERACTIVE if self._run.mode == "delta" else Lane.BACKFILL
        ids = list(pending)
        for start in range(0, len(ids), IDS_TOGETHER):
            await self._resources.doorbell.ring(
                EMBED_CHUNKS,
                of=self._run.dataset_id,
                lane=lane,
                chunk_ids=ids[start : start + IDS_TOGETHER],
                provider_id=None,
            )

    async def _embed(self, pending: Mapping[int, int]) -> None:
        with self._clock("embed"):
            counts = await embed_rows(self._resources, CHUNK, list(pending), sent=partial(self._sent, pending))
        self._embedded(counts)

    def _sent(self, tokens: Mapping[int, int], texts: Sequence[ClaimedRow]) -> None:
        self._run.counts.requests += 1
        self._run.counts.texts_sent += len(texts)
        self._run.counts.tokens += sum(tokens.get(row.row_id, 0) for row in texts)

    def _embedded(self, counts: EmbedCounts) -> None:
        self._run.counts.embeddings_generated += counts.success - counts.reused
        self._run.counts.embeddings_reused += counts.reused

    async def _embedding_done(self) -> None:
        embedding, self._embedding = self._embedding, None
        if embedding is not None:
            await embedding

    async def _embed_rest(self) -> None:
        """Embed what is left, also of a run whose process died."""
        await self._embedding_done()
        if not self._run.embeds:
            return
        left: list[int] = []

        def sent(texts: Sequence[ClaimedRow]) -> None:
            left.extend(row.row_id for row in texts)
            self._sent({}, texts)

        with self._clock("embed"):
            self._embedded(await embed_dataset(self._resources, self._run.dataset_id, kind=CHUNK.kind, sent=sent))
        if left:
            async with self._database.read() as tx:
                self._run.counts.tokens += await documents.tokens_of(tx, left)

    async def _count_full_run(self) -> None:
        """Count what would have been sent if every chunk were embedded again."""
        async with self._database.read() as tx:
            totals = await documents.totals(tx, self._run.dataset_id, self._chunker.provider.space.id)
        self._run.counts.full_texts, self._run.counts.full_tokens = totals.chunks, totals.tokens

    def _price(self) -> None:
        price, counts = prices.of_embedding(self._chunker.provider), self._run.counts
        self._run.cost_usd, self._run.full_cost_usd = cost(counts.tokens, price), cost(counts.full_tokens, price)

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            seconds = self._run.seconds
            setattr(seconds, stage, getattr(seconds, stage) + perf_counter() - started)
