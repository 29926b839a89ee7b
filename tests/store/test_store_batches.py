"""The tables of the batch lane: rows that can not be, who may take which, and the plans of what is asked often."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from evervec.domain.batch import belongs_to, new_intent
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import JobRow
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.embeddings.in_space import in_space
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.schema.embeddables import MESSAGE
from tests.conftest import Servers, cloned
from tests.store.conftest import BIG, TALL, filled
from tests.store.explaining import plans
from tests.store.impossible_batches import IMPOSSIBLE
from tests.store.planting import edit, embed_all, plant

HOUR = timedelta(hours=1)
HELD = UUID(int=7)
# ten jobs of 20,000 rows, one of which is being collected, beside what else is in the tall database
RUNNING = f"""
INSERT INTO batch_jobs (id, model, job_type, finished_at, cleaned_at, status)
SELECT CASE n WHEN 7 THEN '{HELD}' ELSE gen_random_uuid() END, 'm', 'EMBEDDING', CASE WHEN n <> 7 THEN now() END,
       CASE WHEN n <> 7 THEN now() END, CASE WHEN n = 7 THEN 'CREATED' ELSE 'CANCELLED' END
FROM generate_series(1, 5000) n;
UPDATE embeddings SET embedding = NULL WHERE vector_id % 10 = 3 AND failed_hash IS NULL;
INSERT INTO embed_work (vector_id, content_hash, lease_owner, lease_until, deferred)
SELECT vector_id, content_hash, '{HELD}', now() + interval '50 hours', true FROM embeddings WHERE vector_id % 10 = 3;
INSERT INTO batch_items SELECT lease_owner, vector_id, 'message:' || vector_id, content_hash FROM embed_work;
INSERT INTO batch_items SELECT j.id, vector_id, 'message:' || vector_id, content_hash
FROM embed_work, (SELECT id FROM batch_jobs WHERE status <> 'CREATED' LIMIT 9) j;
ANALYZE batch_jobs, batch_items, embed_work, embeddings;
"""


@pytest.fixture
async def tried(furnished: str) -> AsyncIterator[Any]:
    """Connect to a database with a row of every kind; roll back whatever a test does there."""
    connection = await asyncpg.connect(furnished)
    undone = connection.transaction()
    await undone.start()
    yield connection
    await undone.rollback()
    await connection.close()


@pytest.fixture(scope="module")
def running(servers: Servers, template: str) -> Iterator[str]:
    """Return the address of a database as tall as `tall`, in which a job of 20,000 rows runs."""

    async def fill(url: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(TALL)
        await connection.execute(RUNNING)
        await connection.close()

    yield from filled(servers, template, fill)


@pytest.fixture
async def busy(running: str) -> AsyncIterator[Any]:
    """Connect to that database; roll back whatever a test does there."""
    connection = await asyncpg.connect(running)
    undone = connection.transaction()
    await undone.start()
    yield connection
    await undone.rollback()
    await connection.close()


class Noting(Tx):
    """A transaction that keeps the statements that are run in it."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.statements: list[tuple[str, tuple[object, ...]]] = []

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        self.statements.append((sql, values))
        return await super().fetch(sql, *values)

    async def fetchrow(self, sql: str, *values: object) -> Any | None:
        self.statements.append((sql, values))
        return await super().fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        self.statements.append((sql, values))
        return await super().fetchval(sql, *values)

    async def execute(self, sql: str, *values: object) -> str:
        self.statements.append((sql, values))
        return await super().execute(sql, *values)


@pytest.mark.parametrize("constraint", IMPOSSIBLE)
async def test_an_impossible_row_of_the_lane_is_refused_by_name(tried: Any, constraint: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await tried.execute(IMPOSSIBLE[constraint])
        await tried.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert refused.value.constraint_name == constraint


async def test_every_check_constraint_of_the_lane_has_its_test(tried: Any) -> None:
    found = await tried.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' "
        "AND conrelid IN ('batch_jobs'::regclass, 'batch_items'::regclass, 'media'::regclass)"
    )
    assert {row["conname"] for row in found} <= set(IMPOSSIBLE)
    assert len(found) >= 9


async def claimed(
    database: Database, dataset: DatasetRef, owner: UUID, *, tries: int = 0, limit: int = 100
) -> set[str]:
    async with database.transaction() as tx:
        return texts(
            await batch_queue.claim(
                tx, dataset.id, space_id=dataset.space_id, tries=tries, limit=limit, owner=owner, lease=60
            )
        )


async def claimed_online(database: Database, dataset: DatasetRef, owner: UUID) -> set[str]:
    async with database.transaction() as tx:
        return texts(
            await rows.claim_dataset(tx, dataset.id, space_id=dataset.space_id, limit=100, owner=owner, lease=60)
        )


def texts(found: list[ClaimedRow]) -> set[str]:
    return {row.text for row in found}


@pytest.fixture
async def messages(psql: Any, dataset: DatasetRef) -> dict[str, int]:
    """Save three messages that wait."""
    return {text: await plant(psql, MESSAGE, dataset.id, text) for text in ("one", "two", "three")}


