"""Open and close every resource once: the stack, the pool, the broker, the clients. Every entry point starts here."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import SecretStr

from evervec import log
from evervec.errors import QueueDownError, SchemaMismatchError
from evervec.pipeline.budget import questions
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.databases import OtherDatabases
from evervec.pipeline.embedding import providers
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.queue.doorbell import Doorbell, SilentDoorbell
from evervec.settings import Settings
from evervec.stack.stack import Stack, open_stack
from evervec.store import secrets
from evervec.store.database.session import Database
from evervec.store.rings.doorbell import PostgresDoorbell
from evervec.store.schema import installation, integrity, migrations, populate
from evervec.store.words import filling
from evervec.vendors.networks import POLICY, AllowedNetworks

if TYPE_CHECKING:
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.in_place import InPlaceBroker
    from evervec.queue.queue_reader import QueueReader

logger = log.get("runtime")

Progress = Callable[[int], None]

NATS_PATIENCE_SECONDS = 3.0
"""Seconds that a command waits for NATS, without which it still works."""


@dataclass(frozen=True)
class Runtime:
    """Everything that is open in this process."""

    settings: Settings
    stack: Stack
    resources: Resources

    @cached_property
    def broker(self) -> "JetStreamBroker | InPlaceBroker":
        """Return the broker of a process that sends or receives tasks."""
        return self._in_place() if self.resources.broker is None else self.jetstream

    @property
    def jetstream(self) -> "JetStreamBroker":
        """Return the broker over NATS of a process that sends or receives tasks."""
        return cast("JetStreamBroker", self.resources.broker)

    def _in_place(self) -> "InPlaceBroker":
        """Return the broker without NATS. TaskIQ takes half a second to import."""
        from evervec.queue.in_place import InPlaceBroker
        from evervec.queue.names import SWEEP

        return InPlaceBroker(lambda: self.resources.doorbell.ring(SWEEP))


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    worker: bool = False,
    queue: bool = True,
    sends: bool = True,
    migrate: bool | None = None,
    default_provider: bool = True,
    progress: Progress = lambda _: None,
) -> AsyncIterator[Runtime]:
    """Open the stack and connect to it.

    Without `queue` NATS is neither started nor used, without `sends` it is only asked what waits; where PostgreSQL carries
    the rings (`Settings.queue_kind`), every process rings and none uses NATS. An embedded database is
    migrated by itself; a server's only with `migrate` (`evervec migrate`). If NATS is down, a worker does not start; any
    other process works without a doorbell, because the sweep finds committed rows. A database without any provider gets the
    local one, except without `default_provider`: rows of a dump would collide with it. `progress` is called with the number
    of rows that a migration has read, batch by batch.
    """
    async with AsyncExitStack() as closing:
        stack = await closing.enter_async_context(open_stack(settings, nats=queue))
        settings = _with_key(settings, stack)
        database = _database(settings, stack.urls.database_url)
        await _open(settings, database, migrate, progress, writes=worker or sends)
        closing.push_async_callback(database.aclose)
        POLICY.allowed = AllowedNetworks.parse(settings.provider_networks)
        clients = ProviderClients(settings.secret_key.get_secret_value() if settings.secret_key else None)
        closing.push_async_callback(clients.aclose)
        patience = settings.connect_seconds if worker else min(NATS_PATIENCE_SECONDS, settings.connect_seconds)
        broker: JetStreamBroker | QueueReader | None = None
        doorbell: Doorbell = PostgresDoorbell(database, worker=worker)
        if settings.queue_kind == "nats":
            broker, doorbell = (_sender if queue and sends else _reader)(settings, stack, patience, worker)
            closing.push_async_callback(broker.shutdown)
            if queue:
                await _connect(broker, worker=worker)
        closing.push_async_callback(doorbell.aclose)
        mirrors = Mirrors(settings, database)
        closing.push_async_callback(mirrors.aclose)
        others = OtherDatabases(settings.connect_seconds, settings.sweep_seconds)
        closing.push_async_callback(others.aclose)
        resources = Resources(settings, database, broker, doorbell, clients, mirrors, others)
        closing.push_async_callback(questions.write, resources)
        await (providers.ensure_default if default_provider else providers.build_indexes)(resources)
        yield Runtime(settings, stack, resources)


def _sender(settings: Settings, stack: Stack, patience: float, worker: bool) -> "tuple[JetStreamBroker, Doorbell]":
    """Return the broker of a process that sends tasks. TaskIQ takes half a second to import."""
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.nats_doorbell import NatsDoorbell

    broker = JetStreamBroker(stack.urls.nats_url, stream=settings.stream, connect_seconds=patience)
    broker.is_worker_process = worker
    return broker, NatsDoorbell(broker)


def _reader(settings: Settings, stack: Stack, patience: float, _worker: bool) -> "tuple[QueueReader, Doorbell]":
    """Return what a process has that sends nothing."""
    from evervec.queue.queue_reader import QueueReader

    return QueueReader(stack.urls.nats_url, stream=settings.stream, connect_seconds=patience), SilentDoorbell()


async def _connect(broker: "JetStreamBroker | QueueReader", *, worker: bool) -> None:
    try:
        await broker.startup()
    except QueueDownError as error:
        if worker:
            raise
        logger.warning("doorbell not connected", reason=str(error))


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database alone, whatever is in it: for what makes or removes an installation."""
    async with open_stack(settings, nats=False) as stack, AsyncExitStack() as closing:
        database = _database(settings, stack.urls.database_url)
        await database.open(check=False)
        closing.push_async_callback(database.aclose)
        yield database


