"""NATS or PostgreSQL goes away under a process that follows: nothing is lost, nothing ends, it goes on by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from evervec.errors import EvervecError
from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.mirror_doorbell import ring_mirrors
from evervec.queue.nats_doorbell import NatsDoorbell
from evervec.store.datasets import DatasetRef
from tests.pipeline.mirrors.mirroring import TEXTS, following, process, stored, true, until, until_true, worker
from tests.pipeline.search.meaning import search
from tests.queue.servers import NatsServer


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """Start a nats-server of this test's own, to be killed."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def heard_by(nats: NatsServer) -> AsyncIterator[JetStreamBroker]:
    """Connect a broker to that server."""
    broker = JetStreamBroker(nats.url, stream="MIRRORS")
    await broker.startup()
    yield broker
    await broker.shutdown()


@pytest.fixture
async def admin(servers: Any) -> AsyncIterator[Any]:
    """Open a connection to another database of the same server."""
    connection = await asyncpg.connect(servers.database_url)
    yield connection
    await connection.close()


CUT = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = $1 AND application_name = 'evervec' AND pid <> pg_backend_pid()"
)


async def test_a_bell_is_heard_long_before_the_next_look(
    resources: Resources, dataset: DatasetRef, heard_by: JetStreamBroker
) -> None:
    await stored(resources, dataset, TEXTS)
    async with (
        process(replace(resources, broker=heard_by, doorbell=NatsDoorbell(heard_by)), mirror_poll_seconds=600) as one,
        following(one),
    ):
        mirror = await until_true(one, dataset)
        await stored(one, dataset, ["rung for"])
        index = mirror.index
        assert index is not None
        assert len(index) == len(TEXTS)
        assert await ring_mirrors(heard_by, [dataset.id])
        await until(lambda: len(index) == len(TEXTS) + 1)


async def test_while_nats_is_down_looking_keeps_mirrors_true(
    resources: Resources, dataset: DatasetRef, nats: NatsServer, heard_by: JetStreamBroker
) -> None:
    await stored(resources, dataset, TEXTS)
    async with process(replace(resources, broker=heard_by, doorbell=NatsDoorbell(heard_by))) as one, following(one):
        await until_true(one, dataset)
        nats.kill()
        for turn in range(3):
            await stored(one, dataset, [f"in silence {turn}"])
            await until_true(one, dataset)
            assert (await search(one, f"in silence {turn}", k=1)).engine == "mirror"
        nats.start()
        await stored(one, dataset, ["after it came back"])
        await until_true(one, dataset)


async def test_a_process_that_starts_without_nats_follows_all_the_same(
    resources: Resources, dataset: DatasetRef, nats: NatsServer
) -> None:
    await stored(resources, dataset, TEXTS)
    nats.kill()
    silent = JetStreamBroker(nats.url, stream="MIRRORS")
    async with process(replace(resources, broker=silent, doorbell=NatsDoorbell(silent))) as one, following(one):
        await until_true(one, dataset)
        await stored(one, dataset, ["in silence"])
        await until_true(one, dataset)


async def test_connections_that_are_cut_again_and_again_cost_nothing(
    resources: Resources, dataset: DatasetRef, admin: Any, psql: Any
) -> None:
    name = await psql.fetchval("SELECT current_database()")
    await stored(resources, dataset, TEXTS)
    done = asyncio.Event()

    async def cut() -> int:
        cuts = 0
        while not done.is_set():
            cuts += await admin.fetchval(CUT, name)
            await asyncio.sleep(0.03)
        return cuts

    async with worker(resources, mirror_poll_seconds=0.01, mirror_check_seconds=0.1) as one:
        mirror = await until_true(one, dataset)
        cutting = asyncio.create_task(cut())
        for turn in range(15):
            await psql.execute("DELETE FROM messages WHERE content = $1", TEXTS[turn])
            await asyncio.wait([asyncio.create_task(tried(one))])
        done.set()
        assert await cutting > 0, "nothing was cut"
        await until_true(one, dataset)
        assert (await search(one, TEXTS[20], k=1)).hits[0].text == TEXTS[20]
        await stored(one, dataset, ["after all that"])
        await until_true(one, dataset)
        assert one.mirrors.mirror(dataset) is mirror
        assert (await one.mirrors.check(dataset, follow=False)).in_sync


async def tried(resources: Resources) -> None:
    """Search; accept an error of Evervec, but no wrong answer."""
    try:
        answer = await search(resources, TEXTS[20], k=1)
    except EvervecError as error:
        assert str(error)
    else:
        assert answer.hits[0].text == TEXTS[20]


async def test_a_process_that_starts_while_the_database_is_away_follows_when_it_is_back(
    resources: Resources, dataset: DatasetRef, admin: Any, psql: Any
) -> None:
    name = await psql.fetchval("SELECT current_database()")
    await stored(resources, dataset, TEXTS)
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await admin.fetchval(CUT, name)
    try:
        async with process(resources) as one:
            finish = asyncio.Event()
            task = asyncio.create_task(follow(one.mirrors, one.doorbell, finish))
            await asyncio.wait([task], timeout=0.3)
            assert not task.done()
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await until_true(one, dataset)
            assert await true(one, dataset)
            finish.set()
            await task
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
