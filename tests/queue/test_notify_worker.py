"""A worker with PostgreSQL alone: woken by rings, right without them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from evervec.domain.extraction.message import IncomingMessage
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.health import KNOWN_TEXT
from evervec.pipeline.ingest import telegram
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.queue.names import Lane
from evervec.runtime import Runtime
from evervec.settings import Settings
from evervec.store import messages
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.e2e.rows import EMBEDDED, PENDING, count, make_dataset, write
from tests.fakes.server import FakeProvider
from tests.queue.ringing import listening, runtime, working
from tests.queue.waiting import eventually

LONG = {"sweep_seconds": 600}


@pytest.fixture
async def writer(database_url: str, settings: Settings, fake: FakeProvider) -> AsyncIterator[Runtime]:
    """Open a process that writes, with the fake as the active provider."""
    async with runtime(database_url, settings) as opened:
        await providers.add(opened.resources, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"))
        yield opened


async def save(resources: Resources, dataset: DatasetRef, number: int, *, rings: bool = True) -> None:
    """Commit one message, and ring for it."""
    text = IncomingMessage("chat", str(number), "ada", datetime.now(UTC), f"a text that is number {number}")
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset.id, [text])
    if rings:
        await telegram.announce(resources, dataset.id, saved.created, lane=Lane.INTERACTIVE)


async def test_a_row_that_is_rung_for_is_embedded_at_once(
    writer: Runtime, database_url: str, settings: Settings, dataset: DatasetRef, psql: Any
) -> None:
    """The sweep is minutes away, and each row is waited for by itself: only a ring brings it in time."""
    async with working(database_url, settings, **LONG):
        await listening(psql)
        for number in range(20):
            await save(writer.resources, dataset, number)
            await eventually(partial(embedded, psql, number + 1))


async def embedded(psql: Any, wanted: int) -> bool:
    return await count(psql, EMBEDDED) == wanted


async def test_a_row_that_nobody_rang_for_is_found_by_the_sweep(
    writer: Runtime, database_url: str, settings: Settings, dataset: DatasetRef, psql: Any
) -> None:
    await save(writer.resources, dataset, 1)  # nobody listens yet
    async with working(database_url, settings):
        await eventually(lambda: embedded(psql, 1))
        await write(psql, dataset.id, 5)
        await eventually(lambda: embedded(psql, 6))


async def test_rows_that_came_while_a_worker_was_deaf_wait_for_no_sweep(
    writer: Runtime, database_url: str, settings: Settings, dataset: DatasetRef, psql: Any
) -> None:
    async with working(database_url, settings, **LONG):
        (pid,) = await listening(psql)
        await save(writer.resources, dataset, 1)
        await eventually(lambda: embedded(psql, 1))
        await save(writer.resources, dataset, 2, rings=False)
        await psql.execute("SELECT pg_terminate_backend($1::int)", pid)
        await eventually(lambda: embedded(psql, 2))


async def test_a_slow_dataset_delays_no_other(
    writer: Runtime, database_url: str, settings: Settings, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    big = await make_dataset(psql, "big", "big")
    await write(psql, big, 4_000)
    async with working(database_url, settings, embed_batch=16, **LONG):
        await listening(psql)
        await save(writer.resources, dataset, 1)

        async def there() -> bool:
            return bool(
                await psql.fetchval(
                    "SELECT embedded_hash IS NOT NULL FROM embeddings WHERE dataset_id = $1", dataset.id
                )
            )

        await eventually(there)
        assert await count(psql, PENDING) > 1_000


async def test_two_workers_hear_the_same_ring_and_send_no_text_twice(
    writer: Runtime, database_url: str, settings: Settings, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    probed = fake.texts_sent()
    async with AsyncExitStack() as closing:
        for _ in range(2):
            await closing.enter_async_context(working(database_url, settings, **LONG))
        await listening(psql, 2)
        await asyncio.gather(*(save(writer.resources, dataset, number) for number in range(100)))
        await eventually(lambda: embedded(psql, 100))
    sent = fake.texts_sent() - probed
    sent.pop(KNOWN_TEXT, None)
    assert (len(sent), set(sent.values())) == (100, {1})


async def test_the_status_says_what_carries_the_rings_and_whether_a_worker_listens(
    writer: Runtime, database_url: str, settings: Settings, psql: Any
) -> None:
    found = await overview.queue(writer.resources)
    assert (found.kind, found.up, found.worker_listens, found.reason) == ("postgres", True, False, None)
    async with working(database_url, settings):
        await listening(psql)
        assert (await overview.queue(writer.resources)).worker_listens
