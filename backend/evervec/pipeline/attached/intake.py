"""Rows of an attached table become documents: read by key, compared, chunked, and written in one transaction.

Whoever reads rows holds the attachment's lease, and has taken the change records before: a text that is written is at least
as new as they say, and a later change has a later record.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from evervec import log
from evervec.domain.attachment import AttachedTable, Key
from evervec.domain.documents.chunking import CHUNKING
from evervec.domain.documents.document import IncomingDocument
from evervec.errors import Refused
from evervec.pipeline.attached.reading import Reading, read_rows
from evervec.pipeline.captures.opening import OpenAttachment
from evervec.pipeline.chunking import ChunkedDocument, Chunkers, DatasetGone
from evervec.pipeline.indexing.plan import LONGEST_URI
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_CHUNKS, Lane
from evervec.sources.attached import records
from evervec.store import datasets, documents, sources
from evervec.store.attached import documents as attached_documents
from evervec.store.attached import failures
from evervec.store.attached.documents import PlacedDocument
from evervec.store.attached.rows import AttachedRow
from evervec.store.database.session import Database, Tx
from evervec.store.sources import FilledDataset

logger = log.get("attached")

TOGETHER_BYTES = 16_000_000
"""Bytes of text that are read, chunked and written together."""

RUNG_TOGETHER = 500
"""Chunks that are rung for together."""

MB = 1_000_000

Also = Callable[[Tx], Awaitable[object]]

Keep = Callable[[Tx], Awaitable[None]]
"""Keeps the attachment as it is until a transaction ends; raises `AttachmentGone`."""


class AttachmentGone(Exception):
    """The table was detached meanwhile: nothing is written any more, and that is no error."""


@dataclass
class _Plan:
    """The writes for some keys: documents by their tenant, documents that are gone, and those with other fields alone."""

    changed: dict[str | None, list[IncomingDocument]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    fields: dict[int, tuple[Mapping[str, object], str | None]] = field(default_factory=dict)
    failed: dict[Key, tuple[UUID | None, str]] = field(default_factory=dict)
    readable: list[Key] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Rows that were read and compared, with the chunks of what changed by dataset: ready to be written."""

    keys: Sequence[Key]
    read: Reading
    plan: _Plan
    chunked: Mapping[UUID, Sequence[ChunkedDocument]]


