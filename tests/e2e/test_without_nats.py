"""A team with PostgreSQL alone: every command works, nothing of NATS is imported or started, and crashes cost nothing."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.homes import connected
from tests.e2e.killing import hold_back, kill_in_the_middle
from tests.e2e.processes import Product, add_fake, environment
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
from tests.e2e.test_postgres_restarted import restarted
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.stack.actors import names_of, pids, servers_of

ROWS = 6_000
NEVER = "600"


@pytest.fixture
def without_nats(tmp_path: Path) -> Callable[..., Product]:
    """Return `evervec` in an environment where an import of NATS fails."""
    shadow = tmp_path / "shadow"
    for name in ("nats", "taskiq_nats"):
        (shadow / name).mkdir(parents=True)
        (shadow / name / "__init__.py").write_text("raise ImportError('nothing of NATS is needed here')\n")

    def made(**variables: str) -> Product:
        return Product(environment(PYTHONPATH=str(shadow), **variables), tmp_path)

    return made


@pytest.fixture
def alone(without_nats: Callable[..., Product], database_url: str, tmp_path: Path) -> Product:
    """Return `evervec` with a database of one's own and nothing else."""
    return without_nats(EVERVEC_DATABASE_URL=database_url, EVERVEC_HOME=str(tmp_path / "home"))


def chat(folder: Path, *texts: str) -> str:
    """Write a chat export of these messages; its path."""
    path = folder / f"chat-{len(texts)}.json"
    listed = [
        {"id": number, "type": "message", "date": "2026-01-01T10:00:00", "from": "Ada", "text": text}
        for number, text in enumerate(texts, 1)
    ]
    path.write_text(json.dumps({"name": "river", "type": "private_group", "id": 5, "messages": listed}))
    return str(path)


async def test_every_command_works(alone: Product, tmp_path: Path, psql: Any) -> None:
    export = chat(tmp_path, "The river is high.", "We decided to close the gate.")
    async with (
        alone.given(EVERVEC_SWEEP_SECONDS=NEVER).staying("up", up="Up.") as up,
        alone.staying("scheduler", up="Scheduling.") as scheduler,
        alone.staying("api", up="Serving") as api,
    ):
        assert "PostgreSQL (LISTEN/NOTIFY)" in up.said
        await alone.ask("ingest", "telegram", export)
        await wait_until_nothing_is_pending(psql)
        queue = (await alone.ask("status"))["queue"]
        assert (queue["kind"], queue["up"], queue["worker_listens"], queue["reason"]) == ("postgres", True, True, None)
        for process in (up, scheduler, api):
            assert process.lives
            assert "NATS" not in process.said
            assert await process.end(signal.SIGTERM) == 0

    async def nobody_listens() -> bool:
        return not (await alone.ask("status"))["queue"]["worker_listens"]

    await eventually("the server has noticed that the worker left", nobody_listens)
    assert await alone.ask("queue", "dead", "list") == {"dead_letters": []}
    assert await alone.ask("queue", "dead", "drop", "--all") == {"dropped": []}
    assert (await alone.run("queue", "dead", "requeue", "7")).code == 2
    assert not servers_of(tmp_path / "home")
    assert not (tmp_path / "home" / "nats").exists()


@pytest.mark.slow
async def test_one_of_two_workers_is_killed_and_the_other_finishes(
    alone: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(alone, fake)
    hold_back(fake, after=ROWS // 2)
    async with alone.worker() as victim, alone.worker() as other:
        await write(psql, await make_dataset(psql), ROWS)  # rung for by nobody: the sweep finds them
        await kill_in_the_middle(psql, victim, fake, of=ROWS)
        await wait_until_nothing_is_pending(psql)
        assert other.lives
    assert await assert_every_vector_is_right(psql) == ROWS
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0


@pytest.mark.slow
async def test_postgresql_restarts_and_rings_are_heard_again(
    without_nats: Callable[..., Product], home: Path, tmp_path: Path
) -> None:
    machine = without_nats(EVERVEC_HOME=str(home), EVERVEC_QUEUE="postgres", EVERVEC_SWEEP_SECONDS=NEVER)
    async with machine.staying("up", up="Up.") as up, machine.worker() as worker:
        async with connected(home) as psql:
            await write(psql, await make_dataset(psql, "other"), 4_000)
            await psql.execute("SELECT pg_notify('evervec', 'work')")
            await wait_until_embedded(psql, 400)
            postmaster = pids(home)["postgres"]
            psutil.Process(postmaster).send_signal(signal.SIGKILL)
        await restarted(home, postmaster)
        async with connected(home) as psql:

            async def both_listen() -> bool:
                asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'evervec worker%'"
                return await count(psql, asked) == 2

            await eventually("both workers listen again", both_listen)
            await wait_until_nothing_is_pending(psql)  # what was missed is looked for without a sweep
            await machine.ask("ingest", "telegram", chat(tmp_path, "A ring after the restart."))
            await wait_until_nothing_is_pending(psql)
            assert await assert_every_vector_is_right(psql, of_the_local_model) == 4_001
            assert await count(psql, PENDING) == 0
        assert "nats-server" not in names_of(home)
        assert await worker.end(signal.SIGTERM) == 0
        assert await up.end(signal.SIGTERM) == 0
