"""A ceiling holds for two processes that embed the same rows at once: the provider is the witness."""

import asyncio
from typing import Any

from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import make_dataset, write
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import tokens

LEASE_SECONDS = 60
"""Nobody is killed here, and each text is counted: on a busy machine a shorter lease may expire."""
CEILING = 10_000


def told(fake: FakeProvider) -> int:
    return sum(tokens(text) * times for text, times in fake.texts_sent().items())


async def test_two_processes_stop_below_the_ceiling(product: Product, fake: FakeProvider, psql: Any) -> None:
    await add_fake(product, fake)
    await product.ask("budget", "set", "--provider", "fake", "--tokens-per-day", str(CEILING))
    await write(psql, await make_dataset(psql), 700, word="a text of twenty words and more " * 3)
    outcomes = await asyncio.gather(*(product.run("backfill", "--batch-size", "50", "--json") for _ in range(2)))
    assert {outcome.code for outcome in outcomes} == {1}
    assert all("10,000 tokens a day" in outcome.stderr for outcome in outcomes), outcomes
    assert CEILING * 0.6 < told(fake) <= CEILING
    (budget,) = (await product.ask("budget", "list"))["budgets"]
    assert budget["day_tokens"] == told(fake)
