"""kill -9 of whoever builds a space: another one goes on where it was, or it is dropped without a trace."""

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import count, make_dataset, wait_until_nothing_is_pending, write
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.pipeline.spaces.spaced import require_no_more, require_true, traces

LEASE_SECONDS = 60
"""Each text is counted: on a busy machine a shorter lease may expire. Those of a process that was killed are ended."""
ENDED = "UPDATE leases SET lease_until = now(); UPDATE embed_work SET lease_until = now()"
ROWS = 400
RECORDS = "SELECT count(*) FROM embeddings WHERE space_id = (SELECT id FROM embedding_spaces WHERE model = 'wider')"
NEXT = f"{RECORDS} AND embedding IS NOT NULL"


@pytest.fixture
async def slow(product: Product, fake: FakeProvider, psql: Any) -> AsyncIterator[FakeProvider]:
    """Embed some rows, and add a provider of another width whose server takes its time."""
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), ROWS)
    await product.run("backfill")
    async with FakeProvider(dims=24) as other:
        await product.ask(
            "providers", "add", "wide", "--type", "ollama", "--base-url", other.url, "--model", "wider", "--no-activate"
        )
        other.pace.delay = 0.3
        yield other


def small(product: Product) -> Product:
    """Return the product with batches of few rows, so that there is a middle in which it can be killed."""
    return product.given(EVERVEC_EMBED_BATCH="16")


async def killed_in_the_middle(product: Product, psql: Any) -> None:
    """Kill a worker that builds, some of whose rows are embedded."""
    await product.ask("spaces", "build", "--provider", "wide", "--detach")

    async def begun() -> bool:
        return await count(psql, NEXT) >= 16

    async with small(product).worker() as worker:
        await eventually("rows of the next space", begun)
        assert await worker.end(signal.SIGKILL) == -signal.SIGKILL
    await psql.execute(ENDED)
    assert 16 <= await count(psql, NEXT) < ROWS


@pytest.mark.slow
async def test_a_worker_killed_in_a_build_is_followed_by_another_which_ends_it(
    product: Product, slow: FakeProvider, psql: Any
) -> None:
    await killed_in_the_middle(product, psql)
    refused = await product.run("spaces", "activate")
    assert refused.code == 2
    assert "--allow-missing" in refused.stderr or "not filled" in refused.stderr
    slow.pace.delay = 0

    async def built() -> bool:
        (found,) = (await product.ask("spaces", "status"))["builds"]
        return bool(found["indexed"] and not found["missing"])

    async with product.worker():
        await eventually("the space is built", built, 120)
        (flipped,) = (await product.ask("spaces", "activate"))["flipped"]
        assert "wider" in flipped["space"]
        found = await product.ask("search", "row number 300", "-k", "3")
        assert found["hits"][0]["text"] == "row number 300"
        await psql.execute("UPDATE messages SET content = 'row number 300, edited' WHERE content = 'row number 300'")
        await wait_until_nothing_is_pending(psql)
        assert (await product.ask("spaces", "rollback"))["flipped"]

        async def found_again() -> bool:
            answer = await product.ask("search", "row number 300, edited", "-k", "1")
            return bool(answer["hits"][0]["text"] == "row number 300, edited")

        await eventually("the edit is found in the former space", found_again)
    assert set(slow.texts_sent().values()) <= {1, 2}  # what was in flight at the kill twice, and the question
    await product.run("spaces", "build", "--provider", "wide")
    await require_true(psql)


@pytest.mark.slow
async def test_a_build_whose_worker_was_killed_is_dropped_without_a_trace(
    product: Product, slow: FakeProvider, psql: Any
) -> None:
    before = await traces(psql)
    await killed_in_the_middle(product, psql)
    dropped = await product.ask("spaces", "drop")
    assert dropped["dropped"] == 1
    assert await count(psql, RECORDS) == 0
    require_no_more(await traces(psql), before)
    await require_true(psql)


@pytest.mark.slow
async def test_a_build_command_killed_at_any_moment_is_continued_by_the_same_command(
    product: Product, slow: FakeProvider, psql: Any
) -> None:
    slow.pace.delay = 0.05
    reached = 0
    for least in (1, 100, 250):

        async def moved(least: int = least) -> bool:
            return await count(psql, RECORDS) > 0 and await count(psql, NEXT) >= least

        async with small(product).staying("spaces", "build", "--provider", "wide", up="") as building:
            await eventually(f"{least} rows of the next space", moved)
            await building.end(signal.SIGKILL)
        await psql.execute(ENDED)
        now = await count(psql, NEXT)
        assert now >= reached
        reached = now
    slow.pace.delay = 0
    done = await product.run("spaces", "build", "--provider", "wide", "--json")
    assert done.code == 0, done.stderr
    (found,) = done.document["builds"]
    assert (found["embedded"], found["missing"], found["indexed"]) == (ROWS, 0, True)
    await require_true(psql)
