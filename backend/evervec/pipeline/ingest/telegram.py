"""Telegram messages are imported: first committed, then announced. An invalid one is counted and listed, and stops no other."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from evervec.cancellation import raise_if_cancelled
from evervec.domain.extraction.message import IncomingMessage, ReadMessage, RejectedMessage, SkippedMessage
from evervec.errors import ExportError
from evervec.pipeline.batch import router
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_MESSAGES, SCORE_MESSAGES, Lane
from evervec.sources.telegram import reader
from evervec.store import datasets, messages
from evervec.store.batch import batch_queue
from evervec.store.schema.embeddables import MESSAGE

MESSAGES_TOGETHER = 1000
RING = 100
LISTED = 50

Progress = Callable[[int], None]


@dataclass
class ImportReport:
    """The counts of an import. `rejected` lists the first fifty invalid messages, `rejections` counts all of them."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejections: int = 0
    rejected: list[RejectedMessage] = field(default_factory=list)


async def import_telegram(
    resources: Resources,
    path: Path,
    project: str,
    dataset: str,
    *,
    report: ImportReport | None = None,
    progress: Progress | None = None,
    deferred: bool = False,
) -> ImportReport:
    """Read a Telegram Desktop export into a dataset, a committed batch at a time. Importing again changes nothing.

    With `deferred` the messages are embedded by batch jobs; topics and atoms extracted from them are not. Raises `NoBatchError`,
    `ExportError` when the file can not be read as an export; what was read before a cut is committed, and
    counted in the caller's `report`.
    """
    report = ImportReport() if report is None else report
    if deferred:
        await router.require_batch_api(resources, project, dataset)
    target = None
    for batch in _batches(reader.read_export(path)):
        raise_if_cancelled()
        if target is None:  # not before there is something to put into it
            async with resources.database.transaction() as tx:
                target = await datasets.ensure(tx, project, dataset)
        await _save(resources, target.id, _accept(batch, report), report, lane=Lane.BACKFILL, deferred=deferred)
        if progress is not None:
            progress(len(batch))
    return report


async def save_message(resources: Resources, raw: Mapping[str, object], project: str, dataset: str) -> ImportReport:
    """Save one message as Telegram sends it, in the form of an export or of the Bot API."""
    report = ImportReport()
    async with resources.database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
    entry = reader.parse_message(raw, reader.bot_chat(raw) or "telegram:unknown", "the message")
    await _save(resources, target.id, _accept([entry], report), report, lane=Lane.INTERACTIVE)
    return report


async def new_texts(resources: Resources, path: Path, dataset_id: UUID | None) -> AsyncIterator[Sequence[str]]:
    """Yield, in the parts of claims, the texts that an import would embed: of messages that are new to a dataset, or edited.

    Raises `ExportError` as an import does.
    """
    size, waiting = resources.settings.embed_batch, list[str]()
    for batch in _batches(reader.read_export(path)):
        incoming = _accept(batch, ImportReport())
        if dataset_id is None:
            waiting += [one.text for one in incoming]
        else:
            async with resources.database.read() as tx:
                waiting += await messages.new_texts(tx, dataset_id, incoming)
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _batches(entries: Iterator[ReadMessage]) -> Iterator[list[ReadMessage]]:
    """Group messages for one transaction each. What was read before an `ExportError` is yielded before it is raised."""
    batch: list[ReadMessage] = []
    try:
        for entry in entries:
            batch.append(entry)
            if len(batch) == MESSAGES_TOGETHER:
                yield batch
                batch = []
    except ExportError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _accept(entries: Iterable[ReadMessage], report: ImportReport) -> list[IncomingMessage]:
    taken = []
    for entry in entries:
        match entry:
            case IncomingMessage():
                taken.append(entry)
            case SkippedMessage():
                report.skipped += 1
            case RejectedMessage():
                report.rejections += 1
                if len(report.rejected) < LISTED:
                    report.rejected.append(entry)
    return taken


async def _save(
    resources: Resources,
    dataset_id: UUID,
    incoming: Sequence[IncomingMessage],
    report: ImportReport,
    *,
    lane: Lane,
    deferred: bool = False,
) -> None:
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset_id, incoming)
        if deferred:
            written = [*saved.created, *saved.changed]
            await batch_queue.mark(tx, MESSAGE, written, hours=resources.settings.batch_hours)
    report.created += len(saved.created)
    report.changed += len(saved.changed)
    report.unchanged += saved.unchanged
    await announce(resources, dataset_id, [*saved.created, *saved.changed], lane=lane)


async def announce(resources: Resources, dataset_id: UUID, message_ids: Sequence[int], *, lane: Lane) -> None:
    """Ring for committed messages: to score them, and to embed them without waiting for the score."""
    for start in range(0, len(message_ids), RING):
        part = list(message_ids[start : start + RING])
        await resources.doorbell.ring(SCORE_MESSAGES, of=dataset_id, lane=lane, message_ids=part)
        await resources.doorbell.ring(EMBED_MESSAGES, of=dataset_id, lane=lane, message_ids=part, provider_id=None)
