"""Real servers for the tests: one embedded stack a run, one database and one NATS stream a test."""

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
import structlog

from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.databases import OtherDatabases
from evervec.pipeline.embedding import providers
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.nats_doorbell import NatsDoorbell
from evervec.settings import Settings
from evervec.stack.stack import Stack
from evervec.store import datasets
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from evervec.store.schema import migrations
from evervec.worker.tasks import attach
from tests.fakes.server import FakeProvider

NUMBERS = itertools.count()

# a busy machine makes an example slow, and that is no fault of what is tested
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

# no test but those of it is about the better local model, which workers build when the machine is idle
os.environ["EVERVEC_LOCAL_MODEL"] = "wordllama"

# Whoever starts the tests in the background ignores these, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Servers:
    """The addresses of this run's servers."""

    database_url: str
    nats_url: str

    def database(self, name: str) -> str:
        """Return the address of another database of the same server."""
        parts = urlsplit(self.database_url)
        return parts._replace(path=f"/{name}").geturl()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files with slow tests over the run, the first at once: at the end they would wait for each other alone."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = [path for path in files if any(item.get_closest_marker("slow") for item in files[path])]
    quick = [path for path in files if path not in slow]
    step = len(files) // max(len(slow), 1)
    for place, path in enumerate(slow):
        quick.insert(place * step, path)
    items[:] = [item for path in quick for item in files[path]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped, so that nobody takes it for tested; pytest itself shows a letter."""
    skipped = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []) if report.longrepr}
    if skipped:
        terminalreporter.section("NOT TESTED", sep="!", red=True)
        for reason in sorted(skipped):
            terminalreporter.line(reason)


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """Commands and the library set up logging in this process; the next test finds it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start PostgreSQL and NATS of our own for the whole run; fsync is off for PostgreSQL, nothing here outlives it."""
    stack = Stack(Settings(home=tmp_path_factory.mktemp("stack"), database_url=None, nats_url=None))
    asyncio.run(stack.open())
    found = Servers(stack.urls.database_url, stack.urls.nats_url)
    # the tests' own connections name our tables without a schema, as people do who look into the embedded database
    path = "ALTER SYSTEM SET search_path = '\"$user\"', public, evervec"
    # whatever begins by itself takes a transaction id, or a new plan, at a moment that no test knows
    quiet = "ALTER SYSTEM SET autovacuum = off"
    asyncio.run(_sql(found.database_url, "ALTER SYSTEM SET fsync = off", quiet, path, "SELECT pg_reload_conf()"))
    yield found
    asyncio.run(stack.close())


async def _sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """Make a migrated database that tests are cloned from."""
    asyncio.run(_sql(servers.database_url, "CREATE DATABASE template_evervec"))

    async def migrate() -> None:
        database = await Database(servers.database("template_evervec")).open(check=False)
        await migrations.upgrade(database)
        await database.aclose()

    asyncio.run(migrate())
    return "template_evervec"


@asynccontextmanager
async def cloned(servers: Servers, template: str) -> AsyncIterator[str]:
    """Yield the address of a database of its own, dropped afterwards."""
    name = f"test_{next(NUMBERS)}"
    # a third of the time of the default strategy, which writes every page to the WAL
    await _sql(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield servers.database(name)
    finally:
        await _sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(servers: Servers, template: str) -> AsyncIterator[str]:
    """Return the address of a migrated, empty database."""
    async with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Open a migrated, empty database."""
    opened = await Database(database_url).open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def psql(database_url: str) -> AsyncIterator[Any]:
    """Open a connection that knows nothing of Evervec, as any other program's."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def dataset(database: Database) -> DatasetRef:
    """Make a dataset to put rows into."""
    async with database.transaction() as tx:
        return await datasets.ensure(tx, "river", "log")


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """Start a provider that speaks Ollama, fails on demand and counts what it was sent."""
    async with FakeProvider(dims=32) as provider:
        yield provider


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with short times, but for the lease: a test that waits for one to run out asks for a short one."""
    return Settings(home=tmp_path, embed_batch=64, lease_seconds=60, sweep_seconds=0.1, stop_seconds=5)


@pytest.fixture
async def bare(database: Database, servers: Servers, settings: Settings) -> AsyncIterator[Resources]:
    """Open resources without any provider."""
    async with AsyncExitStack() as closing:
        broker = JetStreamBroker(servers.nats_url, stream=f"TEST_{next(NUMBERS)}")
        await broker.startup()
        closing.push_async_callback(_remove_streams, broker)
        clients = ProviderClients(settings.secret_key.get_secret_value() if settings.secret_key else None)
        closing.push_async_callback(clients.aclose)
        doorbell = NatsDoorbell(broker, seconds=60)
        closing.push_async_callback(doorbell.aclose)
        mirrors = Mirrors(settings, database)
        closing.push_async_callback(mirrors.aclose)
        others = OtherDatabases(settings.connect_seconds, settings.sweep_seconds)
        closing.push_async_callback(others.aclose)
        found = Resources(settings, database, broker, doorbell, clients, mirrors, others)
        attach(broker, found)
        yield found


async def _remove_streams(broker: JetStreamBroker) -> None:
    for stream in (broker.layout.stream, broker.layout.dead_stream, broker.layout.advisory_stream):
        await broker.js.delete_stream(stream)
    await broker.shutdown()


@pytest.fixture
async def resources(bare: Resources, fake: FakeProvider) -> Resources:
    """Open resources whose active provider is the fake one."""
    await providers.add(bare, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"))
    return bare


@pytest.fixture
async def local(bare: Resources) -> Resources:
    """Open resources with the local embedder and extractor."""
    await providers.ensure_default(bare)
    return bare
