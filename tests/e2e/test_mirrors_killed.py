"""Mirrors as real processes keep them: several workers on one folder, killed, restarted, with the database or without."""

import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.homes import connected
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import make_dataset, wait_until_nothing_is_pending, write
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.stack.actors import pids

ROWS = 168
HOLDING = (
    "SELECT count(*) FROM mirrors WHERE seen_at > now() - interval '4 seconds' AND state = 'ready' AND vectors = $1 "
    "AND in_sync"
)


async def holding(psql: Any, vectors: int, holders: int) -> None:
    """Wait until so many processes hold a mirror with so many vectors, and have checked it."""

    async def hold() -> bool:
        return int(await psql.fetchval(HOLDING, vectors)) == holders

    await eventually(f"{holders} mirrors with {vectors} vectors", hold, 120)


async def found(product: Product, text: str, engine: str = "mirror") -> None:
    """Assert that a search of another process finds a text first, and says that this engine answered."""
    answer = await product.ask("search", text, "--engine", "auto")
    assert (answer["engine"], answer["hits"][0]["text"]) == (engine, text)


@pytest.fixture
def shared(product: Product, tmp_path: Path) -> Product:
    """Use a folder of mirrors of this test's own."""
    return product.given(EVERVEC_FAISS_DIR=str(tmp_path / "mirrors"), EVERVEC_STOP_SECONDS="60")


@pytest.mark.slow
async def test_two_workers_share_a_folder_and_either_may_be_killed(
    shared: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(shared, fake)
    dataset = await make_dataset(psql)
    async with shared.worker() as one, shared.worker() as two:
        await write(psql, dataset, ROWS)
        await wait_until_nothing_is_pending(psql)
        await holding(psql, ROWS, 2)
        await found(shared, "row number 7")
        await one.end(signal.SIGKILL)
        await psql.execute("DELETE FROM messages WHERE external_id::int % 2 = 0")
        await write(psql, dataset, 10, word="later")
        await wait_until_nothing_is_pending(psql)
        await holding(psql, ROWS // 2 + 10, 1)
        assert await two.end(signal.SIGTERM) == 0
    assert await psql.fetchval("SELECT count(*) FROM mirrors WHERE pid = $1", two.pid) == 0, "it said goodbye"
    await write(psql, dataset, 5, word="nobody follows")
    async with shared.worker() as three:
        await wait_until_nothing_is_pending(psql)
        await holding(psql, ROWS // 2 + 15, 1)
        await found(shared, "later number 3")
        assert three.lives


async def test_the_folder_is_deleted_under_a_worker_and_nothing_is_lost(
    shared: Product, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    await add_fake(shared, fake)
    dataset = await make_dataset(psql)
    await write(psql, dataset, ROWS)
    async with shared.worker() as one:
        await wait_until_nothing_is_pending(psql)
        await holding(psql, ROWS, 1)
        shutil.rmtree(tmp_path / "mirrors")
        await found(shared, "row number 7", "exact")
        await write(psql, dataset, 10, word="later")
        await wait_until_nothing_is_pending(psql)
        await holding(psql, ROWS + 10, 1)
        assert await one.end(signal.SIGTERM) == 0
    async with shared.worker():
        await holding(psql, ROWS + 10, 1)
        await found(shared, "later number 3")


@pytest.mark.slow
async def test_postgresql_is_killed_under_a_process_that_follows(machine: Product, home: Path) -> None:
    async with machine.staying("up", up="Up.") as up:
        async with connected(home) as psql:
            dataset = await make_dataset(psql)
            await write(psql, dataset, ROWS)
            await wait_until_nothing_is_pending(psql)
            await holding(psql, ROWS, 1)
            postmaster = pids(home)["postgres"]
            psutil.Process(postmaster).kill()

        async def restarted() -> bool:
            return pids(home)["postgres"] not in (None, postmaster)

        await eventually("PostgreSQL restarted", restarted)
        async with connected(home) as psql:
            await psql.execute("DELETE FROM messages WHERE external_id::int <= 10")
            await write(psql, dataset, 20, word="later")
            await wait_until_nothing_is_pending(psql)
            await holding(psql, ROWS + 10, 1)
            await found(machine, "later number 3")
        assert up.lives
        assert await up.end(signal.SIGTERM) == 0
