"""What other programs do to the database while a worker runs, without a hook and without telling anybody."""

from typing import Any

from tests.e2e.killing import hold_back
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import (
    EMBEDDED,
    LEASED,
    PENDING,
    assert_every_vector_is_right,
    count,
    make_dataset,
    wait_until_embedded,
    wait_until_nothing_is_pending,
    write,
)
from tests.e2e.waiting import eventually
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider


async def test_an_update_by_psql_is_embedded_again_by_the_sweep_also_as_a_replica(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), 200)
    async with product.worker() as worker:
        await wait_until_nothing_is_pending(psql)
        for role in ("origin", "replica"):
            await psql.execute(f"SET session_replication_role = {role}")
            async with psql.transaction():  # the worker sees them when they have been counted
                await psql.execute(
                    "UPDATE messages SET content = content || $1 WHERE id % 4 = 0", f", edited as {role}"
                )
                assert await count(psql, PENDING) == 50
            await wait_until_nothing_is_pending(psql)
            assert await assert_every_vector_is_right(psql) == 200
        assert worker.lives


async def test_a_project_made_while_a_worker_runs_is_found_without_a_restart(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    async with product.worker():
        await write(psql, await make_dataset(psql), 10)
        await wait_until_nothing_is_pending(psql)
        await write(psql, await make_dataset(psql, "made-later", "notes"), 10, word="later")
        await wait_until_nothing_is_pending(psql)
    assert await assert_every_vector_is_right(psql) == 20


async def test_a_dataset_deleted_in_the_middle_leaves_nothing_and_nothing_comes_back(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    doomed = await make_dataset(psql, "river", "doomed")
    hold_back(fake, after=1_000, word="doomed")
    fake.always(lambda text: text.startswith("doomed"), Fault.SLOW_LOAD, seconds=0.1)
    await write(psql, doomed, 3_000, word="doomed")
    async with product.worker() as worker:
        await wait_until_embedded(psql, 200)
        await psql.execute("UPDATE datasets SET deleted_at = now() WHERE id = $1", doomed)
        fake.resume()
        await write(psql, await make_dataset(psql, "sea", "kept"), 100, word="kept")
        kept = "SELECT count(*) FROM embedding_status WHERE embedding_status = 'PENDING' AND dataset_id <> '%s'"

        async def settled() -> bool:
            left = await count(psql, f"SELECT count(*) FROM embeddings WHERE dataset_id = '{doomed}'")
            return await count(psql, kept % doomed) == left == 0 and await count(psql, LEASED) == 0

        await eventually("the live dataset embedded, of the deleted one neither a lease nor a row left", settled)
        sent, embedded = len(fake.texts_sent()), await count(psql, EMBEDDED)
        assert sent < 2_000
        assert await count(psql, "SELECT count(*) FROM messages") == 100
        # a row that arrives later is proof that the worker has swept again since
        await write(psql, await make_dataset(psql, "sea2", "later"), 1, word="later")
        await eventually("the later row embedded", settled)
        assert (len(fake.texts_sent()), await count(psql, EMBEDDED)) == (sent + 1, embedded + 1)
        assert worker.lives
    status = await product.ask("status")
    assert {one["dataset"] for one in status["datasets"]} == {"kept", "later"}
    assert (status["rows"], status["pending"]) == (101, 0)


async def test_rows_deleted_in_the_middle_leave_no_vector_behind(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    fake.always(lambda text: text.startswith("row"), Fault.SLOW_LOAD, seconds=0.1)
    await write(psql, await make_dataset(psql), 2_000)
    async with product.worker() as worker:
        await wait_until_embedded(psql, 100)
        await psql.execute("DELETE FROM messages WHERE id % 2 = 0")
        await wait_until_nothing_is_pending(psql)
        assert worker.lives
    assert await assert_every_vector_is_right(psql) == 1_000
    assert await count(psql, "SELECT count(*) FROM embeddings") == 1_000
    assert await count(psql, "SELECT count(*) FROM embed_work") == 0
