"""The commands that stay: `up`, `worker`, `scheduler`; and `migrate`."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Json
from evervec.cli.run import block, settings, with_runtime
from evervec.queue.connection import taken_apart
from evervec.runtime import Runtime, open_runtime
from evervec.store import checks
from evervec.worker.main import work
from evervec.worker.schedule import tick

Tasks = Annotated[int | None, typer.Option(min=1, max=256, help="Tasks at a time; EVERVEC_WORKER_TASKS if not given.")]


def up(tasks: Tasks = None) -> None:
    """Run the whole stack on this machine: PostgreSQL, NATS, a worker, the scheduler. Ctrl-C stops it all."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        output.note(f"PostgreSQL  {runtime.resources.database.where}")
        output.note(f"NATS        {taken_apart(runtime.stack.urls.nats_url)[0]}")
        async with asyncio.TaskGroup() as group:
            group.create_task(runtime.stack.supervise(finish))
            group.create_task(tick(runtime.broker, finish))
            group.create_task(work(runtime, finish, started=lambda: output.note("Up. Ctrl-C stops everything.")))

    _until_told(serve, tasks)


def worker(tasks: Tasks = None) -> None:
    """Run tasks for all projects and datasets, also ones made later, until told to stop."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        await work(runtime, finish, started=lambda: output.note("Working. Ctrl-C finishes what runs and stops."))

    _until_told(serve, tasks)


def scheduler() -> None:
    """Ring for what is due by the clock. One is enough; two do no harm."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        output.note("Scheduling. Ctrl-C stops.")
        await tick(runtime.broker, finish)

    _until_told(serve, None, takes_tasks=False)


def migrate(as_json: Json = False) -> None:
    """Bring the database to this version's schema, and take in rows that no trigger saw. Safe to run again."""

    async def revision(runtime: Runtime) -> str:
        async with runtime.resources.database.read() as tx:
            return str(await tx.fetchval("SELECT version_num FROM alembic_version"))

    found = with_runtime(revision, migrate=True)
    output.document({"schema": found}) if as_json else output.say(f"The schema is {found}, as this Evervec wants it.")
    if found != checks.SCHEMA:
        raise typer.Exit(1)


def _until_told(
    serve: Callable[[Runtime, asyncio.Event], Awaitable[None]], tasks: int | None, *, takes_tasks: bool = True
) -> None:
    found = settings()
    if tasks is not None:
        found = found.model_copy(update={"worker_tasks": tasks})

    async def opened() -> None:
        async with open_runtime(found, worker=takes_tasks) as runtime:
            finish = asyncio.Event()
            serving = asyncio.ensure_future(serve(runtime, finish))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, _stop, finish, serving)
            await serving

    block(opened())


def _stop(finish: asyncio.Event, serving: "asyncio.Future[None]") -> None:
    """The first signal lets what runs come to its end; the second one does not wait."""
    if finish.is_set():
        serving.cancel()
    finish.set()
