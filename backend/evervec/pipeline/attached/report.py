"""What every entry point shows of attached tables: how far each is, what waits, what failed, what it costs, what is wrong."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.sources import SourceType
from evervec.domain.spending import cost
from evervec.errors import EvervecError
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.budget import prices
from evervec.pipeline.captures import opening
from evervec.pipeline.captures.logical import MB
from evervec.pipeline.captures.records import NOTHING
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment
from evervec.store import documents, monitor, providers, sources
from evervec.store.attached import failures, views
from evervec.store.attached.changes import Backlog
from evervec.store.database.session import ReadTx
from evervec.store.documents import DatasetTotals
from evervec.store.sources import FilledDataset, SourceRecord

SILENT_SECONDS = 3.0
"""Longest wait for another database before it is shown as silent."""


@dataclass(frozen=True, kw_only=True)
class AttachmentReport:
    """One attached table.

    `where` is the address of its database, None for ours; `capture` is how changes are noticed, `view` is what SQL reads.
    `state` is `taking in` while existing rows are read, `following` afterwards, and `broken` while it can not be read.
    `changes_waiting` counts change records, the oldest of which is `lag_seconds` old; `pending` rows are not embedded yet.
    `slot_mb` is the log that a server keeps for its slot. `cost_usd` is what embedding all of it costs once, None where the
    price is not known. `next_try` is when one that could not be read is tried again.
    """

    id: UUID
    table: str
    project: str
    datasets: list[str]
    view: str | None
    where: str | None
    capture: str
    state: str
    rows_taken_in: int
    rows_expected: int
    rows_per_second: float | None
    remaining_seconds: float | None
    changes_waiting: int
    lag_seconds: float | None
    slot_mb: float | None
    documents: int
    chunks: int
    pending: int
    failed: int
    tokens: int
    cost_usd: float | None
    problems: list[str]
    next_try: str | None


async def attachments(resources: Resources, project: str | None = None) -> list[AttachmentReport]:
    """Return all attached tables, or those of a project, by name. A database that does not answer is a problem of its own."""
    async with resources.database.read() as tx:
        known = await sources.of_type(tx, SourceType.ATTACHED, project=project)
        failed = await failures.counts(tx, [one.id for one in known])
        active = await providers.active(tx) if known else None
        stored = [await _stored(tx, resources.database.schema, one) for one in known]
    found = await asyncio.gather(*(_found(resources, one) for one in known))
    price = None if active is None else prices.of_embedding(active)
    return [
        _report(one, held, there, failed.get(one.id, 0), price)
        for one, held, there in zip(known, stored, found, strict=True)
    ]


@dataclass(frozen=True)
class _Stored:
    """What our database holds of an attachment."""

    filled: Sequence[FilledDataset]
    totals: Sequence[DatasetTotals]
    pending: int
    view: str | None


@dataclass(frozen=True)
class _Found:
    """What the database of its table says: its present name, what waits, and what is wrong."""

    label: str | None = None
    waiting: Backlog = NOTHING
    problems: Sequence[str] = ()


async def _stored(tx: ReadTx, schema: str, record: SourceRecord) -> _Stored:
    filled = [one for one in (await sources.filled(tx, record.id)).values() if one.is_live]
    totals = [await documents.totals(tx, one.id, one.space_id) for one in filled]
    pending = await monitor.pending(tx, [one.id for one in filled])
    return _Stored(filled, totals, pending, await views.place(tx, schema, record.view))


async def _found(resources: Resources, record: SourceRecord) -> _Found:
    """Ask the table's database, and do not wait for one that is silent."""
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            opened = await opening.opened(resources, record)
            state = await opened.state()
            waiting = [await one.backlog() for one in opened.captures]
    except TimeoutError:
        where = Attachment.load(record.spec).where
        return _Found(problems=[f"Its database {where} did not answer within {SILENT_SECONDS:g} s."])
    except EvervecError as error:
        return _Found(problems=[str(error)])
    total = Backlog(
        sum(one.records for one in waiting),
        max(one.oldest_seconds for one in waiting),
        sum(one.kept_bytes for one in waiting),
    )
    return _Found(None if state.table is None else state.table.label, total, [str(one) for one in state.problems])


def _report(record: SourceRecord, stored: _Stored, found: _Found, failed: int, price: float | None) -> AttachmentReport:
    attachment, progress = Attachment.load(record.spec), Progress.load(record.cursor)
    tokens = sum(one.tokens for one in stored.totals)
    return AttachmentReport(
        id=record.id,
        table=found.label or attachment.table.label,
        where=attachment.where,
        project=attachment.description.project if not stored.filled else stored.filled[0].project,
        datasets=[one.slug for one in stored.filled],
        view=stored.view,
        capture=attachment.description.capture,
        state="broken" if progress.error else "following" if progress.done else "taking in",
        rows_taken_in=progress.taken_in,
        rows_expected=max(progress.expected, progress.taken_in),
        rows_per_second=progress.speed,
        remaining_seconds=progress.remaining_seconds,
        changes_waiting=found.waiting.records,
        slot_mb=found.waiting.kept_bytes / MB if attachment.description.capture == "logical" else None,
        lag_seconds=found.waiting.oldest_seconds if found.waiting.records else None,
        documents=sum(one.documents for one in stored.totals),
        chunks=sum(one.chunks for one in stored.totals),
        pending=stored.pending,
        failed=failed,
        tokens=tokens,
        cost_usd=cost(tokens, price),
        problems=_problems(progress, found.problems, stored.filled, stored.view),
        next_try=record.cursor.get("retry_at") if progress.error else None,
    )


def _problems(progress: Progress, found: Sequence[str], filled: Sequence[object], view: str | None) -> list[str]:
    told = list(found)
    if progress.error is not None and progress.error not in told:
        told.append(progress.error)
    if view is None:
        told.append("Its view is gone. `evervec attach` with the same options makes it again.")
    if progress.done and progress.taken_in and not filled:
        told.append("Its dataset was deleted, so nothing is written. `evervec detach` removes the attachment.")
    return told
