"""The product with a database, a stream and a provider of its own for each test."""

import itertools
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.e2e.processes import EVERVEC, Product, environment
from tests.e2e.rows import WIDTH
from tests.fakes.server import FakeProvider
from tests.stack.actors import kill_everything

NUMBERS = itertools.count()


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """Start a provider with narrow vectors, so that the index costs little."""
    async with FakeProvider(dims=WIDTH) as provider:
        yield provider


@pytest.fixture
def product(servers: Servers, database_url: str, tmp_path: Path) -> Product:
    """Return `evervec` on a database and a stream of this test, without a provider."""
    return Product(
        environment(
            EVERVEC_DATABASE_URL=database_url,
            EVERVEC_NATS_URL=servers.nats_url,
            EVERVEC_STREAM=f"E2E_{next(NUMBERS)}",
            EVERVEC_HOME=str(tmp_path / "unused"),
        ),
        tmp_path,
    )


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an EVERVEC_HOME whose database is migrated, with nothing running."""
    home = tmp_path_factory.mktemp("made") / "home"
    done = subprocess.run(
        [EVERVEC, "status"], env=environment(EVERVEC_HOME=str(home)), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a home of this test's own; nothing of it runs afterwards."""
    home = tmp_path / "home"
    subprocess.run(["cp", "-a", made_home, home], check=True)
    yield home
    kill_everything(home)


@pytest.fixture
def machine(home: Path, tmp_path: Path) -> Product:
    """Return `evervec` with the embedded stack in `home`."""
    return Product(environment(EVERVEC_HOME=str(home)), tmp_path)
