"""`evervec backfill` and its script: exactly what is missing is counted, embedded, and sent once."""

from typing import Any

import pytest

from tests.e2e.processes import BACKFILL, EVERVEC, Product, add_fake
from tests.e2e.rows import PENDING, assert_every_vector_is_right, count, make_dataset, write
from tests.fakes.server import FakeProvider

LEASE_SECONDS = 60
"""Nobody is killed here, and each text is counted: on a busy machine a shorter lease may expire."""

# every column of every record and its row version: equal only if nothing at all was written
WHOLE = "SELECT md5(string_agg(e.xmin::text || e.*::text, ';' ORDER BY vector_id)) FROM embeddings e"


async def prepare(product: Product, fake: FakeProvider, psql: Any) -> None:
    """Write 1,500 messages and 300 atoms in two datasets, all embedded."""
    await add_fake(product, fake)
    log, notes = await make_dataset(psql), await make_dataset(psql, "sea", "notes")
    await write(psql, log, 1_500)
    await psql.execute(
        "INSERT INTO atoms (dataset_id, type, title, content, confidence) "
        "SELECT $1, 'idea', 'atom ' || n, 'atom number ' || n, 1 FROM generate_series(1, 300) n",
        notes,
    )
    report = await product.ask("backfill")
    assert (report["embedded"], report["sent"], report["pending"]) == (1_800, 1_800, 0)


@pytest.mark.slow
async def test_vectors_set_to_null_are_counted_then_restored_and_never_sent_again(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await prepare(product, fake, psql)
    await psql.execute(
        "UPDATE embeddings SET embedding = NULL WHERE vector_id IN ("
        "SELECT vector_id FROM embeddings WHERE kind = 1 ORDER BY row_id LIMIT 900) OR (kind = 3 AND row_id <= 100)"
    )
    assert await count(psql, PENDING) == 1_000

    before, asked = await psql.fetchval(WHOLE), len(fake.requests)
    plan = await product.ask("backfill", "--dry-run")
    assert (plan["pending"], plan["sent"], plan["embedded"]) == (1_000, 0, 0)
    shares = {(share["project"], share["dataset"], share["kind"]): share["pending"] for share in plan["shares"]}
    assert shares == {("river", "log", "message"): 900, ("sea", "notes", "atom"): 100}
    assert (await psql.fetchval(WHOLE), len(fake.requests)) == (before, asked)

    report = await product.ask("backfill")
    assert (report["embedded"], report["pending"], report["failed"]) == (1_000, 0, 0)
    assert report["sent"] + report["reused"] == 1_000
    assert await assert_every_vector_is_right(psql) == 1_500

    restored, asked = await psql.fetchval(WHOLE), len(fake.requests)
    again = await product.ask("backfill")
    assert (again["pending"], again["embedded"], again["sent"], again["reused"]) == (0, 0, 0, 0)
    assert (await psql.fetchval(WHOLE), len(fake.requests)) == (restored, asked)


async def test_the_script_is_the_same_command(product: Product, fake: FakeProvider, psql: Any) -> None:
    await add_fake(product, fake)
    await write(psql, await make_dataset(psql), 20)
    before = await psql.fetchval(WHOLE)
    plan = await product.run("--dry-run", "--json", program=BACKFILL)
    assert (plan.code, plan.document["pending"], plan.document["sent"]) == (0, 20, 0)
    assert await psql.fetchval(WHOLE) == before
    done = await product.run("--dataset", "log", "--kind", "message", "--batch-size", "7", "--json", program=BACKFILL)
    assert (done.code, done.document["embedded"], done.document["pending"]) == (0, 20, 0)


@pytest.mark.parametrize("program", [EVERVEC, BACKFILL], ids=["command", "script"])
async def test_a_batch_of_zero_rows_is_a_usage_error(product: Product, program: Any) -> None:
    arguments = ["backfill"] if program == EVERVEC else []
    outcome = await product.run(*arguments, "--batch-size", "0", program=program)
    assert outcome.code == 2
    assert "--batch-size" in outcome.stderr
    assert "Traceback" not in outcome.stderr
