"""The work on one attached table, whose lease is held: its change records, then some of its existing rows."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Self
from uuid import UUID

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import SourceError
from evervec.pipeline.attached.intake import AttachmentGone, Batch, Intake
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.captures import opening
from evervec.pipeline.captures.capture import Capture
from evervec.pipeline.captures.opening import OpenAttachment
from evervec.pipeline.resources import Resources
from evervec.queue.names import Lane
from evervec.sources.attached import records
from evervec.store import documents, sources
from evervec.store.attached import adoption as adopting
from evervec.store.attached import attachments, rows
from evervec.store.attached import documents as attached_documents
from evervec.store.attached.changes import Taken as ChangesTaken
from evervec.store.database.session import Database, Tx

CHANGES_TOGETHER = 500
ROWS_TOGETHER = 1000
CHECKED_TOGETHER = 1000

SLICE_SECONDS = 0.25
"""Seconds that existing rows are taken in before change records are looked for again."""

Taken = Callable[[int], None]


class AttachmentWork:
    """What waits of one attachment. `database` is the one that only the holder of its lease may write to."""

    def __init__(self, resources: Resources, database: Database, opened: OpenAttachment, progress: Progress) -> None:
        self._resources, self._database, self.opened = resources, database, opened
        self.source_id, self.attachment, self.progress = opened.record.id, opened.attachment, progress
        self._next_rows, self._since = 0.0, monotonic()

    @classmethod
    async def open(cls, resources: Resources, database: Database, source_id: UUID) -> Self:
        """Read an attachment. Raises `AttachmentGone`, and what the database of its table raises."""
        async with resources.database.read() as tx:
            record = await sources.by_id(tx, source_id)
        if record is None:
            raise AttachmentGone
        return cls(resources, database, await opening.opened(resources, record), Progress.load(record.cursor))

    async def keep(self, tx: Tx) -> None:
        """Keep the attachment as it is until the transaction ends. Raises `AttachmentGone` if it is another one by now."""
        if not await attachments.keep(tx, self.source_id, self.progress.generation):
            raise AttachmentGone

    async def waits(self) -> bool:
        """Return whether there is anything to do."""
        return not self.progress.is_complete or self.progress.error is not None or await self.opened.waits()

    async def drain(self, intake: Intake) -> bool:
        """Take in what some changes name, and forget exactly these; return whether there were any."""
        for capture in self.opened.captures:
            taken = await capture.take(CHANGES_TOGETHER)
            if not taken.is_empty:
                await self._drain(intake, capture, taken)
                return True
        return False

    async def _drain(self, intake: Intake, capture: Capture, taken: ChangesTaken) -> None:
        table = self._require(await self.opened.locate())
        progress = self.progress.again(self.progress.expected, compare=True) if taken.everything else None
        if progress is None and taken.compares and self.progress.done:
            progress = replace(self.progress, checked="")

        async def done(tx: Tx) -> None:
            await capture.forget_inside(tx, taken)
            if progress is not None:
                await attachments.merge_cursor(tx, self.source_id, progress.dump())

        await intake.take_in(table, taken.keys, done)
        self.progress = progress or self.progress
        await capture.forget_after(taken)
        await self.recovered()

    async def take_in_existing(self, intake: Intake, taken: Taken | None = None) -> bool:
        """Take in rows that were there before, for a slice of time; return whether some may be left.

        While PostgreSQL writes some of them, the next ones are read and chunked.
        """
        if self.progress.is_complete:
            return False
        ends = monotonic() + SLICE_SECONDS
        writing: asyncio.Task[None] | None = None
        try:
            while not self.progress.is_complete and monotonic() < ends:
                if monotonic() < self._next_rows:
                    await asyncio.sleep(min(self._next_rows, ends) - monotonic())
                elif self.progress.checked is not None:
                    await self._check_some()
                else:
                    table, batch = await self._next_batch(intake)
                    if writing is not None:
                        await writing
                    save = partial(self._save, self.progress, table, batch.keys)
                    writing = asyncio.create_task(intake.write(batch, save, lane=Lane.BACKFILL))
                    if taken is not None:
                        taken(len(batch.keys))
        finally:
            if writing is not None:
                await writing
        await self.recovered()
        return True

    async def _next_batch(self, intake: Intake) -> tuple[AttachedTable, Batch]:
        """Read some more rows, and advance: the state after them is saved by whoever writes them."""
        started, rate = monotonic(), self.progress.rows_per_second
        limit = ROWS_TOGETHER if rate is None else max(1, min(ROWS_TOGETHER, int(rate * SLICE_SECONDS)))
        table = self._require(await self.opened.locate())
        async with self.opened.database.read() as tx:
            keys = await rows.keys_after(tx, table, self.progress.after, limit, newest_first=self.progress.newest_first)
        batch, _ = await intake.prepare(table, keys)
        if rate is not None:
            self._next_rows = max(self._next_rows, started) + len(batch.keys) / rate
        # a pause by the rate is a part of the time that the rest will take; what workers did meanwhile is not
        seconds = monotonic() - self._since
        self._since = monotonic()
        count = self.progress.taken_in + len(batch.keys)
        if keys:
            self.progress = replace(
                self.progress, after=batch.keys[-1], taken_in=count, seconds=self.progress.seconds + seconds
            )
        else:
            self.progress = replace(self.progress, done=True, expected=count)
        return table, batch

    async def _save(self, progress: Progress, table: AttachedTable, keys: Sequence[Key], tx: Tx) -> None:
        """Save where the walk is, and give the chunks that were just written vectors that their rows have already."""
        adoption = await adopting.of(tx, self.source_id)
        if adoption is not None and not adoption.finished:
            uris = [records.uri_of(self.attachment.table, key) for key in keys]
            adoption = await adopting.adopt(tx, self.source_id, table, adoption, uris)
            await adopting.save(tx, self.source_id, replace(adoption, finished=progress.done))
        await attachments.merge_cursor(tx, self.source_id, progress.dump())

    async def _check_some(self) -> None:
        """Look some documents up in the table, and remove those whose row is gone."""
        table = self._require(await self.opened.locate())
        async with self._resources.database.read() as tx:
            some = await attached_documents.keys_after(
                tx, self.source_id, self.progress.checked or "", limit=CHECKED_TOGETHER
            )
        async with self.opened.database.read() as tx:
            there = await rows.existing(tx, table, [key for _, _, key in some])
        gone = [row_id for row_id, _, key in some if key not in there]
        progress = replace(self.progress, checked=some[-1][1] if some else None)
        await self._database.with_retries(partial(self._remove, gone, progress))
        self.progress = progress

    async def _remove(self, gone: Sequence[int], progress: Progress, tx: Tx) -> None:
        await self.keep(tx)
        if gone:
            await documents.remove(tx, gone)
        await attachments.merge_cursor(tx, self.source_id, progress.dump())

    def _require(self, table: AttachedTable | None) -> AttachedTable:
        if table is None:
            raise SourceError(
                where=f"Table {self.attachment.table.label}",
                reason="it does not exist any more. Its rows stay searchable as they were; `evervec detach "
                f"{self.attachment.table.label}` removes them.",
            )
        return table

    async def recovered(self) -> None:
        """Forget an error that was stored before: the table answers again."""
        if self.progress.error is not None:
            async with self._database.transaction() as tx:
                await attachments.recovered(tx, self.source_id)
            self.progress = replace(self.progress, error=None)
