"""One index run at work: what is listed or named is read, chunked, compared and written, and its new texts embedded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from evervec.domain.document import IncomingDocument, ListedDocument, SkippedDocument, SourceReader
from evervec.errors import EmptySourceError
from evervec.pipeline.chunking import ChunkedDocument, Chunker, lock_dataset
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import embed_dataset, embed_rows
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_CHUNKS, Lane
from evervec.store import documents, runs
from evervec.store.documents import StoredDocument, WriteResult
from evervec.store.rows import ClaimedRow
from evervec.store.runs import RunCounts, RunRecord
from evervec.store.schema.embeddables import CHUNK
from evervec.store.session import Tx

IDS_TOGETHER = 500
"""Named records that are looked up together, chunks that are rung for together, gone documents that go together."""

GONE = "gone"

LONGEST_URI = 2000
"""Characters: an index of PostgreSQL takes 2,704 bytes."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class RunOptions:
    """What only a run that somebody waits for can be told. `checksum` reads every file instead of trusting its stamp.

    `dry` counts what would be done and writes nothing: what it would send is counted as if nothing were reused.
    `allow_empty` lets everything go that came from a place where nothing is found any more, and a full run forget a folder
    or file that is not there itself.
    """

    checksum: bool = False
    dry: bool = False
    allow_empty: bool = False

    def lets_go(self, mode: str) -> bool:
        """Whether a run of this mode forgets a place that is not there any more."""
        return self.allow_empty and mode == "full"


@dataclass
class ChangePlan:
    """What has to be done about a batch: newer stamps and moved documents by id, texts to chunk, documents to remove.

    `counts` and `skipped` are what there is to say of the rest of it, `cursor` is where its end is.
    """

    cursor: str | None
    touched: dict[int, str | None] = field(default_factory=dict)
    moved: dict[int, IncomingDocument] = field(default_factory=dict)
    changed: list[IncomingDocument] = field(default_factory=list)
    gone: list[StoredDocument] = field(default_factory=list)
    counts: RunCounts = field(default_factory=RunCounts)
    skipped: list[SkippedDocument] = field(default_factory=list)

    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.touched or self.moved or self.changed or self.gone)

    def leave(self, known: StoredDocument) -> None:
        """A document that is what it was."""
        self.counts += RunCounts(documents_unchanged=1, chunks_skipped=known.chunk_count)