class Intake:
    """Takes rows of one attachment in. `database` is the one that only the holder of the attachment's lease may write to."""

    def __init__(
        self,
        resources: Resources,
        database: Database,
        opened: OpenAttachment,
        keep: Keep,
    ) -> None:
        self._resources, self._database = resources, database
        self._chunkers = Chunkers(resources)
        self._source_id, self._attachment, self._there = opened.record.id, opened.attachment, opened.database
        self._keep = keep
        self._most_bytes = int(resources.settings.file_mb * MB)

    async def take_in(self, table: AttachedTable, keys: Sequence[Key], also: Also) -> None:
        """Write the present state of the rows with these keys; run `also` in the transaction that completes them.

        `table` is the attached one under its present names. Raises what `prepare` and `write` raise.
        """
        left = [key for key in keys if None not in key]
        while True:
            batch, left = await self.prepare(table, left)
            await self.write(batch, None if left else also, lane=Lane.INTERACTIVE)
            if not left:
                return

    async def prepare(self, table: AttachedTable, keys: Sequence[Key]) -> tuple[Batch, list[Key]]:
        """Read rows, compare them with their documents, and chunk what changed.

        Return also the last keys, where there is more text than should be taken in together.
        Raises `AttachmentGone`, and what the table raises if it can not be read at all.
        """
        read = await read_rows(self._there, table, keys, most_bytes=self._most_bytes, together_bytes=TOGETHER_BYTES)
        unread = set(read.unread)
        count = next((place for place, key in enumerate(keys) if key in unread), len(keys))
        return await self._prepared(keys[:count], read), list(keys[count:])

    async def write(self, batch: Batch, also: Also | None, *, lane: Lane) -> None:
        """Write a batch, and ring for its new chunks. Raises `AttachmentGone`."""
        while True:
            try:
                pending = await self._database.with_retries(partial(self._apply, batch, also))
            except DatasetGone:
                # planned again without the dataset that was deleted meanwhile
                batch = await self._prepared(batch.keys, batch.read)
                continue
            await self._ring(pending, lane)
            return

    async def _prepared(self, keys: Sequence[Key], read: Reading) -> Batch:
        refused: dict[str | None, str] = {}
        while True:
            plan, targets = await self._plan(keys, read, refused)
            missing = [tenant for tenant in plan.changed if tenant not in targets]
            if not missing:
                break
            refused |= await self._make_datasets(missing)
        chunked = {
            targets[tenant].id: await asyncio.to_thread((await self._chunkers.of(targets[tenant].id)).chunk, changed)
            for tenant, changed in plan.changed.items()
        }
        return Batch(keys, read, plan, chunked)

    async def _plan(
        self, keys: Sequence[Key], read: Reading, refused: Mapping[str | None, str]
    ) -> tuple[_Plan, dict[str | None, FilledDataset]]:
        """Compare rows with their documents. Rows that have none any more, or may not have one, lose it."""
        uris = {key: records.uri_of(self._attachment.table, key) for key in keys}
        async with self._resources.database.read() as tx:
            known = await attached_documents.of_uris(tx, self._source_id, list(uris.values()))
            targets = await sources.filled(tx, self._source_id)
        plan = _Plan()
        for key, uri in uris.items():
            before, row = known.get(uri, []), read.rows.get(key)
            tenant = None if row is None else row.tenant
            target = targets.get(tenant)
            reason = read.failed.get(key) or self._unusable(uri, row) or (row and refused.get(tenant))
            if reason:
                plan.failed[key] = (target.id if target else None, reason)
            else:
                plan.readable.append(key)
            homeless = self._attachment.description.dataset_column is not None and tenant is None
            if row is None or reason or homeless or (target is not None and not target.is_live):
                plan.gone += [one.document.id for one in before]
            else:
                self._compare(plan, row, before, target)
        return plan, targets

    def _unusable(self, uri: str, row: AttachedRow | None) -> str | None:
        """Return why a row can not have a document, or None."""
        if len(uri) > LONGEST_URI:
            return f"Its key is longer than {LONGEST_URI:,} characters."
        if row is not None and row.text is None and row.bytes > self._most_bytes:
            return (
                f"Its text has {row.bytes / MB:,.1f} MB, more than the {self._most_bytes / MB:g} MB of EVERVEC_FILE_MB."
            )
        return None

    def _compare(
        self, plan: _Plan, row: AttachedRow, before: Sequence[PlacedDocument], target: FilledDataset | None
    ) -> None:
        document = records.document_of(self._attachment.table, row)
        here = None
        for one in before:
            if target is not None and one.dataset_id == target.id:
                here = one.document
            else:
                plan.gone.append(one.document.id)
        if here is None or not here.says(document, CHUNKING):
            plan.changed.setdefault(row.tenant, []).append(document)
        elif here.stamp != document.stamp:
            plan.fields[here.id] = (document.fields or {}, document.stamp)

    async def _make_datasets(self, tenants: Sequence[str | None]) -> dict[str | None, str]:
        """Make the datasets of new tenants; return why there is none for the others."""
        described, refused = self._attachment.description, dict[str | None, str]()
        for tenant in tenants:
            try:
                async with self._database.transaction() as tx:
                    await self._keep(tx)
                    dataset = await datasets.ensure(tx, described.project, described.dataset_of(tenant))
                    await sources.assign(tx, dataset.id, self._source_id, tenant)
            except Refused as error:
                refused[tenant] = str(error)
        return refused

    async def _apply(self, batch: Batch, also: Also | None, tx: Tx) -> dict[UUID, list[int]]:
        plan, chunked = batch.plan, batch.chunked
        await self._keep(tx)
        pending = {}
        for dataset_id in sorted(chunked):
            chunker = await self._chunkers.of(dataset_id)  # found before, when the texts were chunked
            written = await chunker.write(tx, dataset_id, chunked[dataset_id])
            pending[dataset_id] = list(written.pending)
        if plan.gone:
            await documents.remove(tx, plan.gone)
        if plan.fields:
            await attached_documents.save_fields(tx, plan.fields)
        await failures.clear(tx, self._source_id, plan.readable)
        if plan.failed:
            await failures.record(tx, self._source_id, plan.failed)
        if also is not None:
            await also(tx)
        return pending

    async def _ring(self, pending: Mapping[UUID, list[int]], lane: Lane) -> None:
        for dataset_id, ids in pending.items():
            for start in range(0, len(ids), RUNG_TOGETHER):
                await self._resources.doorbell.ring(
                    EMBED_CHUNKS,
                    of=dataset_id,
                    lane=lane,
                    chunk_ids=ids[start : start + RUNG_TOGETHER],
                    provider_id=None,
                )
