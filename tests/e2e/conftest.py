"""The product with a database, a stream and a provider of its own for each test."""

import itertools
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from evervec.pipeline.resources import Resources
from tests.conftest import Servers
from tests.e2e.batching import Program
from tests.e2e.processes import EVERVEC, Product, environment
from tests.e2e.rows import WIDTH
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import TYPES, batched
from tests.stack.actors import kill_everything

NUMBERS = itertools.count()


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """Start a provider with narrow vectors, so that the index costs little."""
    async with FakeProvider(dims=WIDTH) as provider:
        yield provider


@pytest.fixture
def product(request: pytest.FixtureRequest, servers: Servers, database_url: str, tmp_path: Path) -> Product:
    """Return `evervec` on a database and a stream of this test, without a provider; with the LEASE_SECONDS of its module."""
    return Product(
        environment(
            EVERVEC_DATABASE_URL=database_url,
            EVERVEC_NATS_URL=servers.nats_url,
            EVERVEC_STREAM=f"E2E_{next(NUMBERS)}",
            EVERVEC_HOME=str(tmp_path / "unused"),
            EVERVEC_LEASE_SECONDS=str(getattr(request.module, "LEASE_SECONDS", 3)),
        ),
        tmp_path,
    )


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an EVERVEC_HOME whose database is migrated, with nothing running."""
    home = tmp_path_factory.mktemp("made") / "home"
    done = subprocess.run(
        [EVERVEC, "status"], env=environment(EVERVEC_HOME=str(home)), capture_output=True, text=True, timeout=180
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


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Return a batch manager that accepts two equal listings at once."""
    async with batched(bare, fake, request.param, batch_grace_seconds=0) as resources:
        yield resources


@pytest.fixture
def variables(lane: Resources, database_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the variables of another process of the same batches."""
    assert lane.settings.secret_key is not None
    return {
        "EVERVEC_DATABASE_URL": database_url,
        "EVERVEC_SECRET_KEY": lane.settings.secret_key.get_secret_value(),
        "EVERVEC_BATCH_GRACE_SECONDS": "0",
        "EVERVEC_HOME": str(tmp_path / "unused"),
    }


@pytest.fixture
def program(servers: Servers, variables: dict[str, str]) -> Program:
    """Return the way to start processes that send batches, to be told or killed."""
    return Program(environment(EVERVEC_NATS_URL=servers.nats_url, **variables))
