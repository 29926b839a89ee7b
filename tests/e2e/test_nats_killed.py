"""kill -9 of nats-server while work goes on, and while it stays away: the doorbell is silent, no row is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from tests.e2e.homes import connected
from tests.e2e.killing import hold_back
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import (
    PENDING,
    assert_every_vector_is_right,
    count,
    make_dataset,
    of_the_local_model,
    wait_until_embedded,
    wait_until_nothing_is_pending,
    write,
)
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.queue.servers import NatsServer
from tests.stack.actors import pids

ROWS = 3_000


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """Start a nats-server of this test's own, to be killed."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


def export_of(folder: Path, rows: int) -> Path:
    """Return a Telegram export with `rows` messages."""
    messages = [
        {"id": n, "type": "message", "date": "2026-01-01T00:00:00", "from": "dev", "text": f"row number {n}"}
        for n in range(1, rows + 1)
    ]
    path = folder / "result.json"
    path.write_bytes(orjson.dumps({"name": "chat", "type": "private_group", "id": 7, "messages": messages}))
    return path


@pytest.mark.slow
async def test_nats_is_killed_under_up_while_an_import_is_worked_on_and_everything_is_embedded(
    machine: Product, home: Path, tmp_path: Path
) -> None:
    async with machine.staying("up", up="Up.") as up, connected(home) as psql:
        importing = asyncio.create_task(machine.ask("ingest", "telegram", str(export_of(tmp_path, ROWS))))
        await wait_until_embedded(psql, ROWS // 20)
        server = pids(home)["nats"]
        assert not importing.done() or await count(psql, PENDING) > 0
        psutil.Process(server).kill()
        assert (await importing)["created"] == ROWS

        async def restarted() -> bool:
            return pids(home)["nats"] not in (None, server)

        await eventually("NATS restarted", restarted)
        await wait_until_nothing_is_pending(psql)
        assert await assert_every_vector_is_right(psql, of_the_local_model) == ROWS
        assert up.lives


@pytest.mark.slow
async def test_rows_written_while_nats_is_down_are_embedded_and_its_return_is_noticed(
    product: Product, nats: NatsServer, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    here = product.given(EVERVEC_NATS_URL=nats.url)
    await add_fake(here, fake)
    hold_back(fake, after=ROWS // 2)
    async with here.worker() as worker:
        await write(psql, await make_dataset(psql), ROWS)
        await wait_until_embedded(psql, ROWS // 10)
        assert await count(psql, PENDING) > 0
        nats.kill()
        fake.resume()
        await write(psql, await make_dataset(psql, "sea", "notes"), 50, word="silent")
        imported = await here.ask("ingest", "telegram", str(export_of(tmp_path, 50)))
        assert imported["created"] == 50
        await wait_until_nothing_is_pending(psql)
        assert await assert_every_vector_is_right(psql) == ROWS + 100

        nats.start()
        await worker.says("nats reconnected")
        before = worker.said.count("score_messages_batch_task")
        await here.ask("ingest", "telegram", str(export_of(tmp_path, 100)))

        async def heard() -> bool:
            return worker.said.count("score_messages_batch_task") > before

        await eventually("a task came over NATS", heard)
        await wait_until_nothing_is_pending(psql)
        assert worker.lives
