"""kill -9 of workers in the middle of a large backlog, and the polite way out under load."""

import signal
from typing import Any

import pytest

from evervec.pipeline.embedding.health import KNOWN_TEXT
from tests.e2e.killing import hold_back, kill_in_the_middle
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import (
    PENDING,
    assert_every_vector_is_right,
    count,
    make_dataset,
    wait_until_embedded,
    wait_until_nothing_is_pending,
    write,
)
from tests.fakes.server import FakeProvider

ROWS = 6_000


@pytest.mark.slow
async def test_one_of_two_workers_is_killed_in_a_large_backlog_and_the_other_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    hold_back(fake, after=ROWS // 2)
    await write(psql, await make_dataset(psql), ROWS)
    async with product.worker() as victim, product.worker():
        await kill_in_the_middle(psql, victim, fake, of=ROWS)
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0


@pytest.mark.slow
async def test_the_only_worker_is_killed_in_a_large_backlog_and_a_new_one_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    hold_back(fake, after=ROWS // 2)
    await write(psql, await make_dataset(psql), ROWS)
    async with product.worker() as victim:
        await kill_in_the_middle(psql, victim, fake, of=ROWS)
    async with product.worker():
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0


@pytest.mark.slow
async def test_a_worker_told_to_stop_under_load_hands_its_rows_back_and_another_finishes(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    hold_back(fake, after=ROWS // 2, seconds=2)
    await write(psql, await make_dataset(psql), ROWS)
    unhurried = product.given(EVERVEC_LEASE_SECONDS="60")  # nobody is killed, and each text is counted
    async with unhurried.worker() as worker:
        await wait_until_embedded(psql, ROWS // 10)
        assert await worker.end(signal.SIGTERM) == 0, worker.said[-2000:]
        assert await count(psql, "SELECT count(*) FROM embed_work") == 0
        assert await count(psql, PENDING) > ROWS // 4
    fake.resume()
    async with unhurried.worker():
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == ROWS
    assert {times for text, times in fake.texts_sent().items() if text != KNOWN_TEXT} == {1}
