"""Documents that a caller passes in: chunked, written, and embedded at once, by a batch job, or by the workers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evervec.domain.documents import metadata
from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.documents.document import IncomingDocument
from evervec.domain.text import clean
from evervec.domain.vendors import BATCH_TYPES, FREE_TYPES
from evervec.errors import Refused
from evervec.pipeline import chunking
from evervec.pipeline.batch import media_queue
from evervec.pipeline.chunking import ChunkedDocument, Chunker, DatasetGone
from evervec.pipeline.embedding.embed import embed_rows
from evervec.pipeline.indexing.plan import LONGEST_URI
from evervec.pipeline.ingest import committed
from evervec.pipeline.resources import Resources
from evervec.store import datasets, document_records, documents
from evervec.store.datasets import DatasetRef
from evervec.store.documents import WriteResult
from evervec.store.schema.embeddables import CHUNK

TOGETHER = 64
TOGETHER_CHARACTERS = 2_000_000
"""Documents, and characters of their texts, that are chunked and written in one transaction."""

FEW_CHUNKS = 256
"""Chunks that a local model embeds before the call returns, in mode `auto`."""


class Mode(StrEnum):
    """When what comes in is embedded: before the call returns, later, or as suits its size and the provider."""

    SYNC = "sync"
    ASYNC = "async"
    AUTO = "auto"


@dataclass
class IngestResult:
    """The counts of an ingestion.

    `pending` chunks wait to be embedded, `deferred` of them for a batch job; `media` are pictures and sounds that wait to
    be described by one.
    """

    documents: int = 0
    documents_unchanged: int = 0
    chunks_new: int = 0
    chunks_updated: int = 0
    chunks_skipped: int = 0
    chunks_deleted: int = 0
    embedded: int = 0
    failed: int = 0
    pending: int = 0
    deferred: int = 0
    media: int = 0


async def ingest_documents(
    resources: Resources,
    given: AsyncIterator[IncomingDocument],
    *,
    project: str,
    dataset: str,
    mode: str = Mode.AUTO,
) -> IngestResult:
    """Write documents into a dataset, each by its uri; one whose text is the same is not touched.

    `sync` embeds before it returns. `async` chunks and writes and never uses the network: with a provider that has a batch
    API the rows wait for batch jobs, else for workers or a backfill. `auto` is `sync` for little text and a local model.
    Pictures and sounds are registered, and described by batch jobs later.

    Raises `Refused` for another mode and for media in mode `sync`, `NoMediaModelError` where the provider has no model
    that describes them, and `InvalidNameError`.
    """
    if mode.lower() not in tuple(Mode):
        raise Refused(reason=f"There is no mode {mode!r}. Modes: {', '.join(Mode)}.")
    async with resources.database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
    chunker = await chunking.of_dataset(resources, target)
    ingestion = _Ingestion(resources, chunker, target, Mode(mode.lower()))
    try:
        async for group in _groups(given):
            await ingestion.take(group)
        await ingestion.written()
    except DatasetGone:
        raise Refused(reason=f"Dataset {target.project}/{target.slug} was deleted meanwhile.") from None
    finally:
        await ingestion.aclose()
    if ingestion.total.pending > ingestion.total.deferred:
        await committed.ring(resources, [target.id])
    return ingestion.total


async def _groups(given: AsyncIterator[IncomingDocument]) -> AsyncIterator[list[IncomingDocument]]:
    """Group some documents at a time, each uri once in a group: its last version counts."""
    group: dict[str, IncomingDocument] = {}
    size = 0
    async for one in given:
        document = _storable(one)
        group.pop(document.uri, None)
        group[document.uri] = document
        size += len(document.text)
        if len(group) >= TOGETHER or size >= TOGETHER_CHARACTERS:
            yield list(group.values())
            group, size = {}, 0
    if group:
        yield list(group.values())


def _storable(document: IncomingDocument) -> IncomingDocument:
    """Return the document as PostgreSQL can store it. Raises `Refused` for a uri or metadata that it can not store."""
    if clean(document.uri) != document.uri or not 0 < len(document.uri) <= LONGEST_URI:
        raise Refused(
            reason=f"{document.uri[:100]!r} is not a usable uri: give 1 to {LONGEST_URI:,} characters, none of them NUL."
        )
    said = None if document.metadata is None else metadata.checked(document.metadata)
    title, text = clean(document.title), clean(document.text)
    same = (title, text, said) == (document.title, document.text, document.metadata)
    return document if same else replace(document, title=title, text=text, metadata=said)


class _Ingestion:
    """One ingestion, with a transaction a group: while PostgreSQL writes one group, the next one is chunked."""

    def __init__(self, resources: Resources, chunker: Chunker, target: DatasetRef, mode: Mode) -> None:
        self._resources, self._database = resources, resources.database
        self._chunker, self._target, self._mode = chunker, target, mode
        provider = chunker.provider
        self._batched, self._local = provider.type in BATCH_TYPES, provider.type in FREE_TYPES
        self._writing: asyncio.Task[None] | None = None
        self._uris: set[str] = set()
        self.total = IngestResult()

    async def take(self, group: Sequence[IncomingDocument]) -> None:
        """Chunk what is new or changed, and start to write it; media are only registered."""
        uris = {one.uri for one in group}
        if not uris.isdisjoint(self._uris):
            await self.written()  # the comparison needs the latest version of a document
        files = [one for one in group if one.media is not None]
        if files:
            await self._register_media(files)
        texts = [one for one in group if one.media is None]
        changed = await self._changed(texts)
        due = {one.uri for one in changed}
        await self._describe([one for one in group if one.uri not in due])
        self.total.documents += len(texts)
        self.total.documents_unchanged += len(texts) - len(changed)
        if changed:
            chunked = await asyncio.to_thread(self._chunker.chunk, changed)
            await self.written()
            self._uris, self._writing = uris, asyncio.create_task(self._write(chunked))

    async def written(self) -> None:
        """Wait until the group before is written. Raises what its write raised."""
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def aclose(self) -> None:
        """Wait for the group that is being written, also after an error in the next one."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self, chunked: Sequence[ChunkedDocument]) -> None:
        """Write a group, and embed it if the mode says so."""
        at_once = self._embeds_at_once(sum(len(chunks) for _, chunks in chunked))
        hours = self._resources.settings.batch_hours if self._batched and not at_once else None
        written = await self._database.with_retries(
            lambda tx: self._chunker.write(tx, self._target.id, chunked, batch_hours=hours)
        )
        self._count(written)
        if at_once and written.pending:
            await self._embed(list(written.pending))

    async def _register_media(self, files: Sequence[IncomingDocument]) -> None:
        provider = self._chunker.provider
        media_queue.require_model(provider)
        if self._mode is Mode.SYNC:
            raise Refused(
                reason="Pictures and sounds are described by batch jobs, and nothing describes them at once: ingest them "
                "with mode 'async', and text with mode 'sync' in another call."
            )
        changed = await media_queue.register(self._resources.database, self._target.id, provider, files)
        self.total.documents += len(files)
        self.total.documents_unchanged += len(files) - changed
        self.total.media += changed

    async def _changed(self, group: Sequence[IncomingDocument]) -> list[IncomingDocument]:
        async with self._database.read() as tx:
            known = await documents.by_uri(tx, self._target.id, [one.uri for one in group])
        return [one for one in group if one.uri not in known or not known[one.uri].says(one, CHUNKING)]

    async def _describe(self, unchanged: Sequence[IncomingDocument]) -> None:
        """Save what is said anew of documents whose text is the same."""
        if any(one.metadata is not None for one in unchanged):
            await self._database.with_retries(lambda tx: document_records.save_metadata(tx, self._target.id, unchanged))

    def _embeds_at_once(self, chunks: int) -> bool:
        match self._mode:
            case Mode.SYNC:
                return True
            case Mode.ASYNC:
                return False
            case Mode.AUTO:
                return self._local and chunks <= FEW_CHUNKS

    def _count(self, written: WriteResult) -> None:
        for name in ("chunks_new", "chunks_updated", "chunks_skipped", "chunks_deleted"):
            setattr(self.total, name, getattr(self.total, name) + getattr(written.counts, name))
        self.total.pending += len(written.pending)
        self.total.deferred += written.batched

    async def _embed(self, chunk_ids: list[int]) -> None:
        counts = await embed_rows(self._resources, CHUNK, chunk_ids)
        self.total.embedded += counts.success
        self.total.failed += counts.failed
        self.total.pending -= counts.success + counts.failed
