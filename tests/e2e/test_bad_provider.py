"""A provider that embeds and extracts, and fails in every way on the way: only what is really bad is given up."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from evervec.sources.telegram.demo import demo_chat_path
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import EMBEDDED, count, wait_until_nothing_is_pending
from tests.e2e.waiting import eventually
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider

LEASE_SECONDS = 60
"""Nobody is killed here, and each text is counted: on a busy machine a shorter lease may expire."""
MOST_WHILE_DOWN = 40
"""Requests in a few seconds of outage; without a breaker it would be hundreds."""
UNFINISHED = """
SELECT count(*) FROM messages WHERE scored_revision IS DISTINCT FROM revision
    OR (signal <> 'noise' AND extracted_revision IS DISTINCT FROM revision)
"""
TEXTS = "SELECT content FROM messages UNION ALL SELECT content FROM atoms"


def poison_of(chat: Path) -> str:
    """Return the shortest plain text that is in the chat once: too short for the fake to extract an atom from it."""
    messages = orjson.loads(chat.read_bytes())["messages"]
    texts = Counter(one["text"] for one in messages if isinstance(one.get("text"), str))
    return min((text for text, times in texts.items() if times == 1 and len(text) > 10), key=len)


async def failing(fake: FakeProvider, endpoint: str, *, times: int) -> None:
    """Wait until so many more requests to an endpoint went wrong."""
    before = len(fake.requests)

    async def went_wrong() -> bool:
        return sum(r.fault is not None and r.endpoint == endpoint for r in fake.requests[before:]) >= times

    await eventually(f"{times} failed requests to {endpoint}", went_wrong, 120)


@pytest.mark.slow
async def test_an_outage_then_garbage_then_one_bad_text_leave_exactly_that_text_failed(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake, chat=True)
    poison = poison_of(demo_chat_path())
    fake.always(None, Fault.BUSY_503)
    async with product.worker() as worker:
        imported = await product.ask("ingest", "telegram", str(demo_chat_path()))
        before = len(fake.requests)
        await failing(fake, "/api/embed", times=4)
        assert len(fake.requests) - before < MOST_WHILE_DOWN
        assert await count(psql, EMBEDDED) == 0

        fake.heal()
        fake.always(None, Fault.CHAT_GARBAGE, endpoint="/api/chat")
        fake.always(None, Fault.HTML_200, endpoint="/api/embed")
        await failing(fake, "/api/embed", times=3)
        touched = "SELECT count(*) FROM embeddings WHERE embedded_hash IS NOT NULL OR failed_hash IS NOT NULL"
        assert await count(psql, touched) == 0

        fake.heal()
        fake.always(lambda text: text == poison, Fault.BAD_REQUEST_400, endpoint="/api/embed")
        sent = fake.texts_sent()[poison]
        await wait_until_nothing_is_pending(psql)

        async def extracted() -> bool:
            return await count(psql, UNFINISHED) == 0

        await eventually("every message scored and extracted", extracted, 120)
        await wait_until_nothing_is_pending(psql)
        assert fake.texts_sent()[poison] - sent <= 12, "a batch of 32 is halved five times, twice at the most"

        (failure,) = (await product.ask("failed", "list"))["failed"]
        assert (failure["kind"], failure["text"], failure["code"]) == ("message", poison, "bad_input")
        assert "invalid input" in failure["reason"]
        status = await product.ask("status")
        assert (status["failed"], status["pending"]) == (1, 0)
        assert status["embedded"] == status["rows"] - status["empty"] - 1
        assert status["datasets"][0]["kinds"]["message"]["rows"] == imported["created"]
        assert status["datasets"][0]["kinds"]["atom"]["embedded"] > 10
        # an atom that repeats its message may be on its way at the same time: once a row, never more
        rows = Counter(row[0] for row in await psql.fetch(TEXTS))
        assert {text: times for text, times in fake.texts_embedded().items() if times > rows[text] > 0} == {}

        empty = status["empty"]
        fake.heal()
        assert (await product.ask("failed", "retry"))["reopened"] == 1
        await wait_until_nothing_is_pending(psql)
        assert worker.lives
    assert await count(psql, "SELECT count(*) FROM embedding_status WHERE embedding_status <> 'READY'") == empty
    assert fake.texts_embedded()[poison] == 1
