"""A table is detached: nothing of Evervec stays on it, and its documents, vectors and records are removed."""

from dataclasses import dataclass
from functools import partial
from time import perf_counter
from uuid import UUID

from evervec import log
from evervec.domain.attachment import AttachedTable
from evervec.domain.sources import SourceType
from evervec.errors import EvervecError, Refused
from evervec.pipeline.attached.attach import TABLE_LOCK_SECONDS
from evervec.pipeline.captures import opening
from evervec.pipeline.captures.opening import OpenAttachment
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment
from evervec.sources.sql.description import parts_of
from evervec.store import datasets, documents, sources
from evervec.store.attached import capture, changes, views
from evervec.store.attached import documents as attached_documents
from evervec.store.captures import installing, outbox, slots
from evervec.store.captures.other_database import OtherDatabase
from evervec.store.database.session import Tx
from evervec.store.sources import SourceRecord

logger = log.get("attached")

REMOVED_TOGETHER = 2000


@dataclass(frozen=True)
class Detached:
    """What was removed: documents with their chunks and vectors, and changes that waited. In a dry run what would be.

    `left` are the statements that remove what is left in another database.
    """

    table: str
    project: str
    datasets: list[str]
    documents: int
    changes: int
    seconds: float
    left: list[str]


async def find(resources: Resources, name: str, project: str | None = None) -> SourceRecord:
    """Return the attachment of a table, by the name it has or had. Raises `Refused` for none or several."""
    async with resources.database.read() as tx:
        known = await sources.of_type(tx, SourceType.ATTACHED, project=project)
        found = [one for one in known if _plain(name) in _names(one, Attachment.load(one.spec).table)]
        if not found:
            here = [one for one in known if one.url_encrypted is None]
            now = {one.id: await capture.locate(tx, one.id, Attachment.load(one.spec).table) for one in here}
            found = [one for one in here if _plain(name) in _names(one, now[one.id])]
    if not found:
        listed = ", ".join(sorted({one.name for one in known})) or "none yet"
        raise Refused(reason=f"No table {name!r} is attached. Attached tables: {listed}.")
    tables = sorted({one.name for one in found})
    if len(tables) > 1:
        raise Refused(
            reason=f"{len(tables)} attached tables are called {name!r}: {', '.join(tables)}. Name its schema."
        )
    if len(found) > 1:
        raise Refused(
            reason=f"Table {name!r} is attached {len(found)} times. Say which one with --project, or give its whole "
            f"name: {', '.join(one.name for one in found)}."
        )
    return found[0]


def _names(record: SourceRecord, table: AttachedTable | None) -> set[str]:
    said = Attachment.load(record.spec).description.table
    return {record.name, _plain(said), *([table.label, table.name] if table else [])}


def _plain(name: str) -> str:
    """Return a table's name without the quotation marks of its parts."""
    try:
        return ".".join(parts_of(name))
    except ValueError:
        return name


async def detach(
    resources: Resources, name: str, *, project: str | None = None, dry: bool = False, forget: bool = False
) -> Detached:
    """Detach a table, also one that does not exist any more; with `forget` its database, which is not ours, is not asked.

    Triggers, functions, view and the source go in one transaction: a worker that is at it finds itself without an
    attachment, and writes nothing any more. Documents and vectors go afterwards, some at a time. Another database has to
    answer before anything is removed; what is left there if it fails afterwards is in the result.
    """
    started = perf_counter()
    record = await find(resources, name, project)
    async with resources.database.read() as tx:
        filled = list((await sources.filled(tx, record.id)).values())
        project_name = filled[0].project if filled else (project or "")
        held = sum([(await documents.totals(tx, one.id, one.space_id)).documents for one in filled])
        waiting = await changes.backlog(tx, [record.id])
    attachment = Attachment.load(record.spec)
    # a polled table has nothing of ours in its database
    makes_nothing = attachment.description.capture == "poll" or (forget and attachment.where is not None)
    opened = None if dry or makes_nothing else await opening.opened(resources, record)
    left: list[str] = []
    known = [one.slug for one in filled if one.is_live]
    records = waiting[record.id].records if record.id in waiting else 0
    if not dry:
        if attachment.is_recorded_here:
            await capture.remove(
                resources.database,
                record.id,
                attachment.table,
                partial(_remove, resources.database.schema, record.id),
                seconds=TABLE_LOCK_SECONDS,
            )
        else:
            left = await _remove_captured(resources, record, attachment, opened)
        held = sum([await _purge(resources, one.id) for one in filled])
        await _clear(resources, record.id)
    return Detached(record.name, project_name, known, held, records, perf_counter() - started, left)


async def _remove_captured(
    resources: Resources, record: SourceRecord, attachment: Attachment, opened: OpenAttachment | None
) -> list[str]:
    """Remove the source, and then its capture in the table's database; return what is left there to be run."""
    if opened is not None:
        await opened.locate()
    await resources.database.with_retries(partial(_remove, resources.database.schema, record.id))
    is_decoded = attachment.description.capture == "logical"
    if attachment.description.capture == "poll":
        return []
    try:
        if opened is not None and is_decoded:
            await slots.remove(opened.database, record.id)
            return []
        if opened is not None and isinstance(opened.database, OtherDatabase):
            await installing.remove(opened.database, record.id, attachment.table, seconds=TABLE_LOCK_SECONDS)
            return []
    except EvervecError as error:
        logger.warning("not removed from another database", table=record.name, error=str(error))
    return slots.slot_leftovers(record.id) if is_decoded else outbox.leftovers(attachment.description.outbox, record.id)


async def _remove(schema: str, source_id: UUID, tx: Tx) -> None:
    await views.remove(tx, schema, source_id)
    for one in (await sources.filled(tx, source_id)).values():
        if not await attached_documents.has_strangers(tx, one.id):
            await datasets.remove(tx, one.id)
    await sources.remove(tx, source_id)


async def _purge(resources: Resources, dataset_id: UUID) -> int:
    total = 0
    while removed := await resources.database.with_retries(
        partial(attached_documents.remove_some, dataset_id=dataset_id, limit=REMOVED_TOGETHER)
    ):
        total += removed
    return total


async def _clear(resources: Resources, source_id: UUID) -> None:
    while await resources.database.with_retries(partial(changes.clear, source_id=source_id, limit=REMOVED_TOGETHER)):
        continue
