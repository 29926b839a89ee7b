"""The embedded stack of one machine as a whole.

Attach to the servers that run in EVERVEC_HOME, start the missing ones, and stop all when the last process leaves.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import SecretStr

from evervec.errors import StackError
from evervec.settings import Settings
from evervec.stack.embedded_server import EmbeddedServer
from evervec.stack.home import Home, prepare
from evervec.stack.locks import lock, try_lock
from evervec.stack.nats.server import Nats
from evervec.stack.postgres.server import Postgres
from evervec.stack.signals import cancel_on_end_signals
from evervec.stack.supervisor import keep_alive, pause

# Another process may be creating a cluster, replaying a log after a crash, or closing large streams.
START_LOCK_SECONDS = 330
MAINTAIN_SECONDS = 60


@dataclass(frozen=True)
class StackUrls:
    """The addresses the runtime connects to; empty for a server that was not asked for. Both may hold secrets."""

    database_url: str
    nats_url: str


class Stack:
    """PostgreSQL and NATS for this process: the servers that the settings name, and our own for the others.

    Many processes may have the same EVERVEC_HOME open, and one process may open it many times.
    """

    def __init__(self, settings: Settings, *, database: bool = True, nats: bool = True) -> None:
        self._settings = settings
        self._wants_database = database
        self._wants_nats = nats and settings.queue_kind == "nats"
        self._home: Home | None = None
        self._servers: dict[str, EmbeddedServer] = {}
        self._user_lock: int | None = None

    @property
    def home(self) -> Path:
        """Return the folder of the embedded servers."""
        return self._home.path if self._home else self._settings.home

    @property
    def urls(self) -> StackUrls:
        """Return the addresses; known once the stack is open."""
        return StackUrls(
            database_url=self._url(self._wants_database, self._settings.database_url, Postgres.key),
            nats_url=self._url(self._wants_nats, self._settings.nats_url, Nats.key),
        )

    async def open(self) -> None:
        """Attach to the running servers and start the missing ones.

        Does nothing when the settings name every wanted server. Raises HomeNotWritableError, PortTakenError,
        ServerStartError or another StackError; then no server is left running that did not run before.
        """
        if self._user_lock is not None or not self._embedded():
            return
        home = prepare(self._settings.home)
        self._home = home
        self._servers = {key: server for key, server in self._all_servers(home).items() if key in self._embedded()}
        try:
            async with _start_lock(home):
                self._user_lock = await lock(home.users_lock, START_LOCK_SECONDS, shared=True)
                await _run_all(self._ensure(home, server) for server in self._servers.values())
        except BaseException:
            with suppress(StackError):  # the error of opening is more useful than that of closing
                await self.close()
            raise

    async def close(self) -> None:
        """Leave. The last process stops the servers, which a second Ctrl-C does not interrupt. May be called twice."""
        leaving = asyncio.ensure_future(self._leave())
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            await leaving
            raise

    async def supervise(self, stop: asyncio.Event) -> None:
        """Keep our servers alive at their addresses, and their logs short, until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._maintain(stop))
            for server in self._servers.values():
                group.create_task(keep_alive(server, self._revive, stop))

    async def _revive(self, server: EmbeddedServer) -> None:
        if self._home is not None:
            async with _start_lock(self._home):
                await self._ensure(self._home, server)

    async def _ensure(self, home: Home, server: EmbeddedServer) -> None:
        await server.ensure()
        home.update_record(server.key, server.describe())

    async def _maintain(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for server in self._servers.values():
                server.maintain()
            await pause(stop, MAINTAIN_SECONDS)

    async def _leave(self) -> None:
        if self._home is None or self._user_lock is None:
            return
        async with _start_lock(self._home):
            os.close(self._user_lock)
            self._user_lock = None
            alone = try_lock(self._home.users_lock)
            if alone is None:
                return
            try:
                await _run_all(_stop(self._home, server) for server in self._all_servers(self._home).values())
            finally:
                os.close(alone)

    def _embedded(self) -> set[str]:
        database = self._wants_database and self._settings.embedded_database
        nats = self._wants_nats and self._settings.embedded_nats
        return {key for key, wanted in ((Postgres.key, database), (Nats.key, nats)) if wanted}

    def _all_servers(self, home: Home) -> dict[str, EmbeddedServer]:
        stop_seconds = self._settings.stop_seconds
        nats = Nats(home, self._settings.nats_port, stop_seconds)
        return {Postgres.key: Postgres(home, stop_seconds), Nats.key: nats}

    def _url(self, wanted: bool, given: SecretStr | None, key: str) -> str:
        if not wanted:
            return ""
        return given.get_secret_value() if given else self._servers[key].url


def nats_runs(settings: Settings) -> bool:
    """Return whether there is a NATS to use without starting one: that of the settings, or one that runs in EVERVEC_HOME."""
    if settings.queue_kind != "nats" or not settings.embedded_nats:
        return settings.queue_kind == "nats"
    pid = Home(settings.home.expanduser().resolve()).read_record().get(Nats.key, {}).get("pid")
    return isinstance(pid, int) and psutil.pid_exists(pid)


@asynccontextmanager
async def open_stack(settings: Settings, *, database: bool = True, nats: bool = True) -> AsyncIterator[Stack]:
    """Open the stack for the length of the block, and leave it also on Ctrl-C, SIGTERM and SIGHUP.

    Raises what `Stack.open` raises.
    """
    stack = Stack(settings, database=database, nats=nats)
    with cancel_on_end_signals():
        try:
            await stack.open()
            yield stack
        finally:
            await stack.close()


@asynccontextmanager
async def _start_lock(home: Home) -> AsyncIterator[None]:
    """Hold the lock with which only one process starts or stops servers in this home."""
    try:
        descriptor = await lock(home.start_lock, START_LOCK_SECONDS)
    except TimeoutError:
        raise StackError(
            reason=f"Another process has been starting or stopping the servers of {home.path} for {START_LOCK_SECONDS} s. "
            f"See {home.logs} and end that process."
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


async def _stop(home: Home, server: EmbeddedServer) -> None:
    await server.stop()
    if description := home.read_record().get(server.key):
        home.update_record(server.key, {**description, "pid": None})


async def _run_all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all at once and to the end, then raise the first failure."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
