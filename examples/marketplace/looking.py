"""Waiting by looking, with a deadline: for the answer of a task, for the end of runs; what was asked is not known here."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any
from uuid import UUID

from taskiq import AsyncTaskiqTask, TaskiqResult
from taskiq.brokers.inmemory_broker import InmemoryResultBackend

from evervec.errors import StackError
from evervec.pipeline.status import runs
from evervec.runtime import Runtime
from evervec.store.runs import RunRecord

PATIENCE = 60.0
LOOK = 0.02
"""Seconds between two looks at what a worker does."""


class Lookout:
    """Looks at what the worker of this process does, which `working` is."""

    def __init__(self, runtime: Runtime, working: "asyncio.Task[None]") -> None:
        self._resources, self._working = runtime.resources, working
        # the worker is in this process, so what its tasks answer can stay here; others need a result backend of TaskIQ's
        runtime.broker.with_result_backend(InmemoryResultBackend())

    async def result(self, sent: AsyncTaskiqTask[Any]) -> TaskiqResult[Any]:
        """Wait until a task ended, and return its result, which has its answer or its error."""
        ends = monotonic() + PATIENCE
        while not await sent.is_ready():
            await self._look_again(ends, f"Task {sent.task_id}")
        return await sent.get_result()

    async def answer(self, sent: AsyncTaskiqTask[Any]) -> Any:
        """Wait until a task ended, and return its answer. Raises what the task raised."""
        result = await self.result(sent)
        if result.error is not None:
            raise result.error
        return result.return_value

    async def finished(self, run_ids: Sequence[str]) -> list[RunRecord]:
        """Wait until all of these runs are done, and return them. Raises `StackError` for a run that failed."""
        ends = monotonic() + PATIENCE
        while True:
            found = [await runs.one(self._resources, UUID(run_id)) for run_id in run_ids]
            if all(run.finished_at is not None for run in found):
                break
            await self._look_again(ends, f"Not all of the runs {', '.join(run_ids)}")
        for run in found:
            if run.state != "done":
                raise StackError(reason=f"Run {run.id} is {run.state}: {run.error}")
        return found

    async def _look_again(self, ends: float, what: str) -> None:
        """Wait for a moment. Raises what ended the worker, or `StackError` when the deadline is over."""
        await asyncio.wait({self._working}, timeout=LOOK)
        if self._working.done():
            self._working.result()
        if self._working.done() or monotonic() > ends:
            raise StackError(reason=f"{what} came to an end. EVERVEC_LOG_LEVEL=INFO tells more.")