def _database(settings: Settings, url: str) -> Database:
    direct = settings.database_direct_url
    return Database(
        url,
        direct_url=direct.get_secret_value() if direct else None,
        schema=settings.database_schema,
        pool_size=settings.pool_size,
        connect_seconds=settings.connect_seconds,
    )


async def _open(
    settings: Settings, database: Database, migrate: bool | None, progress: Progress, *, writes: bool
) -> None:
    """Connect, and migrate if asked to, or if the database is embedded. Every migration also renews triggers and view."""
    if migrate or (migrate is None and settings.embedded_database):
        await _migrate(database, progress, only_if_needed=migrate is None)
    await database.open(writes=writes)
    if settings.embedded_database:
        await installation.name_without_schema(database)


async def _migrate(database: Database, progress: Progress, *, only_if_needed: bool) -> None:
    if only_if_needed:
        try:
            await (await database.open()).aclose()
            return
        except SchemaMismatchError as error:
            if error.values["found"] != "none" and not migrations.knows(str(error.values["found"])):
                raise
    await database.open(check=False)
    try:
        await migrations.upgrade(database)
    finally:
        await database.aclose()
    # a new pool: its connections look up the vector type, which the migration may just have created
    await database.open()
    try:
        async with database.read() as tx:
            uncompared = await integrity.uncompared(tx)
        compare = bool(uncompared)
        for steps in (
            populate.fill_hashes(database),
            populate.run(database),
            filling.register(database, compare=compare),
        ):
            async for step in steps:
                progress(step.seen)
                if step.taken or step.removed:
                    logger.info("rows registered", kind=step.kind, registered=step.taken, removed=step.removed)
        async with database.transaction() as tx:
            await integrity.compared(tx, uncompared)
    finally:
        await database.aclose()


def _with_key(settings: Settings, stack: Stack) -> Settings:
    """Return the settings with the embedded stack's own key, stored beside its data, unless a key is set."""
    if settings.secret_key is not None or not settings.embedded_database:
        return settings
    path = Path(stack.home) / secrets.KEY_FILE
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.new_key())
    return settings.model_copy(update={"secret_key": SecretStr(path.read_text())})
