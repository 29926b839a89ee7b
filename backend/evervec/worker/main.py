"""The worker process: hear what waits, and sweep PostgreSQL for what nobody told, until told to stop."""

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError
from evervec.pipeline.attached.follow import follow_elsewhere, follow_tables
from evervec.pipeline.budget import prices
from evervec.pipeline.embedding.health import make_checks_due
from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.rung_datasets import RungDatasets
from evervec.pipeline.upkeep.sweep import SWEEP_STAGES, Stage
from evervec.runtime import Runtime
from evervec.store.rings.doorbell import PostgresDoorbell
from evervec.worker.tasks import attach

logger = log.get("worker")


async def work(runtime: Runtime, finish: asyncio.Event, *, started: Callable[[], None] | None = None) -> None:
    """Run tasks and sweep until `finish` is set; then finish running tasks, and release those only fetched."""
    attach(runtime.broker, runtime.resources)
    settings = runtime.settings
    runtime.resources.others.listen()
    await prices.refresh(runtime.resources.database)
    await make_checks_due(runtime.resources)
    wakes = [asyncio.Event() for _ in SWEEP_STAGES]
    async with asyncio.TaskGroup() as group:
        # one task a stage, so that a slow chat model does not delay embedding
        sweeps = [
            group.create_task(_sweep(runtime.resources, stage, wake, finish))
            for stage, wake in zip(SWEEP_STAGES, wakes, strict=True)
        ]
        group.create_task(follow(runtime.resources.mirrors, runtime.resources.doorbell, finish))
        group.create_task(_hear(runtime, wakes, finish))
        if started is not None:
            started()
        await finish.wait()
        for wake in wakes:
            wake.set()
        _, late = await asyncio.wait(sweeps, timeout=settings.stop_seconds)
        for sweep in late:
            sweep.cancel()


async def _hear(runtime: Runtime, wakes: Iterable[asyncio.Event], finish: asyncio.Event) -> None:
    """Run tasks from NATS, or process the datasets that PostgreSQL rings for, until `finish` is set."""
    if isinstance(runtime.resources.doorbell, PostgresDoorbell):
        await _answer_rings(runtime.resources, runtime.resources.doorbell, wakes, finish)
        return
    from evervec.queue.receiver import serve

    await serve(
        runtime.jetstream,
        max_async_tasks=runtime.settings.worker_tasks,
        wait_tasks_timeout=runtime.settings.stop_seconds,
        finish=finish,
    )


async def _answer_rings(
    resources: Resources, doorbell: PostgresDoorbell, wakes: Iterable[asyncio.Event], finish: asyncio.Event
) -> None:
    rung = RungDatasets(resources, finish.is_set)

    def heard(dataset_id: UUID | None) -> None:
        if dataset_id is not None:
            rung.process(dataset_id)
            return
        for wake in wakes:
            wake.set()

    async with doorbell.listening_for_work(heard):
        await finish.wait()
    await rung.finish(resources.settings.stop_seconds)


async def _sweep(resources: Resources, stage: Stage, wake: asyncio.Event, finish: asyncio.Event) -> None:
    """Run one stage of the sweep every few seconds, and when woken. An error is logged and does not end the loop."""
    settings = resources.settings
    # whoever writes to an attached table rings for nobody: a NOTIFY would take a lock of the whole server at each commit
    is_following = stage in (follow_tables, follow_elsewhere)
    usual = min(settings.attached_seconds, settings.sweep_seconds) if is_following else settings.sweep_seconds
    while not finish.is_set():
        wake.clear()
        pause = settings.sweep_seconds
        try:
            await stage(resources, finish.is_set)
            pause = usual
        except EvervecError as error:
            logger.warning("sweep failed", stage=stage.__name__, error=str(error))
        except Exception:
            # if this loop ended, rows would wait unnoticed while the process looks alive
            logger.exception("sweep failed", stage=stage.__name__)
        try:
            await asyncio.wait_for(wake.wait(), pause)
        except TimeoutError:
            continue
