"""What windows show of attached tables: how far each is, what waits, what failed, what it costs, what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.sources import SourceType
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment
from evervec.store import documents, monitor, providers, sources
from evervec.store.attached import capture, changes, failures, views
from evervec.store.attached.changes import Backlog
from evervec.store.session import ReadTx
from evervec.store.sources import SourceRecord

NOTHING_WAITS = Backlog(0, 0.0)


@dataclass(frozen=True, kw_only=True)
class AttachmentReport:
    """One attached table.

    `state` is `taking in` while existing rows are read, `following` afterwards, and `broken` while it can not be read.
    `view` is what SQL reads. `changes_waiting` counts change records, the oldest of which is `lag_seconds` old; `pending` rows are not embedded yet.
    `cost_usd` is what embedding all of it costs once, None where the price is not known.
    """

    id: UUID
    table: str
    project: str
    datasets: list[str]
    view: str | None
    capture: str
    state: str
    rows_taken_in: int
    rows_expected: int
    rows_per_second: float | None
    remaining_seconds: float | None
    changes_waiting: int
    lag_seconds: float | None
    documents: int
    chunks: int
    pending: int
    failed: int
    tokens: int
    cost_usd: float | None
    problems: list[str]


async def attachments(resources: Resources, project: str | None = None) -> list[AttachmentReport]:
    """Return all attached tables, or those of a project, by name."""
    async with resources.database.read() as tx:
        return await listed(tx, resources.database.schema, project)


async def listed(tx: ReadTx, schema: str, project: str | None = None) -> list[AttachmentReport]:
    """Return all attached tables, or those of a project, by name, in an open transaction."""
    known = await sources.of_type(tx, SourceType.ATTACHED, project=project)
    if not known:
        return []
    ids = [one.id for one in known]
    waiting, failed = await changes.backlog(tx, ids), await failures.counts(tx, ids)
    active = await providers.active(tx)
    price = None if active is None else active.usd_per_million_tokens
    return [
        await _report(tx, schema, one, waiting.get(one.id, NOTHING_WAITS), failed.get(one.id, 0), price)
        for one in known
    ]


async def _report(
    tx: ReadTx, schema: str, record: SourceRecord, waiting: Backlog, failed: int, price: float | None
) -> AttachmentReport:
    attachment, progress = Attachment.load(record.spec), Progress.load(record.cursor)
    found = await capture.state(tx, schema, record.id, attachment.table)
    filled = [one for one in (await sources.filled(tx, record.id)).values() if one.is_live]
    held = [await documents.totals(tx, one.id) for one in filled]
    tokens = sum(one.tokens for one in held)
    view = await views.place(tx, schema, record.view)
    return AttachmentReport(
        id=record.id,
        table=attachment.table.label if found.table is None else found.table.label,
        project=attachment.description.project if not filled else filled[0].project,
        datasets=[one.slug for one in filled],
        view=view,
        capture=attachment.description.capture,
        state="broken" if progress.error else "following" if progress.done else "taking in",
        rows_taken_in=progress.taken_in,
        rows_expected=max(progress.expected, progress.taken_in),
        rows_per_second=progress.speed,
        remaining_seconds=progress.remaining_seconds,
        changes_waiting=waiting.records,
        lag_seconds=waiting.oldest_seconds if waiting.records else None,
        documents=sum(one.documents for one in held),
        chunks=sum(one.chunks for one in held),
        pending=await monitor.pending(tx, [one.id for one in filled]),
        failed=failed,
        tokens=tokens,
        cost_usd=None if price is None else tokens * price / 1_000_000,
        problems=_problems(progress, [str(one) for one in found.problems], filled, view),
    )


def _problems(progress: Progress, found: Sequence[str], filled: Sequence[object], view: str | None) -> list[str]:
    told = list(found)
    if progress.error is not None:
        told.append(progress.error)
    if view is None:
        told.append("Its view is gone. `evervec attach` with the same options makes it again.")
    if progress.done and progress.taken_in and not filled:
        told.append("Its dataset was deleted, so nothing is written. `evervec detach` removes the attachment.")
    return told
