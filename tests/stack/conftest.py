"""A home for each of the stack's tests, and no process of it left afterwards."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evervec.stack import open_stack
from tests.stack.actors import kill_everything, servers_of, settings


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home after its first start and stop."""
    home = tmp_path_factory.mktemp("seed") / "home"

    async def start_once() -> None:
        async with open_stack(settings(home), nats=False):
            assert servers_of(home)

    asyncio.run(start_once())
    return home


@pytest.fixture
def fresh_home(tmp_path: Path) -> Iterator[Path]:
    """Return a home that does not exist yet, below a folder that only we can enter."""
    yield tmp_path / "home"
    kill_everything(tmp_path)
    deadline = time.monotonic() + 60
    while servers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def home(fresh_home: Path, seed: Path) -> Path:
    """Return a home whose database was created before, as a first start leaves it."""
    fresh_home.mkdir()
    subprocess.run(["cp", "-a", seed / "postgres", fresh_home], check=True)
    return fresh_home
