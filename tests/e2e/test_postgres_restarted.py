"""PostgreSQL goes down hard under `evervec up`, with a second worker attached: it comes back, and so does the work."""

import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.homes import connected
from tests.e2e.processes import Product
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
from tests.stack.actors import pids

ROWS = 4_000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL], ids=["immediate", "kill-9"])
async def test_workers_survive_a_hard_restart_of_postgresql_and_embed_everything(
    machine: Product, home: Path, number: signal.Signals
) -> None:
    async with machine.staying("up", up="Up.") as up, machine.worker() as worker:
        async with connected(home) as psql:
            await write(psql, await make_dataset(psql), ROWS)
            await wait_until_embedded(psql, ROWS // 10)
            assert await count(psql, PENDING) > ROWS // 4
            postmaster = pids(home)["postgres"]
            psutil.Process(postmaster).send_signal(number)
        await restarted(home, postmaster)
        async with connected(home) as psql:
            assert await count(psql, PENDING) > 0
            await wait_until_nothing_is_pending(psql)
            assert await assert_every_vector_is_right(psql, of_the_local_model) == ROWS
            assert await count(psql, "SELECT count(*) FROM embed_work") == 0
        assert up.lives
        assert worker.lives
        assert await worker.end(signal.SIGTERM) == 0
        assert await up.end(signal.SIGTERM) == 0


async def test_a_backend_killed_in_the_middle_costs_nothing(machine: Product, home: Path) -> None:
    rows = 2_000
    async with machine.staying("up", up="Up.") as up:
        async with connected(home) as psql:
            await write(psql, await make_dataset(psql), rows)
            await wait_until_embedded(psql, rows // 10)
            backend = await psql.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'evervec' LIMIT 1")
            psutil.Process(backend).kill()

            async def thrown_out() -> bool:
                return bool(psql.is_closed())

            # the postmaster ends all its other backends for that, ours too, and begins again
            await eventually("our own connection is cut", thrown_out)
        async with connected(home) as psql:
            await wait_until_nothing_is_pending(psql)
            assert await assert_every_vector_is_right(psql, of_the_local_model) == rows
        assert up.lives
        assert await up.end(signal.SIGTERM) == 0


async def restarted(home: Path, former: int) -> None:
    """Wait for another postmaster."""

    async def other() -> bool:
        return pids(home)["postgres"] not in (None, former)

    await eventually("PostgreSQL restarted", other)
