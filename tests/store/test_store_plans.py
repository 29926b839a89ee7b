"""The plan of every hot query: what PostgreSQL does with it must not depend on how many rows are done already."""

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from evervec.store import datasets, messages, monitor
from evervec.store.batch import batch_queue
from evervec.store.database.session import Database
from evervec.store.embeddings import changes, duplicate_pairs, hnsw, neighbours, rows, vectors
from evervec.store.embeddings.in_space import in_space
from evervec.store.schema.embeddables import EMBEDDABLES, MESSAGE, Embeddable
from evervec.store.schema.predicates import PENDING
from evervec.store.spaces import space_builds, space_removal, spaces
from tests.store.conftest import BIG, SMALL, WIDTH
from tests.store.explaining import lines, plans
from tests.store.planting import plant, space, unit

LEASE = (uuid4(), timedelta(seconds=60))


def assert_index(plan: str, index: str, table: str) -> None:
    assert re.search(index, plan), plan
    assert not re.search(rf"Seq Scan on {table}\b", plan), plan


SPACE = 1
"""The only space of these databases with rows."""


@pytest.mark.parametrize("kind", [None, MESSAGE.kind])
async def test_a_claim_in_a_dataset_reads_the_pending_index(tall_psql: Any, kind: int | None) -> None:
    for plan in await plans(tall_psql, in_space(rows.CLAIM_DATASET, SPACE), BIG, kind, 100, *LEASE):
        assert_index(plan, "embeddings_pending_idx", "embeddings")


async def test_a_claim_takes_the_first_rows_before_statistics_know_how_many_wait(tall_psql: Any) -> None:
    """Else each claim of a build, whose rows have all just come, would collect and sort whatever waits."""
    transaction = tall_psql.transaction()
    await transaction.start()
    try:
        await tall_psql.execute("DELETE FROM pg_statistic WHERE starelid = 'embeddings'::regclass")
        explain = f"EXPLAIN {in_space(rows.CLAIM_DATASET, SPACE)}"
        assert "Sort Key: e.pending_id" in lines(await tall_psql.fetch(explain, BIG, None, 100, *LEASE))
        await tall_psql.execute(rows.LOCK_CLAIMS_IN_ORDER, BIG)
        assert "Sort Key: e.pending_id" not in lines(await tall_psql.fetch(explain, BIG, None, 100, *LEASE))
    finally:
        await transaction.rollback()


async def test_a_claim_by_ids_reads_an_index(tall_psql: Any) -> None:
    for plan in await plans(
        tall_psql, in_space(rows.CLAIM_IDS, SPACE), MESSAGE.kind, list(range(100)), 100, *LEASE, BIG
    ):
        assert_index(plan, "embeddings_(kind_row_id_space_id_key|pending_idx)", "embeddings")


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (in_space(rows.COUNT_WAITING, 1), (BIG,)),
        (in_space(rows.PENDING_BY_KIND, 1), (BIG,)),
        (monitor.PENDING_IN, (None,)),
        (monitor.PENDING_IN, ([BIG],)),
        (datasets.PENDING_BY_PROJECT, ("recipe",)),
        (f"SELECT count(*) FROM embeddings WHERE {PENDING}", ()),
    ],
)
async def test_counting_what_waits_reads_the_pending_index(tall_psql: Any, sql: str, values: tuple[Any, ...]) -> None:
    for plan in await plans(tall_psql, sql, *values):
        assert_index(plan, "embeddings_pending_idx", "embeddings")


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (monitor.PENDING_IN, ([BIG],)),
        (monitor.PENDING_IN, (None,)),
        (monitor.PENDING_AT, ([BIG], "1000")),
        (rows.LIVE_ROWS_WAIT, ()),
        (datasets.PENDING_BY_PROJECT, ("recipe",)),
    ],
)
async def test_what_waits_in_a_space_that_is_being_filled_is_not_read_for_the_one_that_is_searched(
    tall_psql: Any, sql: str, values: tuple[Any, ...]
) -> None:
    for plan in await plans(tall_psql, sql, *values):
        assert re.search(r"Index Cond: \(\(dataset_id = [ds]\.id\) AND \(space_id = [ds]\.space_id\)", plan), plan


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (in_space(batch_queue.CLAIM_FOR_BATCH, SPACE), (BIG, None, 100, *LEASE, 0, False)),
        (batch_queue.WAITING_FOR_BATCH, ([BIG], 0, False, SPACE)),
        (batch_queue.MARK_DATASETS, (timedelta(hours=1), [BIG], None, None)),
        (batch_queue.MARK_IDS, (timedelta(hours=1), MESSAGE.kind, list(range(100)))),
    ],
)
async def test_what_waits_for_a_batch_job_is_found_by_an_index(
    tall_psql: Any, sql: str, values: tuple[Any, ...]
) -> None:
    for plan in await plans(tall_psql, sql, *values):
        assert_index(plan, "embeddings_(pending_idx|kind_row_id_space_id_key)", "embeddings")


async def test_failed_rows_are_found_by_their_index(tall_psql: Any) -> None:
    for plan in await plans(tall_psql, rows.REOPEN_FAILED.format(verb="SET failed_hash = NULL"), [BIG], None, None):
        assert_index(plan, "embeddings_failed_idx", "embeddings")
    for plan in await plans(tall_psql, monitor.failed_sql(MESSAGE), [BIG], 100):
        assert_index(plan, "embeddings_failed_idx", "embeddings")


