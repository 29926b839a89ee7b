"""Attached tables are followed: what their change records name is taken in, and the rows that were there before."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError, LeaseLostError
from evervec.pipeline import leases
from evervec.pipeline.attached.intake import AttachmentGone, Intake
from evervec.pipeline.attached.repair import repair_elsewhere
from evervec.pipeline.attached.work import AttachmentWork, Taken
from evervec.pipeline.embedding.embed import Until, never, within_time_slice
from evervec.pipeline.leases import HeldLease
from evervec.pipeline.resources import Resources
from evervec.store.attached import attachments

logger = log.get("attached")

Due = Callable[[], Awaitable[list[UUID]]]
Follow = Callable[[Resources, UUID, Until], Coroutine[None, None, None]]

LOOK_SECONDS = 0.05
"""Seconds between two looks for attachments with work, while others are worked on."""

POLLING_PAUSES = 19
"""How many times as long as a look at a polled table the pause after it is at least: 5 % of the time are spent on looking."""

DECODING_PAUSE_SECONDS = 1.0
"""Seconds between two readings of a slot: the server writes a line into its log for each."""

RETRY_SECONDS = 10.0
"""Seconds until a table that could not be read is tried again."""


async def follow_tables(resources: Resources, until: Until = never) -> None:
    """Take in whatever waits of attached tables, each in a task of its own, until nothing waits, for one time slice.

    So a million existing rows of one table do not delay a changed row of another.
    """

    async def due() -> list[UUID]:
        async with resources.database.read() as tx:
            return await attachments.due(tx)

    await _follow(resources, due, follow_table, within_time_slice(until))


async def follow_elsewhere(resources: Resources, until: Until = never) -> None:
    """Do the same for tables whose changes are not recorded in our database, and that have to be looked at for that.

    New work is found as long as any of them is at work: one that does not answer keeps none of the others waiting.
    """

    async def due() -> list[UUID]:
        async with resources.database.read() as tx:
            found = await attachments.watched(tx)
        return [source_id for source_id, has_work in found.items() if has_work or resources.others.is_due(source_id)]

    await _follow(resources, due, look_at_table, until)


async def _follow(resources: Resources, due: Due, follow: Follow, until: Until) -> None:
    running: dict[UUID, asyncio.Task[None]] = {}
    try:
        while True:
            if not until():
                for source_id in await due():
                    if source_id not in running:
                        running[source_id] = asyncio.create_task(follow(resources, source_id, until))
            if not running:
                return
            done, _ = await asyncio.wait(running.values(), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            running = {source_id: task for source_id, task in running.items() if task not in done}
            for task in done:
                task.result()
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def look_at_table(resources: Resources, source_id: UUID, until: Until = never) -> None:
    """Look whether anything waits of an attachment, without its lease, and take it in then."""
    found, started, pause = False, monotonic(), None
    try:
        work = await AttachmentWork.open(resources, resources.database, source_id)
        if resources.others.is_check_due(source_id):
            await repair_elsewhere(resources, work.opened)
        found = await work.waits()
        if work.attachment.description.capture == "logical":
            pause = DECODING_PAUSE_SECONDS
        elif work.attachment.description.capture == "poll":
            pause = max(resources.settings.attached_seconds, POLLING_PAUSES * (monotonic() - started))
    except AttachmentGone:
        return
    except EvervecError as error:
        await _delay(resources, source_id, error)
    finally:
        resources.others.looked(source_id, found=found, pause=pause)
    if found:
        await follow_table(resources, source_id, until)


async def follow_table(resources: Resources, source_id: UUID, until: Until = never, taken: Taken | None = None) -> None:
    """Take in what waits of one attachment, unless somebody else does so.

    A table that can not be read is logged once, shown by `evervec status`, and tried again later.
    """
    try:
        name = f"{attachments.ATTACHMENT_LEASE}{source_id}"
        async with leases.held(resources.database, name, resources.settings.lease_seconds) as lease:
            if lease is not None:
                await _work(resources, lease, source_id, until, taken)
    except AttachmentGone:
        logger.info("attachment was removed", source=str(source_id))
    except LeaseLostError as error:
        logger.warning("attachment left to another worker", source=str(source_id), reason=str(error))
    except EvervecError as error:
        await _delay(resources, source_id, error)


async def _delay(resources: Resources, source_id: UUID, error: EvervecError) -> None:
    async with resources.database.transaction() as tx:
        is_new = await attachments.delay(tx, source_id, str(error), seconds=RETRY_SECONDS)
    if is_new:
        logger.warning("attached table not read", source=str(source_id), error=str(error))


async def _work(resources: Resources, lease: HeldLease, source_id: UUID, until: Until, taken: Taken | None) -> None:
    work = await AttachmentWork.open(resources, lease.database, source_id)
    intake = Intake(resources, lease.database, work.opened, work.keep)
    while not until():
        drained = await work.drain(intake)
        if not drained and not await work.take_in_existing(intake, taken):
            await work.recovered()
            return
