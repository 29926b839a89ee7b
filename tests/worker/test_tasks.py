"""The tasks under their contract's names: rung with `.kiq(…)`, heard by a worker over NATS, done."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from taskiq import AsyncBroker

from evervec.pipeline.embedding import providers as adding
from evervec.pipeline.resources import Resources
from evervec.queue import names
from evervec.queue.receiver import serve
from evervec.store import datasets, providers
from evervec.store.providers import ProviderDraft
from evervec.store.spaces import spaces
from evervec.worker import tasks
from tests.fakes.server import FakeProvider

MESSAGE = {
    "message_id": 7,
    "date": int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()),
    "chat": {"id": -1001234, "type": "supergroup"},
    "from": {"id": 1, "first_name": "Mara"},
    "text": "We have a bug: the worker hangs for ever after a restart of NATS.",
}


async def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


@pytest.fixture
async def working(local: Resources) -> Any:
    """Run a worker that only hears the doorbell, without a sweep."""
    finish = asyncio.Event()
    local.broker.is_worker_process = True
    await local.broker.shutdown()
    await local.broker.startup()
    running = asyncio.create_task(serve(local.broker, max_async_tasks=4, wait_tasks_timeout=5, finish=finish))
    yield running
    finish.set()
    await running


async def test_a_saved_message_goes_all_the_way_by_the_doorbell_alone(
    working: Any, local: Resources, psql: Any
) -> None:
    await tasks.save_telegram_message_task.kiq(message=MESSAGE, project="river", dataset="log")

    async def all_ready() -> bool:
        states = await psql.fetch("SELECT kind, embedding_status FROM embedding_status")
        return {3, 1} <= {row["kind"] for row in states} and all(row["embedding_status"] == "READY" for row in states)

    await until(all_ready)
    row = await psql.fetchrow("SELECT author, signal, extracted_revision FROM messages")
    assert (row["author"], row["extracted_revision"]) == ("Mara", 1)


async def test_the_hooks_of_the_contract_embed_by_ids_and_provider(working: Any, local: Resources, psql: Any) -> None:
    async with local.database.transaction() as tx:
        dataset = await datasets.ensure(tx, "river", "log")
        document = await tx.fetchval(
            "INSERT INTO documents (dataset_id, uri) VALUES ($1, 'file:a') RETURNING id", dataset.id
        )
        chunk = await tx.fetchval(
            "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) "
            "VALUES ($1, $2, 0, 'a chunk', 'a chunk') RETURNING id",
            dataset.id,
            document,
        )
        topic = await tx.fetchval(
            "INSERT INTO topics (dataset_id, name) VALUES ($1, 'Queues') RETURNING id", dataset.id
        )
        atom = await tx.fetchval(
            "INSERT INTO atoms (dataset_id, type, title, content, confidence) "
            "VALUES ($1, 'idea', 'An idea', 'What if we used leases?', 0.9) RETURNING id",
            dataset.id,
        )
        active = await providers.active(tx)
    assert active is not None
    await tasks.embed_chunks_batch_task.kiq(chunk_ids=[chunk], provider_id=str(active.id))
    await tasks.embed_topics_batch_task.kiq(topic_ids=[topic])
    await tasks.embed_atoms_batch_task.kiq(atom_ids=[atom], provider_id=str(active.id))
    await until(lambda: psql.fetchval("SELECT count(*) = 3 FROM embedding_status WHERE embedding_status = 'READY'"))


async def test_a_message_of_a_dataset_of_another_provider_goes_all_the_way_by_the_doorbell_alone(
    working: Any, local: Resources, fake: FakeProvider, psql: Any
) -> None:
    """The default provider extracts, and is not asked for a vector."""
    fakes = await adding.add(
        local, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"), activate=False
    )
    async with local.database.transaction() as tx:
        dataset = await datasets.ensure(tx, "river", "log")
        await spaces.lock(tx, [dataset.id])
        await spaces.move(tx, [dataset.id], dataset.space_id, fakes.space.id)
    await tasks.save_telegram_message_task.kiq(message=MESSAGE, project="river", dataset="log")
    ready = "SELECT count(*) FILTER (WHERE kind = 3) > 0 AND bool_and(embedding_status = 'READY') FROM embedding_status"
    await until(lambda: psql.fetchval(ready))
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM embeddings") == [fakes.space.id]
    assert MESSAGE["text"] in fake.texts_sent()


async def test_a_provider_that_does_not_embed_the_dataset_any_more_leaves_it_to_the_one_that_does(
    working: Any, local: Resources, fake: FakeProvider, psql: Any
) -> None:
    other = await adding.add(
        local, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder"), activate=False
    )
    async with local.database.transaction() as tx:
        dataset = await datasets.ensure(tx, "river", "log")
        topic = await tx.fetchval(
            "INSERT INTO topics (dataset_id, name) VALUES ($1, 'Queues') RETURNING id", dataset.id
        )
    fake.requests.clear()
    await tasks.embed_topics_batch_task.kiq(topic_ids=[topic], provider_id=str(other.id))
    await until(lambda: psql.fetchval("SELECT count(*) = 1 FROM embedding_status WHERE embedding_status = 'READY'"))
    assert not fake.requests


def test_every_task_of_the_contract_is_known_by_its_name() -> None:
    known = AsyncBroker.global_task_registry
    for name in vars(names).values():
        if isinstance(name, str) and name.endswith("_task"):
            assert name in known, name


async def test_scored_noise_is_embedded_too(working: Any, local: Resources, psql: Any) -> None:
    await tasks.save_telegram_message_task.kiq(message={**MESSAGE, "text": "ok thanks"})
    await until(lambda: psql.fetchval("SELECT count(*) = 1 FROM embedding_status WHERE embedding_status = 'READY'"))
    await until(lambda: psql.fetchval("SELECT count(*) = 1 FROM messages WHERE signal = 'noise'"))
