"""Repair of triggers that were dropped, changed or switched off, and of the rows that were written meanwhile."""

from evervec import log
from evervec.errors import ConflictError, DatabaseRefusedError, LeaseLostError
from evervec.pipeline.attached.repair import compare_rearranged, mendable_captures, repair_captures
from evervec.pipeline.embedding.embed import Until, never
from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.store.database.session import Database
from evervec.store.schema import integrity, populate
from evervec.store.schema.integrity import TriggerProblem
from evervec.store.words import filling

logger = log.get("triggers")

REPAIR_LEASE = "triggers"


async def trigger_problems(resources: Resources) -> list[TriggerProblem]:
    """Return what is wrong with our triggers, and which rows may be unknown because of it."""
    async with resources.database.read() as tx:
        return await integrity.problems(tx, resources.database.schema)


async def repair_triggers(resources: Resources, until: Until = never) -> None:
    """Install what is missing or switched off, and compare the rows of those tables with their records.

    Needs the rights of the role that migrated; without them the problem is logged, and `evervec status` shows it.
    """
    database = resources.database
    await compare_rearranged(database)
    # looked at first, since a lease is written
    if not await trigger_problems(resources) and not await mendable_captures(database):
        return
    try:
        async with held(database, REPAIR_LEASE, resources.settings.lease_seconds) as alone:
            if alone is not None:
                await _repair(alone.database, until)
                await repair_captures(alone.database)
    except LeaseLostError as error:
        logger.warning("repair of triggers left to another process", error=str(error))


async def _repair(database: Database, until: Until) -> None:
    async with database.read() as tx:
        broken = await integrity.defects(tx, database.schema)
    if broken:
        await _install(database, broken)
    if not until():
        await _compare(database, until)


async def _install(database: Database, broken: list[TriggerProblem]) -> None:
    try:
        async with database.transaction() as tx:
            await integrity.repair(tx, database.schema, broken)
    except (ConflictError, DatabaseRefusedError) as error:
        logger.warning("triggers not repaired", problems=[str(problem) for problem in broken], error=str(error))
        return
    for problem in broken:
        logger.warning("trigger repaired", table=problem.table, name=problem.name, problem=problem.problem)


async def _compare(database: Database, until: Until) -> None:
    async with database.read() as tx:
        tables = list(await integrity.uncompared(tx))
    if not tables:
        return
    registered = removed = 0
    tracked = list(integrity.tracked(tables))
    for steps in (populate.run(database, tracked), filling.register(database, tracked, compare=True)):
        async for step in steps:
            registered, removed = registered + step.taken, removed + step.removed
            if until():
                return
    async with database.transaction() as tx:
        await integrity.compared(tx, tables)
    logger.warning("rows compared after a repair", tables=tables, registered=registered, removed=removed)
