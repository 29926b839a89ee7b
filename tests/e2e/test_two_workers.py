"""Two workers after the same rows, by doorbell and by sweep at once: the provider is the witness."""

import asyncio
from typing import Any

from evervec.pipeline.embedding.health import KNOWN_TEXT
from evervec.queue.broker import JetStreamBroker
from evervec.queue.names import EMBED_MESSAGES, Lane
from evervec.queue.nats_doorbell import NatsDoorbell
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import assert_every_vector_is_right, make_dataset, wait_until_nothing_is_pending, write
from tests.fakes.server import FakeProvider

LEASE_SECONDS = 60
"""Nobody is killed here, and each text is counted: on a busy machine a shorter lease may expire."""
ROWS = 3_000


async def ring_for_all(product: Product, ids: list[int]) -> None:
    """Ring twice for every message, in both lanes and in overlapping parts."""
    broker = JetStreamBroker(product.environment["EVERVEC_NATS_URL"], stream=product.environment["EVERVEC_STREAM"])
    await broker.startup()
    doorbell = NatsDoorbell(broker, seconds=60)
    for size, lane in ((100, Lane.BACKFILL), (70, Lane.INTERACTIVE)):
        for start in range(0, len(ids), size):
            assert await doorbell.ring(EMBED_MESSAGES, lane=lane, message_ids=ids[start : start + size])
    await doorbell.aclose()
    await broker.shutdown()


async def test_two_workers_on_the_same_rows_send_no_text_twice(product: Product, fake: FakeProvider, psql: Any) -> None:
    await add_fake(product, fake)
    probed = fake.texts_sent()
    async with product.worker() as one, product.worker() as other:
        await write(psql, await make_dataset(psql), ROWS)
        ids = [row["id"] for row in await psql.fetch("SELECT id FROM messages ORDER BY id")]
        await asyncio.gather(ring_for_all(product, ids), wait_until_nothing_is_pending(psql))
        assert all("embed_messages_batch_task" in worker.said for worker in (one, other))
    sent = fake.texts_sent() - probed
    sent.pop(KNOWN_TEXT, None)
    assert len(sent) == ROWS
    assert set(sent.values()) == {1}
    assert await assert_every_vector_is_right(psql) == ROWS
