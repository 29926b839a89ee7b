"""The worker process: run tasks from NATS, and sweep PostgreSQL for what no task finished, until told to stop."""

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
    """Run tasks and sweep until `finish` is set; then finish running tasks, and release those only fetched."""
    attach(runtime.broker, runtime.resources)
    settings = runtime.settings
    async with asyncio.TaskGroup() as group:
        # one task a stage, so that a slow chat model does not delay embedding
        sweeps = [group.create_task(_sweep(runtime.resources, stage, finish)) for stage in SWEEP_STAGES]
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
        _, late = await asyncio.wait(sweeps, timeout=settings.stop_seconds)
        for sweep in late:
            sweep.cancel()


async def _sweep(resources: Resources, stage: Stage, finish: asyncio.Event) -> None:
    """Run one stage of the sweep every few seconds. An error is logged and does not end the loop."""
    while not finish.is_set():
        try:
            await stage(resources, finish.is_set)
        except EvervecError as error:
            logger.warning("sweep failed", stage=stage.__name__, error=str(error))
        except Exception:
            # if this loop ended, rows would wait unnoticed while the process looks alive
            logger.exception("sweep failed", stage=stage.__name__)
        try:
            await asyncio.wait_for(finish.wait(), resources.settings.sweep_seconds)
        except TimeoutError:
            continue
