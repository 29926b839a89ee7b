"""A connection that is cancelled or ended by the server at any moment: no transaction is left behind, and the next one works."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from evervec.store.database.session import Database
from tests.e2e.waiting import eventually
from tests.store.front import Front, front

FIELDS = b"SFATAL\0VFATAL\0C57P05\0Mterminating connection due to idle-session timeout\0\0"
FAREWELL = b"E" + struct.pack("!l", 4 + len(FIELDS)) + FIELDS
INSERT = "INSERT INTO projects (slug, name) VALUES ($1, 'x')"
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Front]:
    """Listen before the server, so that a test can say something in its name."""
    query = parse_qs(urlsplit(database_url).query)
    async with front(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}") as opened:
        yield opened


async def test_a_connection_of_which_only_the_farewell_was_read_is_not_used(
    relay: Front, database_url: str, psql: Any
) -> None:
    """The server's last message and the end of the connection arrive one after the other; a BEGIN may come between."""
    url = f"postgresql://evervec@127.0.0.1:{relay.port}{urlsplit(database_url).path}"
    database = await Database(url, pool_size=2).open()
    relay.send(FAREWELL)
    await psql.fetchval("SELECT pg_sleep(0.01)")  # the loop reads what was sent
    async with database.transaction() as tx:
        await tx.execute(INSERT, "a")
    assert await psql.fetchval("SELECT count(*) FROM projects") == 1
    assert database.lost_connections == 1
    await database.aclose()


async def test_whoever_is_cancelled_at_any_moment_leaves_no_transaction(
    database: Database, psql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def write(slug: str) -> None:
        async with database.transaction() as tx:
            await tx.execute(INSERT, slug)
            await tx.fetchval("SELECT count(*) FROM projects")

    for turns in range(40):
        task = asyncio.create_task(write(f"p{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with database.read() as tx:
            await tx.fetchval("SELECT 1")

    async def none_is_open() -> bool:
        return await psql.fetchval(OPEN) == 0

    await eventually("the server has ended what was cancelled", none_is_open)
    assert not caplog.records, caplog.records
