"""Repair of an attached table's triggers that were dropped, changed or switched off; afterwards all its rows are compared.

So they are when partitions come or go with their rows, for which no trigger fires.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from evervec import log
from evervec.domain.attachment import AttachedTable
from evervec.domain.sources import SourceType
from evervec.errors import EvervecError
from evervec.pipeline.captures.opening import OpenAttachment
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment
from evervec.store import sources
from evervec.store.attached import attachments, capture, changes, problems
from evervec.store.attached.problems import CaptureState
from evervec.store.captures import installing
from evervec.store.captures.other_database import OtherDatabase
from evervec.store.database.session import Database
from evervec.store.sources import SourceRecord

logger = log.get("attached")

REPAIR_SECONDS = 5.0
"""Longest wait for a table while its triggers are repaired."""


async def mendable_captures(database: Database) -> dict[UUID, CaptureState]:
    """Return the attachments of our own database whose triggers have to be installed again.

    Other problems are left to `evervec status`.
    """
    found = {}
    async with database.read() as tx:
        for record in await sources.of_type(tx, SourceType.ATTACHED):
            attachment = Attachment.load(record.spec)
            if not attachment.is_recorded_here:
                continue
            table = attachment.table
            state = await problems.state(tx, database.schema, record.id, table)
            if state.problems and all(one.mendable for one in state.problems):
                found[record.id] = state
    return found


async def repair_captures(database: Database) -> None:
    """Install again the triggers that can be mended, table by table."""
    for source_id, state in (await mendable_captures(database)).items():
        if state.table is None:
            continue
        with _told(state.table, state):
            await capture.repair(database, source_id, state.table)


async def compare_rearranged(database: Database) -> None:
    """Have the rows of tables in our own database compared whose partitions or children are not those that they had."""
    found = []
    async with database.read() as tx:
        for record in await sources.of_type(tx, SourceType.ATTACHED):
            if record.url_encrypted is None:
                table = await capture.locate(tx, record.id, Attachment.load(record.spec).table)
                found += [] if table is None else [(record, await capture.parts(tx, table))]
    for record, parts in found:
        await _compare_if_rearranged(database, record, parts)


async def _compare_if_rearranged(database: Database, record: SourceRecord, parts: str | None) -> None:
    if parts == record.cursor.get(attachments.PARTS):
        return
    async with database.transaction() as tx:
        if await attachments.save_parts(tx, record.id, parts):
            await changes.ask_comparison(tx, record.id)
            logger.info("partitions came or went, all rows are compared", table=record.name)


async def repair_elsewhere(resources: Resources, opened: OpenAttachment) -> None:
    """Install the triggers of a table in another database again if they can be mended; not if it was detached meanwhile."""
    state = await opened.state()
    there, source_id = opened.database, opened.record.id
    if state.table is not None and opened.is_elsewhere:
        async with there.read() as tx:
            parts = await capture.parts(tx, state.table)
        await _compare_if_rearranged(resources.database, opened.record, parts)
    if state.table is None or not state.problems or not all(one.mendable for one in state.problems):
        return
    if not isinstance(there, OtherDatabase) or opened.attachment.description.capture != "triggers":
        return
    with _told(state.table, state):
        await installing.repair(there, source_id, state.table, seconds=REPAIR_SECONDS)
    async with resources.database.read() as tx:
        gone = await sources.by_id(tx, source_id) is None
    if gone:
        await installing.remove(there, source_id, state.table, seconds=REPAIR_SECONDS)


@contextmanager
def _told(table: AttachedTable, state: CaptureState) -> Iterator[None]:
    """Log a repair, also one that fails: somebody holds the table, or the role does not own it; the next pass tries again."""
    found = [f"{one.what} {one.problem}" for one in state.problems]
    try:
        yield
    except EvervecError as error:
        logger.warning("triggers not repaired", table=table.label, problems=found, error=str(error))
    else:
        logger.warning("triggers repaired", table=table.label, problems=found)
