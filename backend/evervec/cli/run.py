"""Runs one command against the stack: opens the runtime, calls, closes, and turns errors into one line and a code."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from evervec import log
from evervec.cli.output import err
from evervec.errors import EvervecError
from evervec.pipeline.resources import Resources
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings

T = TypeVar("T")


def settings() -> Settings:
    """The settings of this process. A wrong one is a usage error that names its variable."""
    try:
        found = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = f"EVERVEC_{'_'.join(str(part) for part in problem['loc']).upper()}"
            err.print(f"error: {name}={problem.get('input')!r}: {problem['msg']}", style="red", markup=False)
        raise typer.Exit(2) from None
    log.configure(found.log_level, as_json=found.log_json)
    return found


def block(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. An error of ours is one line on stderr and exit code 1 or 2, without a traceback."""
    try:
        return uvloop.run(work)
    except EvervecError as error:
        err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except BaseExceptionGroup as group:
        ours, others = group.split(EvervecError)
        if ours is None or others is not None:
            raise
        for one in _leaves(ours):
            err.print(f"error: {one}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def call(function: Callable[[Resources], Awaitable[T]]) -> T:
    """Open the runtime, call a pipeline function, close. What most commands are."""

    async def through(runtime: Runtime) -> T:
        return await function(runtime.resources)

    return with_runtime(through)


def with_runtime(function: Callable[[Runtime], Awaitable[T]], *, migrate: bool | None = None) -> T:
    """Open the runtime, call with all of it, close."""
    found = settings()

    async def opened() -> T:
        async with open_runtime(found, migrate=migrate) as runtime:
            return await function(runtime)

    return block(opened())
