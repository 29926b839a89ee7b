"""The scheduled tasks, sent by TaskIQ's scheduler."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pycron
from taskiq import AsyncBroker, ScheduledTask, ScheduleSource, TaskiqScheduler
from taskiq.api import run_scheduler_task

from evervec.errors import Refused
from evervec.queue import names
from evervec.settings import Settings


def schedules(settings: Settings) -> list[ScheduledTask]:
    """Return the scheduled tasks: a sweep every minute, a weekly full rebuild of every dataset, batch jobs if configured.

    Their ids never change.
    """
    due: list[tuple[str, str, dict[str, bool]]] = [(names.SWEEP, "* * * * *", {})]
    if settings.index_cron:
        due.append((names.INDEX_ALL, _valid("EVERVEC_INDEX_CRON", settings.index_cron), {"full_rebuild": True}))
    if settings.batch_cron:
        due.append((names.PROCESS_BATCHES, _valid("EVERVEC_BATCH_CRON", settings.batch_cron), {}))
    labels = {"lane": str(names.Lane.BACKFILL)}
    return [
        ScheduledTask(task_name=name, schedule_id=name, cron=cron, labels=labels, args=[], kwargs=kwargs)
        for name, cron, kwargs in due
    ]


def _valid(variable: str, cron: str) -> str:
    try:
        pycron.is_now(cron)
    except (ValueError, AssertionError, ArithmeticError) as error:
        raise Refused(
            reason=f"{variable}={cron!r} is not a time ({error}). Give five fields as `0 3 * * 0` (Sunday, 03:00 "
            "UTC), or `off`."
        ) from None
    return cron


class Schedules(ScheduleSource):
    """The schedules of this version."""

    def __init__(self, settings: Settings) -> None:
        self._schedules = schedules(settings)

    async def get_schedules(self) -> list[ScheduledTask]:
        """Return all of them."""
        return self._schedules


async def tick(broker: AsyncBroker, settings: Settings, finish: asyncio.Event) -> None:
    """Send scheduled tasks until `finish` is set. Two schedulers send twice, but leases keep work from being done twice."""
    scheduler = TaskiqScheduler(broker, [Schedules(settings)])
    ticking = asyncio.create_task(run_scheduler_task(scheduler, interval=timedelta(seconds=30)))
    finished = asyncio.create_task(finish.wait())
    try:
        await asyncio.wait({ticking, finished}, return_when=asyncio.FIRST_COMPLETED)
        if ticking.done():
            ticking.result()
    finally:
        for task in (ticking, finished):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
