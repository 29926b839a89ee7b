"""What a worker does when PostgreSQL carries the rings: process the datasets that were named, beside the sweep."""

import asyncio
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError
from evervec.pipeline.embedding.embed import Until
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import DATASET_STAGES, DatasetStage

logger = log.get("rings")

Work = tuple[DatasetStage, UUID]


class RungDatasets:
    """Runs each stage of each named dataset, once at a time. A ring that comes meanwhile runs it again afterwards.

    Of each stage at most `EVERVEC_WORKER_TASKS` datasets are processed at a time, so that no stage waits for another one.
    """

    def __init__(self, resources: Resources, until: Until) -> None:
        self._resources = resources
        self._until = until
        self._running: dict[Work, asyncio.Task[None]] = {}
        self._again: set[Work] = set()
        self._room = {stage: asyncio.Semaphore(resources.settings.worker_tasks) for stage in DATASET_STAGES}

    def process(self, dataset_id: UUID) -> None:
        """Process a dataset in the background."""
        for stage in DATASET_STAGES:
            work = (stage, dataset_id)
            self._again.add(work)
            if work not in self._running and not self._until():
                self._running[work] = asyncio.create_task(self._process(*work))

    async def finish(self, seconds: float) -> None:
        """Wait for what runs, then cancel it: its leases are released."""
        running = list(self._running.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _process(self, stage: DatasetStage, dataset_id: UUID) -> None:
        work = (stage, dataset_id)
        try:
            async with self._room[stage]:
                while work in self._again and not self._until():
                    self._again.discard(work)
                    await self._logged(stage, dataset_id)
        finally:
            self._again.discard(work)
            del self._running[work]

    async def _logged(self, stage: DatasetStage, dataset_id: UUID) -> None:
        try:
            await stage(self._resources, dataset_id, self._until)
        except EvervecError as error:
            logger.warning("ring not answered", stage=stage.__name__, dataset=str(dataset_id), error=str(error))
        except Exception:
            # the sweep goes on to look for these rows
            logger.exception("ring not answered", stage=stage.__name__, dataset=str(dataset_id))
