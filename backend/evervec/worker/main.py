"""The worker process: runs tasks from NATS and sweeps PostgreSQL for what no task finished, until it is told to stop."""

import asyncio
from collections.abc import Callable

from evervec import log
from evervec.errors import EvervecError
from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import SWEEP_STAGES, Stage
from evervec.queue.receiver import serve
from evervec.runtime import Runtime
from evervec.worker.tasks import attach

logger = log.get("worker")


async def work(runtime: Runtime, finish: asyncio.Event, *, started: Callable[[], None] | None = None) -> None:
    """Run tasks and sweep until `finish` is set; then finish what runs, hand back what was only fetched."""
    attach(runtime.broker, runtime.resources)
    settings = runtime.settings
    async with asyncio.TaskGroup() as group:
        # apart from each other: a slow chat model keeps no row from being embedded
        sweepers = [group.create_task(_sweeping(runtime.resources, stage, finish)) for stage in SWEEP_STAGES]
        group.create_task(follow(runtime.resources.mirrors, runtime.broker, finish))
        group.create_task(
            serve(
                runtime.broker,
                max_async_tasks=settings.worker_tasks,
                wait_tasks_timeout=settings.stop_seconds,
                finish=finish,
            )
        )
        if started is not None:
            started()
        await finish.wait()
        _, late = await asyncio.wait(sweepers, timeout=settings.stop_seconds)
        for sweeper in late:
            sweeper.cancel()


async def _sweeping(resources: Resources, stage: Stage, finish: asyncio.Event) -> None:
    """Sweep every few seconds. Whatever is down now is up again later: the loop itself never ends by an error."""
    while not finish.is_set():
        try:
            await stage(resources, finish.is_set)
        except EvervecError as error:
            logger.warning("sweep failed", stage=stage.__name__, error=str(error))
        except Exception:
            # A sweeper that is gone would leave rows behind without a word, while the process looks alive.
            logger.exception("sweep failed", stage=stage.__name__)
        try:
            await asyncio.wait_for(finish.wait(), resources.settings.sweep_seconds)
        except TimeoutError:
            continue