async def mark(database: Database, ids: list[int], hours: float = 50) -> int:
    async with database.transaction() as tx:
        return await batch_queue.mark(tx, MESSAGE, ids, hours=hours)


async def test_what_is_kept_for_a_job_is_for_no_worker_until_its_deadline(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    assert await mark(database, [messages["one"], messages["two"]]) == 2
    assert await claimed_online(database, dataset, uuid4()) == {"three"}
    await psql.execute("UPDATE embed_work SET not_before = now() WHERE deferred AND vector_id = $1", 1)
    assert await claimed_online(database, dataset, uuid4()) == {"one"}
    assert await claimed(database, dataset, uuid4()) == {"two"}


async def test_a_job_takes_what_is_kept_for_it_and_what_simply_waits(
    database: Database, dataset: DatasetRef, messages: dict[str, int]
) -> None:
    await mark(database, [messages["one"]])
    async with database.read() as tx:
        assert await batch_queue.waiting(tx, [dataset.id], space_id=dataset.space_id, tries=0) == [(dataset.id, 3)]
    assert await claimed(database, dataset, uuid4()) == {"one", "two", "three"}
    async with database.read() as tx:
        assert await batch_queue.waiting(tx, [dataset.id], space_id=dataset.space_id, tries=0) == []
    assert await claimed(database, dataset, uuid4()) == await claimed_online(database, dataset, uuid4()) == set()


async def test_marking_leaves_what_somebody_works_on_and_what_rests(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    await psql.execute(
        "INSERT INTO embed_work (vector_id, content_hash, lease_owner, lease_until, not_before) "
        "SELECT vector_id, content_hash, CASE row_id WHEN $1 THEN gen_random_uuid() END, "
        "CASE row_id WHEN $1 THEN now() + interval '1 minute' END, now() + interval '1 minute' * (row_id = $2)::int "
        "FROM embeddings WHERE row_id IN ($1, $2)",
        messages["one"],
        messages["two"],
    )
    assert await mark(database, list(messages.values())) == 1
    async with database.transaction() as tx:
        assert await batch_queue.mark_datasets(tx, [dataset.id], hours=50) == 0
    kept = await psql.fetch("SELECT e.row_id FROM embed_work w JOIN embeddings e USING (vector_id) WHERE w.deferred")
    assert [row["row_id"] for row in kept] == [messages["three"]]
    assert await mark(database, []) == 0


async def test_an_edited_row_is_free_for_workers_at_once(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    await mark(database, list(messages.values()))
    job = uuid4()
    assert await claimed(database, dataset, job, limit=2) == {"one", "two"}
    await edit(psql, MESSAGE, messages["one"], "one, edited")
    await edit(psql, MESSAGE, messages["three"], "three, edited")
    assert await claimed_online(database, dataset, uuid4()) == {"one, edited", "three, edited"}
    async with database.transaction() as tx:
        assert await batch_queue.extend_leases(tx, job, hours=1) == 1


async def test_a_row_comes_back_once_for_a_smaller_job_and_then_for_everybody(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    ids = [row["vector_id"] for row in await psql.fetch("SELECT vector_id FROM embeddings ORDER BY vector_id")]
    for tries in (0, 1):
        job = uuid4()
        assert await claimed(database, dataset, job, tries=tries) == set(messages)
        assert await claimed(database, dataset, uuid4(), tries=1 - tries) == set()
        async with database.transaction() as tx:
            await batch_queue.return_rows(tx, uuid4(), ids, hours=50, online=False, code="transient", error="not mine")
            await batch_queue.return_rows(tx, job, ids, hours=50, online=False, code="transient", error="out")
        async with database.read() as tx:
            assert await batch_queue.returned_rows(tx, limit=10) == (
                {} if tries == 0 else {1: sorted(messages.values())}
            )
    assert await claimed(database, dataset, uuid4()) == await claimed(database, dataset, uuid4(), tries=1) == set()
    assert await psql.fetchval("SELECT count(*) FROM embed_work WHERE deferred") == 0
    told = await psql.fetch("SELECT DISTINCT error_message FROM embedding_status")
    assert [row["error_message"] for row in told] == ["out"]
    assert await claimed_online(database, dataset, uuid4()) == set(messages)


async def test_clearing_frees_what_no_job_holds(
    database: Database, dataset: DatasetRef, messages: dict[str, int]
) -> None:
    await mark(database, list(messages.values()))
    assert await claimed(database, dataset, uuid4(), limit=1) == {"one"}
    async with database.transaction() as tx:
        assert await batch_queue.unmark(tx) == 2
    assert await claimed_online(database, dataset, uuid4()) == {"two", "three"}


async def test_what_is_embedded_or_deleted_is_in_no_job(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    await mark(database, list(messages.values()))
    await psql.execute("UPDATE datasets SET deleted_at = now()")
    assert await claimed(database, dataset, uuid4()) == set()
    await psql.execute("UPDATE datasets SET deleted_at = NULL")
    await embed_all(psql)
    assert await claimed(database, dataset, uuid4()) == set()
    assert await mark(database, list(messages.values())) == 0


async def filled_job(database: Database, dataset: DatasetRef) -> UUID:
    """Make an intent that holds every row."""
    async with database.transaction() as tx:
        job = new_intent(await batch_jobs.database_tag(tx))
        found = await batch_queue.claim(
            tx, dataset.id, space_id=dataset.space_id, tries=0, limit=100, owner=job, lease=60
        )
        await tx.execute("INSERT INTO batch_jobs (id, job_type, model) VALUES ($1, 'EMBEDDING', 'm')", job)
        await batch_jobs.add_items(tx, job, [JobRow(row.vector_id, row.text, row.content_hash) for row in found])
    return job


async def test_an_intent_loses_what_was_edited_deleted_or_taken(
    database: Database, dataset: DatasetRef, messages: dict[str, int], psql: Any
) -> None:
    await plant(psql, MESSAGE, dataset.id, "four")
    job = await filled_job(database, dataset)
    await edit(psql, MESSAGE, messages["one"], "one, edited")
    await psql.execute("DELETE FROM messages WHERE id = $1", messages["two"])
    await psql.execute("UPDATE embed_work SET lease_owner = gen_random_uuid() WHERE vector_id = 3")
    async with database.transaction() as tx:
        assert texts(await batch_jobs.leased_rows(tx, job, after=0, limit=10)) == {"four"}
        assert await batch_jobs.drop_lost(tx, job) == 3
        assert [item.key for item in await batch_jobs.unanswered(tx, job, limit=10)] == ["four"]
        assert await batch_jobs.is_wanted(tx, job)
        stats = (await batch_jobs.by_id(tx, job)).stats
    assert (stats["rows"], stats["dropped"]) == (4, 3)


async def test_a_tag_tells_databases_apart(
    database: Database, servers: Servers, template: str, database_url: str
) -> None:
    async with cloned(servers, template) as other:
        elsewhere = await Database(other).open()
        tags = set()
        for one in (database, elsewhere, database):
            async with one.read() as tx:
                tags.add(await batch_jobs.database_tag(tx))
        await elsewhere.aclose()
    assert len(tags) == 2
    ours, theirs = tags
    assert belongs_to(new_intent(ours), ours)
    assert not belongs_to(new_intent(theirs), ours)
    assert not belongs_to(None, ours)


def assert_no_scan(plan: str, *indexes: str) -> None:
    assert not re.search(r"Seq Scan on (embeddings|embed_work|batch_items|batch_jobs)\b", plan), plan
    for index in indexes:
        assert index in plan, plan


async def test_a_claim_for_a_job_reads_the_pending_index(busy: Any) -> None:
    for plan in await plans(busy, in_space(batch_queue.CLAIM_FOR_BATCH, 1), BIG, None, 100, uuid4(), HOUR, 0, False):
        assert "embeddings_pending_idx" in plan, plan
        assert not re.search(r"Seq Scan on embeddings\b", plan), plan


async def test_counting_what_could_be_sent_reads_the_pending_index(busy: Any) -> None:
    for plan in await plans(busy, batch_queue.WAITING_FOR_BATCH, [BIG], 0, False, 1):
        assert "embeddings_pending_idx" in plan, plan
        assert not re.search(r"Seq Scan on embeddings\b", plan), plan


async def test_marking_rows_looks_each_up(busy: Any) -> None:
    for plan in await plans(busy, batch_queue.MARK_IDS, HOUR, MESSAGE.kind, list(range(100))):
        assert_no_scan(plan, "embeddings_")


async def test_giving_rows_back_looks_each_up(busy: Any) -> None:
    for plan in await plans(busy, batch_queue.RETURN_ROWS, HELD, list(range(100)), HOUR, 1, "transient", "out"):
        assert_no_scan(plan, "embed_work_pkey")


@pytest.mark.parametrize(
    "ask",
    [
        # of a thousand keys it may well read a table of this size whole, which is as quick
        lambda tx: batch_jobs.items(tx, HELD, [f"message:{n}" for n in range(200)]),
        lambda tx: batch_jobs.unanswered(tx, HELD, limit=1000),
        lambda tx: batch_jobs.settle_items(tx, HELD, list(range(1000)), ready=1000),
        lambda tx: batch_jobs.is_wanted(tx, HELD),
        lambda tx: batch_jobs.unfinished(tx),
        lambda tx: batch_jobs.open_jobs(tx, [HELD]),
        lambda tx: batch_jobs.by_id(tx, HELD),
    ],
    ids=["items", "left", "settle", "wanted", "unfinished", "still_open", "by_id"],
)
async def test_a_piece_of_results_is_applied_without_reading_whole_tables(busy: Any, ask: Any) -> None:
    noting = Noting(busy)
    await ask(noting)
    asked = list(noting.statements)
    assert asked
    for sql, values in asked:
        natural = (await plans(busy, sql, *values))[0]
        assert_no_scan(natural)
