"""What the tests of rings share: what was heard, the connections that listen, and a worker without NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.store.rings.doorbell import PostgresDoorbell
from evervec.worker.main import work
from tests.queue.waiting import eventually

LISTENING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'listen%'"


class Heard:
    """What a process heard: datasets with work, and datasets that changed. None is what may have been missed."""

    def __init__(self) -> None:
        self.work: list[UUID | None] = []
        self.changed: list[set[UUID]] = []


@asynccontextmanager
async def hearing(doorbell: PostgresDoorbell) -> AsyncIterator[Heard]:
    """Listen inside the block; from its begin on, everything is heard."""
    heard = Heard()
    async with doorbell.listening_for_work(heard.work.append), doorbell.listening_for_changes(heard.changed.append):
        await eventually(lambda: None in heard.work)
        heard.work.clear()
        heard.changed.clear()
        yield heard


@asynccontextmanager
async def runtime(url: str, settings: Settings, *, worker: bool = False, **more: Any) -> AsyncIterator[Runtime]:
    """Open what a process has that was given a database and no NATS."""
    given = settings.model_copy(update={"database_url": SecretStr(url), "nats_url": None, **more})
    async with open_runtime(given, worker=worker) as opened:
        yield opened


@asynccontextmanager
async def working(url: str, settings: Settings, **more: Any) -> AsyncIterator[Runtime]:
    """Run a worker without NATS inside the block."""
    async with runtime(url, settings, worker=True, **more) as opened:
        finish, started = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(work(opened, finish, started=started.set))
        try:
            await started.wait()
            yield opened
        finally:
            finish.set()
            await task


async def listening(psql: Any, count: int = 1) -> list[int]:
    """Wait until so many connections listen; their process ids."""
    found: list[int] = []

    async def there() -> bool:
        found[:] = [row["pid"] for row in await psql.fetch(LISTENING)]
        return len(found) == count

    await eventually(there)
    return found
