"""The payload of media jobs: pictures and sounds are sent, and their description becomes the text of their document."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import IO
from uuid import UUID

from evervec.domain.batch import BatchClient, JobType, MediaLine, RemoteJob, Results
from evervec.domain.documents.chunking import ChunkDraft
from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.domain.vendors import BATCH_TYPES
from evervec.errors import BadInputError
from evervec.pipeline.batch.payload import BAD_INPUT, Intent, ReturnReason, Unanswered
from evervec.pipeline.chunking import Chunkers, DatasetGone
from evervec.pipeline.resources import Resources
from evervec.sources.files.media import MediaContent, read_media
from evervec.store.batch import batch_jobs, media
from evervec.store.batch.batch_jobs import BatchJobRecord, InputFileSize, JobRow
from evervec.store.batch.media import RequestedFile, WaitingFile
from evervec.store.database.session import ReadTx, Tx
from evervec.store.providers import Provider

FILES_LISTED = 500
"""Files that are looked up together; each is read, claimed and written by itself."""

LINE_SHARE = 4 / 3
"""Length of base64 for one byte."""


@dataclass
class MediaInput:
    """An input file of media that is being written; equal files share a line."""

    intent: Intent
    file: IO[bytes]
    rows: int = 0
    size: int = 0
    keys: dict[bytes, str] = field(default_factory=dict)

    def fits(self, line: bytes) -> bool:
        """Return whether a line fits; one that alone exceeds the bounds is sent alone."""
        return not self.rows or self.size + len(line) <= self.intent.bounds.bytes

    def write(self, key: str, digest: bytes, line: bytes) -> None:
        """Append a line. Blocks."""
        self.file.write(line)
        self.keys[digest], self.size = key, self.size + len(line)


@dataclass
class _Piece:
    """What one piece of results means for which files."""

    describe: list[tuple[RequestedFile, str]] = field(default_factory=list)
    failed: list[tuple[RequestedFile, str]] = field(default_factory=list)
    to_return: list[tuple[RequestedFile, str, str]] = field(default_factory=list)
    strays: int = 0


class MediaPayload:
    """The payload of `MEDIA_DESCRIPTION` jobs. A file belongs to the job whose id is in its row; it has no lease."""

    job_type = JobType.MEDIA_DESCRIPTION

    def __init__(self, resources: Resources) -> None:
        self._resources, self._database = resources, resources.database
        self._hours = resources.settings.batch_hours

    def using(self, resources: Resources) -> "MediaPayload":
        """Return the same payload with other resources."""
        return MediaPayload(resources)

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """Return by dataset the files without a description that are in no job."""
        return await media.waiting(tx, scope, tries=tries)

    async def waiting_size(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """Return the bytes of the lines; each model counts the tokens of a picture in its own way."""
        return 0, ceil(await media.waiting_bytes(tx, scope) * LINE_SHARE)

    # --- submission ----------------------------------------------------------------------------------------------

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """Read, claim and write one file at a time; one that can not be sent has failed, with its reason."""
        with intent.path.open("wb") as file:
            into = MediaInput(intent, file)
            for dataset_id in dataset_ids:
                if not await self._add_waiting(into, dataset_id):
                    break
        return into.rows > 0

    async def _add_waiting(self, into: MediaInput, dataset_id: UUID) -> bool:
        """Add the files that wait in a dataset; return False when the job is full."""
        reached = 0
        while True:
            async with self._database.read() as tx:
                waiting = await media.waiting_files(
                    tx, dataset_id, tries=into.intent.tries, after=reached, limit=FILES_LISTED
                )
            if not waiting:
                return True
            for medium in waiting:
                if into.rows >= into.intent.bounds.rows or not await self._add(into, medium):
                    return False
            reached = waiting[-1].document_id

    async def _add(self, into: MediaInput, medium: WaitingFile) -> bool:
        """Add one file; return False when it does not fit."""
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
            await self._save_intent(tx, intent)
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

    async def _save_intent(self, tx: Tx, intent: Intent) -> None:
        """Save the job of an intent, without a space and without a price: nobody counts the tokens of its model."""
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
        """Read a file and make its line; return both, or the reason why it has none."""

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
        """Write the lines of files that are still in the job and the same on disk; the others leave it."""
        async with self._database.read() as tx:
            in_job = await media.of_job(tx, job.id)
            every = {item.vector_id for item in await batch_jobs.unanswered(tx, job.id, limit=50_000)}
        lost = every - {medium.document_id for _, medium in in_job}
        async with self._database.transaction() as tx:
            await media.release(tx, job.id, list(lost))
            await batch_jobs.settle_items(tx, job.id, list(lost), dropped=len(lost))
        with intent.path.open("wb") as file:
            into = MediaInput(intent, file)
            for key, medium in in_job:
                await self._write_again(into, key, medium)
        async with self._database.transaction() as tx:
            await batch_jobs.record_size(tx, job.id, InputFileSize(len(into.keys), 0, 0, into.size))
        return bool(into.keys)

    async def _write_again(self, into: MediaInput, key: str, medium: WaitingFile) -> None:
        read = await self._line(into.intent, key, medium)
        if isinstance(read, str):
            async with self._database.transaction() as tx:
                failed = await media.give_up(tx, medium.document_id, medium.content_hash, read)
                await self._settle_one(tx, into.intent.id, medium, failed=int(failed), dropped=int(not failed))
        elif read[0].media.digest != medium.content_hash:
            async with self._database.transaction() as tx:
                await media.replace_file(tx, medium, read[0].media)
                await self._settle_one(tx, into.intent.id, medium, dropped=1)
        elif medium.content_hash not in into.keys:
            await asyncio.to_thread(into.write, key, medium.content_hash, read[1])

    async def _settle_one(
        self, tx: Tx, job_id: UUID, medium: WaitingFile, *, failed: int = 0, dropped: int = 0
    ) -> None:
        await batch_jobs.settle_items(tx, job_id, [medium.document_id], failed=failed, dropped=dropped)

    async def extend_claims(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """Return True: a file stays in its job until that is over, however long it takes."""
        return True

    async def create_job(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """Request a job that describes media."""
        return await client.describe_media(intent, file)

    # --- collection ----------------------------------------------------------------------------------------------

    async def is_wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Return whether any file is still the one that was sent."""
        return await media.is_wanted(tx, job_id)

    def dimensions(self, provider: Provider) -> int | None:
        """Return None: the answers are texts."""
        return None

    async def save_results(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Save descriptions as the text of their documents, chunked for the spaces of their datasets."""
        keys = [*results.keys, *(key for key, _, _ in results.errors)]
        async with self._database.read() as tx:
            found = await media.requested(tx, job_id, keys)
        piece = _match(results, found)
        chunkers, ready = Chunkers(self._resources), dict[int, tuple[IncomingDocument, list[ChunkDraft]]]()
        for asked, text in piece.describe:
            if asked.document is not None and asked.dataset_id is not None:
                chunker = await chunkers.of(asked.dataset_id)
                described = replace(asked.document, text=text)
                (ready[asked.document_id],) = await asyncio.to_thread(chunker.chunk, [described])
        await self._database.with_retries(lambda tx: self._save(tx, job_id, chunkers, piece, ready))

    async def _save(
        self,
        tx: Tx,
        job_id: UUID,
        chunkers: Chunkers,
        piece: _Piece,
        ready: dict[int, tuple[IncomingDocument, list[ChunkDraft]]],
    ) -> None:
        """Save one piece of results and settle its items in one transaction: texts, chunks, failures, files to return."""
        every = [asked for asked, _ in piece.describe]
        still = await media.lock_undescribed(tx, [asked for asked in every if asked.document_id in ready])
        by_dataset: dict[UUID, list[int]] = {}
        for asked in every:
            if asked.document_id in still and asked.dataset_id is not None:
                by_dataset.setdefault(asked.dataset_id, []).append(asked.document_id)
        # with a provider that has a batch API the chunks wait for batch jobs, as those of any other document
        done: list[int] = []
        for dataset_id, ids in by_dataset.items():
            chunker = await chunkers.of(dataset_id)  # found before, when its texts were chunked
            hours = self._hours if chunker.provider.type in BATCH_TYPES else None
            with suppress(DatasetGone):
                await chunker.write(tx, dataset_id, [ready[one] for one in ids], batch_hours=hours)
                done += ids
        await media.mark_described(tx, done)
        await media.release(tx, job_id, [asked.document_id for asked in every])
        failed = 0
        for asked, message in piece.failed:
            failed += await media.give_up(tx, asked.document_id, asked.content_hash, message)
        await media.release(tx, job_id, [asked.document_id for asked, _ in piece.failed])
        returned = exhausted = 0
        for asked, code, message in piece.to_return:
            back, gone = await media.return_files(tx, job_id, [asked.document_id], error=f"{code}: {message}")
            returned, exhausted = returned + back, exhausted + gone
        settled = [*every, *(asked for asked, _ in piece.failed), *(asked for asked, _, _ in piece.to_return)]
        await batch_jobs.settle_items(
            tx,
            job_id,
            [asked.document_id for asked in settled],
            ready=len(done),
            failed=failed + exhausted,
            dropped=len(settled) - len(done) - failed - exhausted - returned,
            returned=returned,
            strays=piece.strays,
        )

    async def return_items(self, tx: Tx, job_id: UUID, reason: ReturnReason | None) -> None:
        """Return files to the queue once, for another job; then they have failed: nothing describes a file online."""
        while left := await batch_jobs.unanswered(tx, job_id, limit=50_000):
            ids = [item.vector_id for item in left]
            if reason is None or reason.code == "config":  # a provider that is gone is not the fault of the file
                returned, failed = await media.release(tx, job_id, ids), 0
            else:
                returned, failed = await media.return_files(tx, job_id, ids, error=reason.error)
            dropped = len(ids) - returned - failed
            await batch_jobs.settle_items(tx, job_id, ids, returned=returned, failed=failed, dropped=dropped)


def _key(medium: WaitingFile) -> str:
    return f"document:{medium.document_id}"


def _match(results: Results, found: Sequence[RequestedFile]) -> _Piece:
    """Match files with their answers."""
    unanswered, piece = Unanswered(found, results.garbled), _Piece()
    for key, text in zip(results.keys, results.texts or (), strict=True):
        piece.describe += [(file, text) for file in unanswered.take(key)]
    for key, code, message in results.errors:
        for file in unanswered.take(key):
            if code in BAD_INPUT:
                piece.failed.append((file, message))
            else:
                piece.to_return.append((file, code, message))
    piece.strays = unanswered.strays
    return piece