class Indexing:
    """One run. What a batch did, what it counted and where it came to are one transaction."""

    def __init__(
        self,
        resources: Resources,
        run: RunRecord,
        source: SourceReader,
        chunker: Chunker,
        options: RunOptions,
        progress: Progress | None = None,
    ) -> None:
        self._resources, self._database = resources, resources.database
        self._run, self._source, self._chunker = run, source, chunker
        self._recipe = chunker.recipe.key
        self._options, self._progress = options, progress
        self._embedding: asyncio.Task[None] | None = None

    async def perform(self) -> None:
        """Go through everything, or the named ids; then remove what is gone, if that was asked for.

        Raises what the source raises, and `DatasetGone`. Whatever was committed until then stays.
        """
        started, before = perf_counter(), self._run.seconds.total
        try:
            async for batch in self._batches():
                await self._take(batch)
                self._run.seconds.total = before + perf_counter() - started
            if self._run.mode == "full":
                await self._remove_gone()
            if not self._options.dry:
                await self._settle()
                await self._sum_up()
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

    async def _take(self, batch: Sequence[ListedDocument | SkippedDocument]) -> None:
        """What changed is read and chunked while nothing is locked, then written at once."""
        plan = await self._plan(batch)
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
                await self._hand_on(written.pending)
        if self._progress is not None:
            self._progress(len(batch))

    async def _plan(self, batch: Sequence[ListedDocument | SkippedDocument]) -> ChangePlan:
        """Look at a batch: what is as it was, by stamp or by text, what moved, what is gone, what is to be chunked."""
        plan = ChangePlan(batch[-1].uri)
        listed = [one for one in batch if isinstance(one, ListedDocument) and len(one.uri) <= LONGEST_URI]
        plan.skipped += [one for one in batch if isinstance(one, SkippedDocument)]
        plan.skipped += [SkippedDocument(one.uri, "name too long") for one in batch if len(one.uri) > LONGEST_URI]
        async with self._database.read() as tx:
            known = await documents.by_uri(tx, self._run.dataset_id, [one.uri for one in listed])
        due = [one for one in listed if not self._unchanged(plan, known.get(one.uri), one)]
        missing: list[SkippedDocument] = []
        for one in await self._read(due):
            before = known.get(one.uri)
            if isinstance(one, SkippedDocument):
                (missing if one.reason == GONE else plan.skipped).append(one)
            elif before is not None and before.says(one, self._recipe):
                plan.leave(before)
                if before.stamp != one.stamp:
                    plan.touched[before.id] = one.stamp
            else:
                plan.changed.append(one)
        await self._find_gone(plan, missing, known)
        await self._find_moved(plan, known)
        return plan

    def _unchanged(self, plan: ChangePlan, known: StoredDocument | None, listed: ListedDocument) -> bool:
        """By its stamp alone, which costs no reading; a document that was handed over is compared by its text."""
        if known is None or listed.document is not None or listed.stamp is None:
            return False
        same = (known.stamp, known.recipe) == (listed.stamp, self._recipe)
        if same:
            plan.leave(known)
        return same

    async def _read(self, due: Sequence[ListedDocument]) -> list[IncomingDocument | SkippedDocument]:
        found: list[IncomingDocument | SkippedDocument] = [one.document for one in due if one.document is not None]
        unread = [one for one in due if one.document is None]
        if unread:
            with self._clock("read"):
                async for some in self._source.read(unread):
                    found += some
        return found

    async def _find_gone(
        self, plan: ChangePlan, missing: Sequence[SkippedDocument], known: Mapping[str, StoredDocument]
    ) -> None:
        """The documents of uris where nothing is any more, and those below them if one was a folder.

        What never was a document here is an id that does not exist.
        """
        plan.gone += [known[one.uri] for one in missing if one.uri in known]
        strange = [one for one in missing if one.uri not in known]
        if not strange:
            return
        async with self._database.read() as tx:
            below = await documents.in_folders(tx, self._run.dataset_id, [one.uri for one in strange])
        plan.gone += [one for one in below if not self._source.exists(one.uri)]
        folders = {one.uri for one in strange if any(found.uri.startswith(f"{one.uri}/") for found in below)}
        plan.skipped += [one for one in strange if one.uri not in folders]

    async def _find_moved(self, plan: ChangePlan, known: Mapping[str, StoredDocument]) -> None:
        """A new document whose text stands under a uri where nothing is any more has moved: its vectors stay."""
        new = {documents.digest(one.text): one for one in plan.changed if one.text and one.uri not in known}
        if not new:
            return
        async with self._database.read() as tx:
            candidates = await documents.by_digest(tx, self._run.dataset_id, new)
        for candidate in candidates:
            document = new.get(candidate.content_hash or b"")
            if (
                document is not None
                and candidate.says(document, self._recipe)
                and self._source.owns(candidate.uri)
                and not self._source.exists(candidate.uri)
            ):
                plan.moved[candidate.id] = new.pop(documents.digest(document.text))
                plan.counts += RunCounts(chunks_skipped=candidate.chunk_count)
                plan.changed.remove(document)

    async def _write(self, plan: ChangePlan, chunked: Sequence[ChunkedDocument]) -> WriteResult:
        async def once(tx: Tx) -> WriteResult:
            written = await self._apply(tx, plan, chunked)
            # in a copy: the transaction may have to be done again, and meanwhile others count what they sent
            run = self._run.copy()
            run.advance(plan.cursor, plan.counts + written.counts, plan.skipped)
            await runs.save(tx, run)
            return written

        written = await self._database.with_retries(once)
        self._run.advance(plan.cursor, plan.counts + written.counts, plan.skipped)
        return written

    async def _preview(self, plan: ChangePlan, chunked: Sequence[ChunkedDocument]) -> None:
        async with self._database.read() as tx:
            written = await documents.preview(tx, self._run.dataset_id, chunked)
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
        hours = self._resources.settings.batch_hours if self._run.deferred else None
        written = await self._chunker.write(tx, self._run.dataset_id, chunked, batch_hours=hours)
        written.counts += RunCounts(documents_moved=len(plan.moved))
        if plan.gone:
            written.counts += await documents.remove(tx, [one.id for one in plan.gone])
        return written

    async def _remove_gone(self) -> None:
        """Documents of this source that a complete listing does not have. One that broke off has raised by now."""
        there: set[str] = set()
        with self._clock("list"):
            async for uris in self._source.uris():
                there.update(uris)
        gone: dict[int, str] = {}
        async with self._database.read() as tx:
            async for batch in documents.every(tx, self._run.dataset_id):
                gone.update((row_id, uri) for row_id, uri in batch if uri not in there and self._source.owns(uri))
        if not self._options.allow_empty:
            self._distrust(there, gone)
        if self._options.dry:
            self._run.counts.documents_deleted += len(gone)
            return
        ids = list(gone)
        with self._clock("write"):
            for start in range(0, len(ids), IDS_TOGETHER):
                self._run.counts += await self._database.with_retries(
                    partial(self._remove, ids[start : start + IDS_TOGETHER])
                )

    def _distrust(self, there: set[str], gone: Mapping[int, str]) -> None:
        """A place where documents came from and nothing is any more may only be not mounted."""
        dataset = self._run.dataset_id
        if gone and not there:
            raise EmptySourceError(where=self._source.where, count=len(gone), dataset=dataset)
        for folder in self._source.folders:
            lost = sum(uri.startswith(folder) for uri in gone.values())
            if lost and not any(uri.startswith(folder) for uri in there):
                raise EmptySourceError(where=folder, count=lost, dataset=dataset)

    async def _remove(self, document_ids: Sequence[int], tx: Tx) -> RunCounts:
        await lock_dataset(tx, self._run.dataset_id)
        return await documents.remove(tx, document_ids)

    async def _hand_on(self, pending: Mapping[int, int]) -> None:
        """What is written is embedded while the next batch is read; or by workers, if this process only writes; or later."""
        if not pending or self._run.deferred:
            return
        if self._run.embeds:
            await self._settled()
            self._embedding = asyncio.create_task(self._embed(pending))
            return
        lane = Lane.INTERACTIVE if self._run.mode == "delta" else Lane.BACKFILL
        ids = list(pending)
        for start in range(0, len(ids), IDS_TOGETHER):
            await self._resources.doorbell.ring(
                EMBED_CHUNKS, lane=lane, chunk_ids=ids[start : start + IDS_TOGETHER], provider_id=None
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

    async def _settled(self) -> None:
        embedding, self._embedding = self._embedding, None
        if embedding is not None:
            await embedding

    async def _settle(self) -> None:
        """Embed to the end, with what a run that died left behind."""
        await self._settled()
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

    async def _sum_up(self) -> None:
        """What a run without memory would have sent."""
        async with self._database.read() as tx:
            totals = await documents.totals(tx, self._run.dataset_id)
        self._run.counts.full_texts, self._run.counts.full_tokens = totals.chunks, totals.tokens

    def _price(self) -> None:
        price, counts = self._chunker.provider.usd_per_million_tokens, self._run.counts
        if price is not None:
            self._run.cost_usd = counts.tokens * price / 1_000_000
            self._run.full_cost_usd = counts.full_tokens * price / 1_000_000

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            seconds = self._run.seconds
            setattr(seconds, stage, getattr(seconds, stage) + perf_counter() - started)
