"""What is due by the clock, sent by TaskIQ's scheduler."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from taskiq import ScheduledTask, ScheduleSource, TaskiqScheduler
from taskiq.api import run_scheduler_task

from evervec.queue import names
from evervec.queue.broker import JetStreamBroker

SCHEDULES = [
    ScheduledTask(
        task_name=names.SWEEP,
        schedule_id=names.SWEEP,
        cron="* * * * *",
        labels={"lane": str(names.Lane.BACKFILL)},
        args=[],
        kwargs={},
    )
]


class Schedules(ScheduleSource):
    """The schedules of this version, always under the same ids."""

    async def get_schedules(self) -> list[ScheduledTask]:
        """All of them."""
        return SCHEDULES


async def tick(broker: JetStreamBroker, finish: asyncio.Event) -> None:
    """Send scheduled tasks until `finish` is set. Two of these send twice, which claims nothing twice."""
    scheduler = TaskiqScheduler(broker, [Schedules()])
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
