"""Repair of an attached table's triggers that were dropped, changed or switched off; afterwards all its rows are compared."""

from uuid import UUID

from evervec import log
from evervec.domain.sources import SourceType
from evervec.errors import EvervecError
from evervec.sources.attached.description import Attachment
from evervec.store import sources
from evervec.store.attached import capture
from evervec.store.attached.capture import CaptureState
from evervec.store.session import Database

logger = log.get("attached")


async def mendable_captures(database: Database) -> dict[UUID, CaptureState]:
    """Return the attachments whose triggers have to be installed again. Other problems are left to `evervec status`."""
    found = {}
    async with database.read() as tx:
        for record in await sources.of_type(tx, SourceType.ATTACHED):
            table = Attachment.load(record.spec).table
            state = await capture.state(tx, database.schema, record.id, table)
            if state.problems and all(one.mendable for one in state.problems):
                found[record.id] = state
    return found


async def repair_captures(database: Database) -> None:
    """Install again the triggers that can be mended, table by table."""
    for source_id, state in (await mendable_captures(database)).items():
        if state.table is None:
            continue
        problems = [f"{one.what} {one.problem}" for one in state.problems]
        try:
            await capture.repair(database, source_id, state.table)
        except EvervecError as error:
            # somebody holds the table, or the role does not own it: the next pass tries again
            logger.warning("triggers not repaired", table=state.table.label, problems=problems, error=str(error))
        else:
            logger.warning("triggers repaired", table=state.table.label, problems=problems)