async def test_the_change_feed_reads_its_indexes(tall_psql: Any) -> None:
    seen = str(await tall_psql.fetchval("SELECT pg_current_snapshot()::text"))
    for plan in await plans(tall_psql, in_space(changes.UPSERTS, SPACE), BIG, seen):
        assert_index(plan, "embeddings_changed_idx", "embeddings")
    for plan in await plans(tall_psql, in_space(changes.IDS_SINCE, SPACE), BIG, seen):
        assert_index(plan, "embeddings_changed_idx", "embeddings")
    for plan in await plans(tall_psql, in_space(changes.BY_IDS, SPACE), BIG, list(range(100))):
        assert_index(plan, "embeddings_pkey", "embeddings")
    for plan in await plans(tall_psql, changes.TOMBSTONES, BIG, seen):
        assert_index(plan, "vector_tombstones_feed_idx", "vector_tombstones")


async def test_versions_and_digest_are_read_from_the_index_alone(tall_psql: Any) -> None:
    for sql in (in_space(changes.VERSIONS, SPACE), changes.digest_sql(SPACE, 18)):
        for plan in await plans(tall_psql, sql, SMALL):
            assert re.search(r"Index Only Scan using embeddings_changed_idx", plan), plan


async def test_an_equal_text_is_found_by_its_digest(tall_psql: Any) -> None:
    for plan in await plans(tall_psql, in_space(vectors.REUSE, SPACE), [1, 2], [bytes(32)], SPACE):
        assert_index(plan, "embeddings_same_text_idx", "embeddings")


WRITTEN = (list(range(64)), [bytes(32)] * 64, ["[1]"] * 64, [None] * 64)


async def test_writing_vectors_looks_each_row_up(tall_psql: Any) -> None:
    for plan in await plans(tall_psql, in_space(vectors.WRITE, SPACE), *WRITTEN):
        assert_index(plan, "embeddings_pkey", "embeddings")


BESIDE = SPACE + 1


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (spaces.TAKE_IN, (BIG, SPACE, BESIDE, 0, 5000)),
        (spaces.MISSING, (SMALL, SPACE, 0.0)),
        (spaces.FEW_WAIT, (SMALL, SPACE, 1000)),
        (spaces.LEASED_IN_SPACE, (BIG, SPACE)),
        (spaces.HAS_VECTORS, ([SMALL], SPACE)),
        (space_removal.PURGE_VECTORS, (SMALL, SPACE, 2000)),
        (space_builds.WAIT_FOR_OTHERS, ()),
        (rows.LIVE_ROWS_WAIT, ()),
        (spaces.REMOVE_LOST.partition(";")[0].format(dataset=SMALL, space=SPACE), ()),
    ],
)
async def test_what_a_build_a_flip_and_a_drop_ask_reads_no_table_to_its_end(
    tall_psql: Any, sql: str, values: tuple[Any, ...]
) -> None:
    for plan in await plans(tall_psql, sql, *values):
        assert_index(plan, "Index", "embeddings")


@pytest.mark.parametrize("stage", ["score", "extract"])
async def test_messages_that_wait_for_a_stage_are_found_by_its_index(tall_psql: Any, stage: str) -> None:
    index = {"score": "messages_unscored_idx", "extract": "messages_unextracted_idx"}[stage]
    for plan in await plans(tall_psql, messages.claim_sql(stage, of_dataset=True), BIG, 100, *LEASE):
        assert_index(plan, index, "messages")
    for plan in await plans(tall_psql, messages.claim_sql(stage, of_dataset=False), list(range(100)), 100, *LEASE):
        assert_index(plan, "messages_", "messages")
    for plan in await plans(tall_psql, messages.waiting_sql(stage), 1000):
        assert_index(plan, index, "messages")


@pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
async def test_a_search_reads_the_hnsw_index_of_its_kind(reader: Database, embeddable: Embeddable) -> None:
    async with reader.read() as tx:
        index = hnsw.index_name(embeddable, SPACE)
        natural = await neighbours.explain(tx, embeddable, unit(1, WIDTH)[0], space_id=SPACE, k=10)
        await neighbours.use_index(tx, k=10)
        told = await neighbours.explain(tx, embeddable, unit(1, WIDTH)[0], space_id=SPACE, k=10)
        await tx.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        generic = await neighbours.explain(tx, embeddable, unit(1, WIDTH)[0], space_id=SPACE, k=10)
    for plan in (natural, told, generic):
        assert f"Index Scan using {index}" in plan, plan


@pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
async def test_the_hnsw_index_answers_from_the_first_row_on(
    database: Database, psql: Any, embeddable: Embeddable
) -> None:
    chosen = await space(database, 4, indexed=True)
    async with database.transaction() as tx:
        river = await datasets.ensure(tx, "river", "log")
    await plant(psql, embeddable, river.id, "alone")
    async with database.read() as tx:
        await neighbours.use_index(tx, k=10)
        plan = await neighbours.explain(tx, embeddable, unit(1, 4)[0], space_id=chosen.id, k=10)
    assert f"Index Scan using {hnsw.index_name(embeddable, chosen.id)}" in plan, plan


async def test_duplicates_ask_the_hnsw_index_for_each_text_with_every_filter_inside(reader: Database) -> None:
    asked = f"EXPLAIN {duplicate_pairs.neighbours_sql(MESSAGE, SPACE, WIDTH)}"
    async with reader.read() as tx:
        await neighbours.use_index(tx, k=10)
        natural = lines(await tx.fetch(asked, [BIG], 0.9, 10))
        await tx.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        generic_plan = lines(await tx.fetch(asked, [BIG], 0.9, 10))
    for plan in (natural, generic_plan):
        (scan,) = re.findall(
            r"Limit[^\n]*\n\s+->  Index Scan using embeddings_hnsw_message_\d+.*?(?=\n\s+->|$)", plan, re.DOTALL
        )
        assert "dataset_id = ANY" in scan and "embedded_hash <> e.embedded_hash" in scan, plan
