"""`examples/attached/run`: a throw-away stack, a worker and the application in one process, until Ctrl-C."""

import asyncio
import signal
import socket
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from evervec import log
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.web.serve import ApiServer
from evervec.worker.main import work
from examples.attached.app import create
from examples.attached.migrating import migrate

app = typer.Typer(add_completion=False)


class NewsroomServer(ApiServer):
    """A server that says where it listens; the process that started it decides when to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()
        typer.echo(f"Newsroom at http://{host}:{port}/docs until Ctrl-C.")


@app.command()
def newsroom(port: Annotated[int, typer.Option(help="Where it listens; 0 for any free port.")] = 8322) -> None:
    """Serve a newsroom whose articles are found by meaning. Nothing stays."""
    log.configure("WARNING")
    with tempfile.TemporaryDirectory(prefix="evervec-attached-") as home:
        asyncio.run(serve(Path(home), port))


async def serve(home: Path, port: int) -> None:
    """Serve until a signal, then end the worker, then the stack."""
    throwaway = Settings(home=home, database_url=None, nats_url=None, queue="postgres")
    async with open_runtime(throwaway, worker=True) as runtime:
        url = runtime.stack.urls.database_url
        await migrate(url)
        server = NewsroomServer(uvicorn.Config(create(url), port=port, log_level="warning"))
        finish = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, finish.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(work(runtime, finish))
            group.create_task(server.serve())
            await finish.wait()
            server.should_exit = True


if __name__ == "__main__":
    app()
