"""Opens and closes every resource once: the stack, the pool, the broker, the models. Every entry point starts here."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from evervec import log
from evervec.errors import QueueDownError, SchemaMismatchError
from evervec.pipeline.embedding import providers
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Models, Resources
from evervec.settings import Settings
from evervec.stack.stack import Stack, open_stack
from evervec.store import secrets
from evervec.store.schema import migrations, populate
from evervec.store.session import Database

if TYPE_CHECKING:
    from evervec.queue.broker import JetStreamBroker

logger = log.get("runtime")

Progress = Callable[[int], None]

NATS_PATIENCE_SECONDS = 3.0
"""Seconds that a command waits for NATS, which it can do without."""


@dataclass(frozen=True)
class Runtime:
    """Everything that is open in this process."""

    settings: Settings
    stack: Stack
    resources: Resources
    broker: "JetStreamBroker"


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    worker: bool = False,
    queue: bool = True,
    migrate: bool | None = None,
    taken_in: Progress = lambda _: None,
) -> AsyncIterator[Runtime]:
    """Open the stack and connect to it; without `queue` NATS is neither started nor asked.

    An embedded database is migrated by itself; a team's own only when asked (`evervec migrate`). A process whose
    NATS is down goes on without a doorbell, unless it is a worker: committed rows are found by a sweeper. `taken_in` is
    told how many rows a migration has looked at, batch by batch.
    """
    # here and not above: `evervec --help` has no need of them
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.doorbell import Doorbell

    async with AsyncExitStack() as closing:
        stack = await closing.enter_async_context(open_stack(settings, nats=queue))
        settings = _with_key(settings, stack)
        database = await _database(settings, stack.urls.database_url, migrate, taken_in)
        closing.push_async_callback(database.aclose)
        models = Models(settings.secret_key.get_secret_value() if settings.secret_key else None)
        closing.push_async_callback(models.aclose)
        patience = settings.connect_seconds if worker else min(NATS_PATIENCE_SECONDS, settings.connect_seconds)
        broker = JetStreamBroker(stack.urls.nats_url, stream=settings.stream, connect_seconds=patience)
        broker.is_worker_process = worker
        closing.push_async_callback(broker.shutdown)
        if queue:
            await _ring_up(broker)
        doorbell = Doorbell(broker)
        closing.push_async_callback(doorbell.aclose)
        mirrors = Mirrors(settings, database)
        closing.push_async_callback(mirrors.aclose)
        resources = Resources(settings, database, broker, doorbell, models, mirrors)
        await providers.ensure_default(resources)
        yield Runtime(settings, stack, resources, broker)


async def _ring_up(broker: "JetStreamBroker") -> None:
    try:
        await broker.startup()
    except QueueDownError as error:
        if broker.is_worker_process:
            raise
        logger.warning("going on without a doorbell", reason=str(error))


async def _database(settings: Settings, url: str, migrate: bool | None, taken_in: Progress) -> Database:
    """Connect, and migrate where that is wanted. The derived part (triggers, view) comes with every migration."""
    database = Database(url, pool_size=settings.pool_size, connect_seconds=settings.connect_seconds)
    if migrate or (migrate is None and settings.embedded_database):
        await _migrate(database, taken_in, only_if_needed=migrate is None)
    return await database.open()


async def _migrate(database: Database, taken_in: Progress, *, only_if_needed: bool) -> None:
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
    # a new pool: connections learn the vector type, which the migration may just have made
    await database.open()
    try:
        for steps in (populate.fill_hashes(database), populate.run(database)):
            async for step in steps:
                taken_in(step.seen)
                if step.taken or step.removed:
                    logger.info("taken in", kind=step.kind, taken=step.taken, removed=step.removed)
    finally:
        await database.aclose()


def _with_key(settings: Settings, stack: Stack) -> Settings:
    """The embedded stack keeps its own key beside its data, so that providers with a key work out of the box."""
    if settings.secret_key is not None or not settings.embedded_database:
        return settings
    path = Path(stack.home) / "secret.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.new_key())
    return settings.model_copy(update={"secret_key": SecretStr(path.read_text())})
