"""kill -9 of workers in the middle of a large backlog, and the polite way out under load."""

import signal
from typing import Any

import pytest

from tests.e2e.processes import Product, Worker, add_fake
from tests.e2e.rows import (
    LEASED,
    PENDING,
    assert_every_vector_is_right,
    count,
    make_dataset,
    wait_until_embedded,
    wait_until_nothing_is_pending,
    write,
)
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider

ROWS = 20_000


async def kill_in_the_middle(psql: Any, worker: Worker) -> None:
    """Kill a worker while it works, proven: it is stopped first, and goes on if it held nothing just then."""
    await wait_until_embedded(psql, ROWS // 10)

    async def stopped_at_work() -> bool:
        worker.process.send_signal(signal.SIGSTOP)
        if await count(psql, LEASED) > 0:
            return True
        worker.process.send_signal(signal.SIGCONT)
        return False

    await eventually("a worker that holds leases", stopped_at_work)
    assert await worker.end(signal.SIGKILL) == -signal.SIGKILL
    assert await count(psql, PENDING) > ROWS // 4


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_one_of_two_workers_is_killed_among_20000_rows_and_the_other_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), ROWS)
    async with product.worker() as victim, product.worker():
        await kill_in_the_middle(psql, victim)
        await wait_until_nothing_is_pending(psql, seconds=200)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0


@pytest.mark.slow
async def test_the_only_worker_is_killed_among_20000_rows_and_a_new_one_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), ROWS)
    async with product.worker() as victim:
        await kill_in_the_middle(psql, victim)
    async with product.worker():
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0


@pytest.mark.slow
async def test_a_worker_told_to_stop_under_load_hands_its_rows_back_and_another_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    rows = 6_000
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), rows)
    async with product.worker() as worker:
        await wait_until_embedded(psql, rows // 10)
        assert await worker.end(signal.SIGTERM, seconds=10) == 0, worker.said[-2000:]
        assert await count(psql, "SELECT count(*) FROM embed_work") == 0
        assert await count(psql, PENDING) > rows // 4
    async with product.worker():
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == rows
    assert set(fake.texts_sent().values()) == {1}
