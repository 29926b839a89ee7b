"""Text comes in: committed first, announced after. A bad message is counted and listed, and never stops the others."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from uuid import UUID

from evervec.domain.message import IncomingMessage, ReadMessage, RejectedMessage, SkippedMessage
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_MESSAGES, SCORE_MESSAGES, Lane
from evervec.sources import telegram
from evervec.store import datasets, messages

BATCH = 1000
RING = 100
LISTED = 50

Progress = Callable[[int], None]


@dataclass
class Report:
    """What an import did. `rejected` lists the first fifty, `rejections` counts them all."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejections: int = 0
    rejected: list[RejectedMessage] = field(default_factory=list)


async def import_telegram(
    resources: Resources, path: Path, project: str, dataset: str, *, progress: Progress | None = None
) -> Report:
    """Read a Telegram Desktop export into a dataset, a committed batch at a time. Importing again changes nothing.

    Raises `ExportError` when the file can not be read as an export; what was read before a cut is kept.
    """
    report = Report()
    entries = telegram.read_export(path)
    first = list(islice(entries, BATCH))
    async with resources.database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
    for batch in _batches(first, entries):
        await _take(resources, target.id, _sorted_out(batch, report), report, lane=Lane.BACKFILL)
        if progress is not None:
            progress(len(batch))
    return report


async def save_message(resources: Resources, raw: Mapping[str, object], project: str, dataset: str) -> Report:
    """Take in one message as Telegram sends it (export or Bot API form)."""
    report = Report()
    async with resources.database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
    entry = telegram.parse_message(raw, telegram.bot_chat(raw) or "telegram:unknown", "the message")
    await _take(resources, target.id, _sorted_out([entry], report), report, lane=Lane.INTERACTIVE)
    return report


def _batches(first: list[ReadMessage], rest: Iterator[ReadMessage]) -> Iterator[list[ReadMessage]]:
    batch = first
    while batch:
        yield batch
        batch = list(islice(rest, BATCH))


def _sorted_out(entries: Iterable[ReadMessage], report: Report) -> list[IncomingMessage]:
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


async def _take(
    resources: Resources, dataset_id: UUID, incoming: Sequence[IncomingMessage], report: Report, *, lane: Lane
) -> None:
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset_id, incoming)
    report.created += len(saved.created)
    report.changed += len(saved.changed)
    report.unchanged += saved.unchanged
    await announce(resources, [*saved.created, *saved.changed], lane=lane)


async def announce(resources: Resources, message_ids: Sequence[int], *, lane: Lane) -> None:
    """Ring for messages that are committed: to be scored, and to be embedded without waiting for that."""
    for start in range(0, len(message_ids), RING):
        part = list(message_ids[start : start + RING])
        await resources.doorbell.ring(SCORE_MESSAGES, lane=lane, message_ids=part)
        await resources.doorbell.ring(EMBED_MESSAGES, lane=lane, message_ids=part, provider_id=None)
