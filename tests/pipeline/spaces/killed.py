"""A process of its own that builds, flips or removes a space, and is killed before a step of that."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pkgutil import resolve_name

from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import fill
from evervec.runtime import open_runtime
from evervec.settings import Settings
from tests import forking
from tests.forking import Forked

WORKS: dict[str, Callable[[Resources], Awaitable[object]]] = {
    "build": fill,
    "activate": flip.activate,
    "roll back": flip.roll_back,
    "purge": removal.purge,
}


async def run_killed(settings: Settings, work: str, step: str) -> None:
    """Run a work in a process until it is killed before a step, a function named with its module; require that it came there."""
    process = await started(settings, work, step)
    code = await asyncio.wait_for(process.wait(), 60)
    assert code == -signal.SIGKILL, (work, step, code)


async def started(settings: Settings, work: str, step: str | None = None) -> Forked:
    """Start a work in a process."""
    return await forking.start(_run, settings, work, step)


def _run(settings: Settings, work: str, step: str | None) -> None:
    if step is not None:
        owner, _, name = step.rpartition(".")
        assert callable(resolve_name(step)), step

        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(resolve_name(owner), name, die)
    asyncio.run(_work(settings, work))


async def _work(settings: Settings, work: str) -> None:
    async with open_runtime(settings) as runtime:
        await WORKS[work](runtime.resources)
