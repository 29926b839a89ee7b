"""The tour of attached tables holds for tables of another server, whichever way they are followed, also if both restart."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.store import secrets
from scripts.touring.tour import Plan, tour
from tests.database.clusters import configured, started


class Server:
    """A server of the test's own, started and restarted in a thread, as its stack runs a loop of its own."""

    def __init__(self, home: Path) -> None:
        self._home, self._running = home, ExitStack()
        self.url = ""

    async def start(self) -> None:
        """Start it."""
        if not self.url:
            self.url = f"{await asyncio.to_thread(configured, self._home)}/postgres"
        await asyncio.to_thread(self._running.enter_context, started(self._home))

    async def stop(self) -> None:
        """Stop it, whoever is connected."""
        await asyncio.to_thread(self._running.close)


@pytest.mark.slow
@pytest.mark.parametrize("capture", ["triggers", "poll", "logical"])
async def test_every_vector_is_that_of_its_row_in_another_database(tmp_path: Path, capture: str) -> None:
    ours, theirs = Server(tmp_path / "ours"), Server(tmp_path / "theirs")
    await asyncio.gather(ours.start(), theirs.start())

    async def restart() -> None:
        await theirs.stop()
        await ours.stop()
        await theirs.start()
        await ours.start()

    settings = Settings(
        home=tmp_path / "worker",
        database_url=SecretStr(ours.url),
        queue="postgres",
        secret_key=SecretStr(secrets.new_key()),
        attached_compare_seconds=1,
    )
    try:
        async with open_runtime(settings, migrate=True):
            pass
        plan = Plan(rows=500, rate=100, seconds=2, said={"url": theirs.url, "capture": capture})
        outcome = await tour(ours.url, settings, plan, print, restart)
    finally:
        await theirs.stop()
        await ours.stop()
    assert not outcome.failures, outcome.failures
    assert outcome.facts["embedded_again"] > 0
