"""The commands that run until a signal: `up`, `worker`, `scheduler`, `api`; and `migrate`.

What only these need (TaskIQ, NATS, FastAPI) is imported inside of them: the other commands start a second sooner.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import run_coroutine, settings, with_runtime
from evervec.errors import PortTakenError
from evervec.runtime import Runtime, open_database, open_runtime
from evervec.store.database import checks
from evervec.store.schema import script

Tasks = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=256, help="Tasks at a time; EVERVEC_WORKER_TASKS if not given.")
]

Sql = Annotated[
    bool, typer.Option("--sql", metavar="", help="Print the SQL instead, for a role that may run it; change nothing.")
]
Role = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --sql: grant this role what it needs to run Evervec.")
]


def up(tasks: Tasks = None) -> None:
    """Run the whole stack on this machine: PostgreSQL, NATS, a worker, the scheduler. Ctrl-C stops it all."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        from evervec.pipeline.spaces import better
        from evervec.web import serve as web
        from evervec.worker.main import work
        from evervec.worker.schedule import tick

        output.info(f"PostgreSQL  {runtime.resources.database.where}")
        output.info(f"Doorbell    {_doorbell(runtime)}")
        output.info(f"Model       {await better.told(runtime.resources)}")
        listening = _listen_if_free(runtime)
        async with asyncio.TaskGroup() as group:
            if listening is not None:
                group.create_task(web.serve(runtime.resources, listening, finish))
            group.create_task(runtime.stack.supervise(finish))
            group.create_task(tick(runtime.broker, runtime.settings, finish))
            group.create_task(work(runtime, finish, started=lambda: output.info("Up. Ctrl-C stops everything.")))

    serve_until_signal(serve, tasks)


def _doorbell(runtime: Runtime) -> str:
    """Return what carries tasks and rings, for people."""
    if runtime.settings.queue_kind == "postgres":
        return "PostgreSQL (LISTEN/NOTIFY)"
    from evervec.queue.jetstream.connection import where

    return f"NATS at {where(runtime.stack.urls.nats_url)}"


def _listen_if_free(runtime: Runtime) -> socket.socket | None:
    """Return the API's socket; None for a second stack on this machine, which goes without an API unless it was given a port."""
    from evervec.web import serve as web

    try:
        listening = web.listen(runtime.settings)
    except PortTakenError as error:
        if "api_port" in runtime.settings.model_fields_set:
            raise
        output.info(f"No API: {error}")
        return None
    host, port = listening.getsockname()[:2]
    output.info(f"API         http://{host}:{port}/docs")
    return listening


def api() -> None:
    """Serve status and search over HTTP at EVERVEC_API_HOST:EVERVEC_API_PORT."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        from evervec.pipeline.mirrors.follower import follow
        from evervec.web import serve as web

        listening = web.listen(runtime.settings)
        host, port = listening.getsockname()[:2]
        output.info(f"Serving http://{host}:{port}/docs. Ctrl-C stops.")
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(runtime.resources.mirrors, runtime.resources.doorbell, finish))
            group.create_task(web.serve(runtime.resources, listening, finish))

    serve_until_signal(serve, None, takes_tasks=False)


def worker(tasks: Tasks = None) -> None:
    """Run tasks for all projects and datasets, also ones made later, until a signal."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        from evervec.worker.main import work

        await work(runtime, finish, started=lambda: output.info("Working. Ctrl-C finishes what runs and stops."))

    serve_until_signal(serve, tasks)


def scheduler() -> None:
    """Send the tasks that are due by the clock. One is enough; two do no harm."""

    async def serve(runtime: Runtime, finish: asyncio.Event) -> None:
        if runtime.settings.queue_kind == "nats" and not runtime.jetstream.connected:
            raise runtime.jetstream.down("a scheduler without it has nothing to do")
        from evervec.worker.schedule import tick
        from evervec.worker.tasks import attach

        attach(runtime.broker, runtime.resources)  # without NATS, what is due runs here or is rung for
        output.info("Scheduling. Ctrl-C stops.")
        await tick(runtime.broker, runtime.settings, finish)

    serve_until_signal(serve, None, takes_tasks=False)


def migrate(as_sql: Sql = False, role: Role = None, as_json: Json = False) -> None:
    """Bring the database to this version's schema, and take in rows that no trigger saw. Safe to run again."""
    if as_json and as_sql:
        raise typer.BadParameter("--sql prints SQL, and no JSON.")
    if role is not None and not as_sql:
        raise typer.BadParameter("--role goes with --sql.")
    if as_sql:
        _print_script(role)
        return

    async def revision(runtime: Runtime) -> str:
        async with runtime.resources.database.read() as tx:
            return str(await checks.revision(tx, runtime.settings.database_schema))

    found = with_runtime(revision, migrate=True)
    output.document({"schema": found}) if as_json else output.echo(f"The schema is {found}, as this Evervec wants it.")
    if found != checks.SCHEMA:
        raise typer.Exit(1)


def _print_script(role: str | None) -> None:
    """Print what would be done: from nothing where there is no server, since the embedded one needs nobody else."""
    found = settings()

    async def printed() -> str:
        if found.embedded_database:
            return await script.script(None, found.database_schema, role)
        async with open_database(found) as database:
            return await script.script(database, found.database_schema, role)

    sys.stdout.write(run_coroutine(printed()))


def serve_until_signal(
    serve: Callable[[Runtime, asyncio.Event], Awaitable[None]], tasks: int | None, *, takes_tasks: bool = True
) -> None:
    """Open the runtime and serve until a signal: the first one sets `finish`, the second one cancels."""
    found = settings(stays=True)
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

    run_coroutine(opened())


def _stop(finish: asyncio.Event, serving: "asyncio.Future[None]") -> None:
    """Let what runs come to its end at the first signal; cancel it at the second one."""
    if finish.is_set():
        serving.cancel()
    finish.set()
