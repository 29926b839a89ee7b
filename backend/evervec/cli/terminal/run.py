"""How a command runs: open the runtime, call a function, close, turn errors into an exit code."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from evervec import log
from evervec.cli.terminal import error_report, output
from evervec.pipeline.resources import Resources
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings

T = TypeVar("T")


def settings(*, stays: bool = False) -> Settings:
    """Return the settings of this process. A wrong one is a usage error that names its variable.

    A command that stays logs from WARNING on; one that ends prints by itself what matters. EVERVEC_LOG_LEVEL overrides both.
    """
    try:
        found = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = f"EVERVEC_{'_'.join(str(part) for part in problem['loc']).upper()}"
            output.error(f"{name}={problem.get('input')}: {problem['msg']}. Set it right, or unset it.")
        raise typer.Exit(2) from None
    level = found.log_level if stays or "log_level" in found.model_fields_set else "ERROR"
    log.configure(level, as_json=found.log_json)
    return found


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. Whatever goes wrong becomes a line on stderr and an exit code."""
    try:
        return uvloop.run(work)
    except (Exception, BaseExceptionGroup, KeyboardInterrupt, asyncio.CancelledError) as error:
        raise typer.Exit(error_report.report(error)) from None


def call(function: Callable[[Resources], Awaitable[T]], *, queue: bool = False, sends: bool = True) -> T:
    """Open the runtime, call a pipeline function, close. What most commands are; few of them need NATS."""

    async def through(runtime: Runtime) -> T:
        return await function(runtime.resources)

    return with_runtime(through, queue=queue, sends=sends)


def with_runtime(
    function: Callable[[Runtime], Awaitable[T]], *, queue: bool = False, sends: bool = True, migrate: bool | None = None
) -> T:
    """Open the runtime, call with all of it, close."""
    found = settings()

    async def opened() -> T:
        async with AsyncExitStack() as closing:
            with output.progress("rows taken in") if migrate else output.waiting("opening the stack") as step:
                opening = open_runtime(
                    found, queue=queue, sends=sends, migrate=migrate, default_provider=not migrate, progress=step
                )
                runtime = await closing.enter_async_context(opening)
            return await function(runtime)

    return run_coroutine(opened())
