"""Rows that no trigger saw are taken in, a short transaction a batch, as often as anybody likes."""

from contextlib import aclosing
from typing import Any

import pytest

from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.schema import populate
from evervec.store.schema.embeddables import CHUNK, EMBEDDABLES, MESSAGE, Embeddable
from evervec.store.schema.populate import Step
from tests.e2e.waiting import eventually
from tests.store.planting import edit, embed_all, plant, record, tombstones
from tests.store.test_store_triggers import digest

every_kind = pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)


async def triggers(psql: Any, verb: str) -> None:
    for embeddable in EMBEDDABLES:
        await psql.execute(f"ALTER TABLE {embeddable.table} {verb} TRIGGER ALL")


async def taken_in(database: Database, **options: Any) -> list[Step]:
    return [step async for step in populate.run(database, **options) if step.taken or step.removed]


@every_kind
async def test_rows_from_before_the_triggers_are_taken_in(
    psql: Any, database: Database, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    await triggers(psql, "DISABLE")
    row_id = await plant(psql, embeddable, dataset.id, "older than Evervec")
    blank = await plant(psql, embeddable, dataset.id, "  ")
    await triggers(psql, "ENABLE")
    assert await taken_in(database) == [Step(embeddable.name, blank, 2, 0)]
    found = await record(psql, embeddable, row_id)
    assert (found["content_hash"], found["dataset_id"]) == (digest("older than Evervec"), dataset.id)
    assert (await record(psql, embeddable, blank))["content_hash"] is None
    assert await taken_in(database) == []


@every_kind
async def test_a_text_changed_behind_the_triggers_is_pending_again(
    psql: Any, database: Database, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "before")
    await embed_all(psql)
    await triggers(psql, "DISABLE")
    await edit(psql, embeddable, row_id, "after")
    await triggers(psql, "ENABLE")
    assert await taken_in(database) == [Step(embeddable.name, row_id, 1, 0)]
    assert (await record(psql, embeddable, row_id))["content_hash"] == digest("after")
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "PENDING"


@every_kind
async def test_a_row_deleted_behind_the_triggers_loses_its_record(
    psql: Any, database: Database, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    gone, stays = [await plant(psql, embeddable, dataset.id, text) for text in ("gone", "stays")]
    await embed_all(psql)
    vector_id = (await record(psql, embeddable, gone))["vector_id"]
    await triggers(psql, "DISABLE")
    await psql.execute(f"DELETE FROM {embeddable.table} WHERE id = $1", gone)
    await triggers(psql, "ENABLE")
    assert await taken_in(database) == [Step(embeddable.name, stays, 0, 1)]
    assert await record(psql, embeddable, gone) is None
    assert await tombstones(psql) == [(vector_id, dataset.id)]


async def test_a_right_database_is_only_read(psql: Any, database: Database, dataset: DatasetRef) -> None:
    for embeddable in EMBEDDABLES:
        await plant(psql, embeddable, dataset.id, "hello")
    await embed_all(psql)
    everything = "SELECT *, xmin::text, xmax::text, ctid::text FROM {} ORDER BY 1"
    tables = ("embeddings", *(embeddable.table for embeddable in EMBEDDABLES))
    before = [await psql.fetch(everything.format(table)) for table in tables]
    assert await taken_in(database) == []
    assert [await psql.fetch(everything.format(table)) for table in tables] == before


async def test_it_may_be_stopped_at_any_point_and_run_again(psql: Any, database: Database, dataset: DatasetRef) -> None:
    await triggers(psql, "DISABLE")
    for number in range(25):
        await plant(psql, MESSAGE, dataset.id, f"text {number}")
    async with aclosing(populate.run(database, batch=10)) as steps:
        first = await anext(steps)
        assert (first.kind, first.taken) == ("message", 10)

        async def nothing_is_open() -> bool:
            open_ones = await psql.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL) AND backend_type = 'client backend'"
            )
            return bool(open_ones == 0)

        await eventually("between two batches there is no lock, no snapshot that holds vacuum back", nothing_is_open)
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 10
    assert sum(step.taken for step in await taken_in(database, batch=10)) == 15
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE pending_id IS NOT NULL") == 25


async def test_a_discarded_text_is_not_taken_for_a_new_one(psql: Any, database: Database, dataset: DatasetRef) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, "cursed")
    await psql.execute("UPDATE embeddings SET failed_hash = content_hash")
    async with database.transaction() as tx:
        assert await rows.discard(tx, [dataset.id]) == 1
    assert await taken_in(database) == []
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "EMPTY"
    await psql.execute("ALTER TABLE messages DISABLE TRIGGER ALL")
    await edit(psql, MESSAGE, row_id, "blessed")
    assert len(await taken_in(database)) == 1
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "PENDING"


async def hashed(database: Database, **options: Any) -> list[Step]:
    return [step async for step in populate.fill_hashes(database, **options) if step.taken]


async def test_chunks_and_documents_from_before_the_hashes_get_theirs(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    chunk_ids = [await plant(psql, CHUNK, dataset.id, text) for text in ("one ", "two")]
    whole = await psql.fetchval("INSERT INTO documents (dataset_id, uri) VALUES ($1, 'whole') RETURNING id", dataset.id)
    await psql.execute("UPDATE chunks SET document_id = $1, ordinal = id, content = vector_text", whole)
    waiting = await psql.fetchval(
        "INSERT INTO documents (dataset_id, uri, content) VALUES ($1, 'waiting', 'text') RETURNING id", dataset.id
    )
    assert [step.kind for step in await hashed(database, batch=1)] == ["chunk hash", "chunk hash", "document hash"]
    chunks = await psql.fetch("SELECT content_hash FROM chunks ORDER BY id")
    assert [row["content_hash"] for row in chunks] == [digest("one "), digest("two")]
    document = await psql.fetchrow("SELECT content_hash, chunk_count FROM documents WHERE id = $1", whole)
    assert tuple(document) == (digest("one two"), len(chunk_ids))
    assert await psql.fetchval("SELECT content_hash FROM documents WHERE id = $1", waiting) is None
    assert await hashed(database) == []


async def test_filling_hashes_goes_on_where_it_was_stopped(psql: Any, database: Database, dataset: DatasetRef) -> None:
    for number in range(7):
        await plant(psql, CHUNK, dataset.id, f"chunk {number}")
    async with aclosing(populate.fill_hashes(database, batch=3)) as steps:
        assert (await anext(steps)).taken == 3
    assert sum(step.taken for step in await hashed(database, batch=3) if step.kind == "chunk hash") == 4
    assert await psql.fetchval("SELECT count(*) FROM chunks WHERE content_hash IS NULL") == 0
