"""Pictures and sounds, described by batch jobs: taken in, sent, and their description made the text of their document."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import IO
from uuid import UUID

from evervec.domain.batch import BatchClient, JobType, MediaLine, RemoteJob, Results
from evervec.domain.chunking import ChunkDraft
from evervec.domain.document import IncomingDocument, SkippedDocument
from evervec.domain.vendors import BATCH_TYPES, MEDIA_TYPES
from evervec.errors import BadInputError, NoMediaModelError
from evervec.pipeline import chunking
from evervec.pipeline.batch.payload import BAD_INPUT, Intent, ReturnReason
from evervec.pipeline.chunking import Chunker, DatasetGone, lock_dataset
from evervec.pipeline.resources import Resources
from evervec.sources.files.media import MediaContent, read_media
from evervec.store.batch import batch_jobs, media
from evervec.store.batch.batch_jobs import BatchJobRecord, InputFileSize, JobRow
from evervec.store.batch.media import RequestedFile, WaitingFile
from evervec.store.providers import Provider
from evervec.store.session import Database, ReadTx, Tx

FILES_LISTED = 500
"""Files that are looked up together; each is read, held and written down by itself."""

LINE_SHARE = 4 / 3
"""What base64 makes of a byte."""


def require_model(provider: Provider) -> None:
    """Raises `NoMediaModelError` where nobody would ever describe a picture."""
    if provider.type not in MEDIA_TYPES or not provider.chat_model:
        missing = "no model that describes them" if provider.type not in MEDIA_TYPES else "no chat model"
        raise NoMediaModelError(
            provider=provider.name, type=provider.type, missing=missing, types=" or ".join(MEDIA_TYPES)
        )


async def take_in(database: Database, dataset_id: UUID, provider: Provider, given: Sequence[IncomingDocument]) -> int:
    """Save files as documents that wait for a description; return how many are new or changed.

    Raises `NoMediaModelError` and `DatasetGone`.
    """
    require_model(provider)
    async with database.read() as tx:
        same = await media.unchanged(tx, dataset_id, given)
    changed = [one for one in given if one.uri not in same]

    async def once(tx: Tx) -> None:
        await lock_dataset(tx, dataset_id)
        await media.upsert(tx, dataset_id, changed)

    if changed:
        await database.with_retries(once)
    return len(changed)


@dataclass
class MediaInput:
    """An input file of media as it grows; equal files share a line."""

    intent: Intent
    file: IO[bytes]
    rows: int = 0
    size: int = 0
    keys: dict[bytes, str] = field(default_factory=dict)

    def fits(self, line: bytes) -> bool:
        """Whether there is room for one more; one that is too much by itself has to travel alone."""
        return not self.rows or self.size + len(line) <= self.intent.bounds.bytes

    def write(self, key: str, digest: bytes, line: bytes) -> None:
        """Append a line. Blocking."""
        self.file.write(line)
        self.keys[digest], self.size = key, self.size + len(line)


@dataclass
class _Piece:
    """What one piece of results does to which files."""

    describe: list[tuple[RequestedFile, str]] = field(default_factory=list)
    give_up: list[tuple[RequestedFile, str]] = field(default_factory=list)
    give_back: list[tuple[RequestedFile, str, str]] = field(default_factory=list)
    strays: int = 0


class MediaPayload:
    """The load of `MEDIA_DESCRIPTION` jobs. A file belongs to the job whose id is in its record; no lease runs out."""

    job_type = JobType.MEDIA_DESCRIPTION

    def __init__(self, resources: Resources) -> None:
        self._resources, self._database = resources, resources.database
        self._hours = resources.settings.batch_hours

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """Files without a description that no job has."""
        return await media.waiting(tx, scope, tries=tries)

    async def weight(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """Bytes; what a picture costs in tokens, each model counts in its own way."""
        return 0, ceil(await media.waiting_bytes(tx, scope) * LINE_SHARE)

    # --- out -----------------------------------------------------------------------------------------------------

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """One file at a time: read, held in the database, and written. What can not be sent is given up with its reason."""
        with intent.path.open("wb") as file:
            into = MediaInput(intent, file)
            for dataset_id in dataset_ids:
                if not await self._take_all(into, dataset_id):
                    break
        return into.rows > 0

    async def _take_all(self, into: MediaInput, dataset_id: UUID) -> bool:
        """Take what waits in a dataset; False when the job is full."""
        reached = 0
        while True:
            async with self._database.read() as tx:
                waiting = await media.waiting_files(
                    tx, dataset_id, tries=into.intent.tries, after=reached, limit=FILES_LISTED
                )
            if not waiting:
                return True
            for medium in waiting:
                if into.rows >= into.intent.bounds.rows or not await self._take(into, medium):
                    return False
            reached = waiting[-1].document_id

    async def _take(self, into: MediaInput, medium: WaitingFile) -> bool:
        """Take one file; False where there is no room for it."""
        intent, key = into.intent, _key(medium)
        read = await self._line(intent, key, medium)
        if isinstance(read, str):
            async with self._database.transaction() as tx:
                intent.failed += await media.give_up(tx, medium.document_id, medium.content_hash, read)
            return True
        content, line = read
        digest = content.media.digest
        shared = into.keys.get(digest)
        if shared is None and not into.fits(line):
            return False
        size = into.size + (0 if shared else len(line))
        texts = len(into.keys) + (0 if shared else 1)

        async def once(tx: Tx) -> bool:
            if digest != medium.content_hash:
                await media.replace_file(tx, medium, content.media)
            if not await media.lock_free(tx, medium.document_id, digest):
                return False
            await self._intend(tx, intent)
            await media.add_to_job(tx, intent.id, medium.document_id)
            await batch_jobs.add_items(tx, intent.id, [JobRow(medium.document_id, shared or key, digest)])
            await batch_jobs.record_size(tx, intent.id, InputFileSize(texts, 0, 0, size))
            return True

        if await self._database.with_retries(once):
            into.rows += 1
            if shared is None:
                await asyncio.to_thread(into.write, key, digest, line)
            intent.tell(1)
        return True

    async def _intend(self, tx: Tx, intent: Intent) -> None:
        """Descriptions belong to no space, and their price is that of a model whose tokens nobody has counted."""
        provider = intent.provider
        model = provider.chat_model or provider.model
        await batch_jobs.add(
            tx,
            intent.id,
            self.job_type,
            provider_id=provider.id,
            space_id=None,
            model=model,
            price=None,
            hours=self._resources.settings.batch_hours,
        )

    async def _line(self, intent: Intent, key: str, medium: WaitingFile) -> tuple[MediaContent, bytes] | str:
        """A file as it is now and its line, or the reason why it has none."""

        def once() -> tuple[MediaContent, bytes] | str:
            found = read_media(Path(medium.path))
            if isinstance(found, SkippedDocument):
                return f"{medium.path}: {found.reason}{f' ({found.detail})' if found.detail else ''}"
            try:
                return found, intent.client.media_line(MediaLine(key, found.media.media_type, found.data))
            except BadInputError as error:
                return str(error)

        return await asyncio.to_thread(once)

    async def rewrite(self, job: BatchJobRecord, intent: Intent) -> bool:
        """What the job still has and what is still the same on disk; the rest leaves it."""
        async with self._database.read() as tx:
            held = await media.of_job(tx, job.id)
            every = {item.vector_id for item in await batch_jobs.unanswered(tx, job.id, limit=50_000)}
        lost = every - {medium.document_id for _, medium in held}
        async with self._database.transaction() as tx:
            await media.release(tx, job.id, list(lost))
            await batch_jobs.settle_items(tx, job.id, list(lost), dropped=len(lost))
        with intent.path.open("wb") as file:
            into = MediaInput(intent, file)
            for key, medium in held:
                await self._write_again(into, key, medium)
        async with self._database.transaction() as tx:
            await batch_jobs.record_size(tx, job.id, InputFileSize(len(into.keys), 0, 0, into.size))
        return bool(into.keys)

    async def _write_again(self, into: MediaInput, key: str, medium: WaitingFile) -> None:
        read = await self._line(into.intent, key, medium)
        if isinstance(read, str):
            async with self._database.transaction() as tx:
                failed = await media.give_up(tx, medium.document_id, medium.content_hash, read)
                await self._strike(tx, into.intent.id, medium, failed=int(failed), dropped=int(not failed))
        elif read[0].media.digest != medium.content_hash:
            async with self._database.transaction() as tx:
                await media.replace_file(tx, medium, read[0].media)
                await self._strike(tx, into.intent.id, medium, dropped=1)
        elif medium.content_hash not in into.keys:
            await asyncio.to_thread(into.write, key, medium.content_hash, read[1])

    async def _strike(self, tx: Tx, job_id: UUID, medium: WaitingFile, *, failed: int = 0, dropped: int = 0) -> None:
        await batch_jobs.settle_items(tx, job_id, [medium.document_id], failed=failed, dropped=dropped)

    async def hold(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """A file stays with its job until that is over, however long it takes."""
        return True

    async def create(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """A job that describes."""
        return await client.describe_media(intent, file)

    # --- back ----------------------------------------------------------------------------------------------------

    async def wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Whether any file is still the one that was sent."""
        return await media.is_wanted(tx, job_id)

    def width(self, provider: Provider) -> int | None:
        """Texts are answered."""
        return None

    async def apply(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Descriptions become the text of their documents, cut into chunks for the space that is active now."""
        keys = [*results.keys, *(key for key, _, _ in results.errors)]
        async with self._database.read() as tx:
            found = await media.requested(tx, job_id, keys)
        piece = _sorted(results, found)
        chunker = await chunking.active(self._resources)
        texts = [
            (asked, replace(asked.document, text=text)) for asked, text in piece.describe if asked.document is not None
        ]
        chunked = await asyncio.to_thread(chunker.chunk, [document for _, document in texts])
        ready = {asked.document_id: pair for (asked, _), pair in zip(texts, chunked, strict=True)}
        await self._database.with_retries(lambda tx: self._settle(tx, job_id, chunker, piece, ready))

    async def _settle(
        self,
        tx: Tx,
        job_id: UUID,
        chunker: Chunker,
        piece: _Piece,
        ready: dict[int, tuple[IncomingDocument, list[ChunkDraft]]],
    ) -> None:
        """One transaction: texts, chunks that wait, failures and what goes back, and the items struck off."""
        every = [asked for asked, _ in piece.describe]
        still = await media.lock_undescribed(tx, [asked for asked in every if asked.document_id in ready])
        by_dataset: dict[UUID, list[int]] = {}
        for asked in every:
            if asked.document_id in still and asked.dataset_id is not None:
                by_dataset.setdefault(asked.dataset_id, []).append(asked.document_id)
        # with a provider that has a batch API the chunks wait for batch jobs, as those of any other document
        hours = self._hours if chunker.provider.type in BATCH_TYPES else None
        done: list[int] = []
        for dataset_id, ids in by_dataset.items():
            with suppress(DatasetGone):
                await chunker.write(tx, dataset_id, [ready[one] for one in ids], batch_hours=hours)
                done += ids
        await media.mark_described(tx, done)
        await media.release(tx, job_id, [asked.document_id for asked in every])
        failed = 0
        for asked, message in piece.give_up:
            failed += await media.give_up(tx, asked.document_id, asked.content_hash, message)
        await media.release(tx, job_id, [asked.document_id for asked, _ in piece.give_up])
        returned = tired = 0
        for asked, code, message in piece.give_back:
            back, gone = await media.return_files(tx, job_id, [asked.document_id], error=f"{code}: {message}")
            returned, tired = returned + back, tired + gone
        settled = [*every, *(asked for asked, _ in piece.give_up), *(asked for asked, _, _ in piece.give_back)]
        await batch_jobs.settle_items(
            tx,
            job_id,
            [asked.document_id for asked in settled],
            ready=len(done),
            failed=failed + tired,
            dropped=len(settled) - len(done) - failed - tired - returned,
            returned=returned,
            strays=piece.strays,
        )

    async def give_back(self, tx: Tx, job_id: UUID, why: ReturnReason | None) -> None:
        """Once for another job, then it is given up: nothing describes a file online."""
        while left := await batch_jobs.unanswered(tx, job_id, limit=50_000):
            ids = [item.vector_id for item in left]
            if why is None or why.code == "config":  # a provider that is gone is not the fault of the file
                returned, failed = await media.release(tx, job_id, ids), 0
            else:
                returned, failed = await media.return_files(tx, job_id, ids, error=why.error)
            dropped = len(ids) - returned - failed
            await batch_jobs.settle_items(tx, job_id, ids, returned=returned, failed=failed, dropped=dropped)


async def waiting_files(database: Database, scope: Sequence[UUID]) -> int:
    """How many files wait in some datasets for a model that describes them."""
    async with database.read() as tx:
        return sum(count for _, count in await media.waiting(tx, scope))


def _key(medium: WaitingFile) -> str:
    return f"document:{medium.document_id}"


def _sorted(results: Results, found: Sequence[RequestedFile]) -> _Piece:
    """Every file with what was answered for it. The first answer to a key is the one that counts."""
    waiting: dict[str, list[RequestedFile]] = {}
    for asked in found:
        waiting.setdefault(asked.key, []).append(asked)
    piece = _Piece(strays=results.garbled)
    for key, text in zip(results.keys, results.texts or (), strict=True):
        asked_for = waiting.pop(key, None)
        if asked_for is None:
            piece.strays += 1
        else:
            piece.describe += [(asked, text) for asked in asked_for]
    for key, code, message in results.errors:
        asked_for = waiting.pop(key, None)
        if asked_for is None:
            piece.strays += 1
        elif code in BAD_INPUT:
            piece.give_up += [(asked, message) for asked in asked_for]
        else:
            piece.give_back += [(asked, code, message) for asked in asked_for]
    return piece
