"""Law 2: every embeddable row has one true record, whoever the writer is and however the row was written."""

from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evervec.domain.text import BLANK_PATTERN, is_blank
from evervec.store import datasets
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import ATOM, CHUNK, EMBEDDABLES, MESSAGE, TOPIC, Embeddable
from tests.store.planting import OTHER_COLUMN, edit, embed_all, plant, record, tombstones

every_kind = pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


@pytest.fixture
async def elsewhere(database: Database) -> UUID:
    """Make another dataset of the same project."""
    async with database.transaction() as tx:
        return (await datasets.ensure(tx, "river", "elsewhere")).id


@every_kind
async def test_a_row_is_pending_the_moment_it_is_written(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    found = await record(psql, embeddable, await plant(psql, embeddable, dataset.id, "hello"))
    assert found["content_hash"] == digest("hello")
    assert (found["dataset_id"], found["embedding"], found["failed_hash"]) == (dataset.id, None, None)
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "PENDING"


@every_kind
async def test_an_edit_reopens_the_row_and_keeps_its_old_vector_until_the_new_one(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "before")
    await embed_all(psql)
    before = await record(psql, embeddable, row_id)
    await edit(psql, embeddable, row_id, "after")
    after = await record(psql, embeddable, row_id)
    assert after["content_hash"] == digest("after")
    assert after["embedded_hash"] == digest("before")
    assert (after["vector_id"], after["embedding"]) == (before["vector_id"], before["embedding"])
    await edit(psql, embeddable, row_id, "before")
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "READY"


@every_kind
async def test_updating_another_column_touches_nothing(psql: Any, dataset: DatasetRef, embeddable: Embeddable) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "hello")
    await embed_all(psql)
    before = await record(psql, embeddable, row_id)
    column = OTHER_COLUMN[embeddable]
    value = "now()" if column == "updated_at" else "'another'"
    await psql.execute(f"UPDATE {embeddable.table} SET {column} = {value}")
    await psql.execute(f"UPDATE {embeddable.table} SET {embeddable.columns[0]} = {embeddable.columns[0]}")
    assert await record(psql, embeddable, row_id) == before
    assert await tombstones(psql) == []


@every_kind
async def test_a_deleted_row_takes_its_record_along_and_leaves_a_tombstone(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    gone = await plant(psql, embeddable, dataset.id, "embedded, then deleted")
    await embed_all(psql)
    never = await plant(psql, embeddable, dataset.id, "deleted before it was embedded")
    vector_id = (await record(psql, embeddable, gone))["vector_id"]
    await psql.execute(f"DELETE FROM {embeddable.table} WHERE id = ANY($1)", [gone, never])
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    assert await tombstones(psql) == [(vector_id, dataset.id)]


@every_kind
async def test_truncate_takes_all_records_of_the_kind_along_and_no_other(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    bystander = ATOM if embeddable is CHUNK else CHUNK
    await plant(psql, embeddable, dataset.id, "truncated")
    other = await plant(psql, bystander, dataset.id, "stays")
    await embed_all(psql)
    await psql.execute(f"TRUNCATE {embeddable.table} CASCADE")
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 1
    assert await record(psql, bystander, other) is not None
    assert len(await tombstones(psql)) == 1


@every_kind
async def test_a_new_primary_key_is_a_new_vector_id(psql: Any, dataset: DatasetRef, embeddable: Embeddable) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "renumbered")
    await embed_all(psql)
    before = await record(psql, embeddable, row_id)
    await psql.execute(f"UPDATE {embeddable.table} SET id = id + 1000")
    after = await record(psql, embeddable, row_id + 1000)
    assert await record(psql, embeddable, row_id) is None
    assert after["vector_id"] != before["vector_id"]
    assert (after["content_hash"], after["embedding"]) == (digest("renumbered"), None)
    assert await tombstones(psql) == [(before["vector_id"], dataset.id)]


@every_kind
async def test_a_row_moved_to_another_dataset_keeps_its_vector_and_leaves_a_tombstone_behind(
    psql: Any, dataset: DatasetRef, elsewhere: UUID, embeddable: Embeddable
) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "moved")
    await embed_all(psql)
    before = await record(psql, embeddable, row_id)
    await psql.execute(f"UPDATE {embeddable.table} SET dataset_id = $1", elsewhere)
    after = await record(psql, embeddable, row_id)
    assert (after["dataset_id"], after["embedding"]) == (elsewhere, before["embedding"])
    assert after["changed_xid"] != before["changed_xid"]
    assert await tombstones(psql) == [(before["vector_id"], dataset.id)]


@every_kind
@pytest.mark.parametrize("blank", [" ", "\n\t", "\u200b\ufeff"])
async def test_a_text_that_became_blank_loses_its_vector_and_gets_one_again_with_words(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable, blank: str
) -> None:
    row_id = await plant(psql, embeddable, dataset.id, "words")
    await embed_all(psql)
    before = await record(psql, embeddable, row_id)
    await edit(psql, embeddable, row_id, blank)
    empty = await record(psql, embeddable, row_id)
    cleared = ("content_hash", "embedding", "embedded_hash", "embedded_at")
    assert [empty[name] for name in cleared] == [None] * 4
    assert await tombstones(psql) == [(before["vector_id"], dataset.id)]
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "EMPTY"
    await edit(psql, embeddable, row_id, "words again")
    assert (await record(psql, embeddable, row_id))["content_hash"] == digest("words again")
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "PENDING"


@every_kind
async def test_a_logical_replica_that_applies_changes_is_a_writer_like_any_other(
    psql: Any, dataset: DatasetRef, embeddable: Embeddable
) -> None:
    await psql.execute("SET session_replication_role = replica")
    row_id = await plant(psql, embeddable, dataset.id, "inserted")
    assert (await record(psql, embeddable, row_id))["content_hash"] == digest("inserted")
    await edit(psql, embeddable, row_id, "updated")
    assert (await record(psql, embeddable, row_id))["content_hash"] == digest("updated")
    await embed_all(psql)
    vector_id = (await record(psql, embeddable, row_id))["vector_id"]
    await psql.execute(
        "INSERT INTO embed_work (vector_id, content_hash) SELECT vector_id, content_hash FROM embeddings"
    )
    await psql.execute(f"DELETE FROM {embeddable.table}")
    assert await record(psql, embeddable, row_id) is None
    assert await tombstones(psql) == [(vector_id, dataset.id)]
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0


async def test_deleting_a_dataset_for_good_leaves_a_tombstone_for_every_vector_of_every_kind(
    psql: Any, dataset: DatasetRef
) -> None:
    for embeddable in EMBEDDABLES:
        await plant(psql, embeddable, dataset.id, "hello")
    await embed_all(psql)
    ids = {row["vector_id"] for row in await psql.fetch("SELECT vector_id FROM embeddings")}
    await psql.execute("DELETE FROM datasets")
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0
    assert {vector_id for vector_id, _ in await tombstones(psql)} == ids


async def test_a_vector_set_by_somebody_else_shows_up_in_the_feed(psql: Any, dataset: DatasetRef) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, "hello")
    await embed_all(psql)
    before = await record(psql, MESSAGE, row_id)
    await psql.execute("UPDATE embeddings SET embedding = '[3,2,1]'")
    after = await record(psql, MESSAGE, row_id)
    assert after["changed_xid"] > before["changed_xid"]
    await psql.execute("UPDATE embeddings SET embedding = '[3,2,1]'")
    assert (await record(psql, MESSAGE, row_id))["changed_xid"] == after["changed_xid"]


async def test_setting_embedding_to_null_makes_exactly_those_rows_pending(psql: Any, dataset: DatasetRef) -> None:
    ids = [await plant(psql, MESSAGE, dataset.id, f"text {number}") for number in range(6)]
    await embed_all(psql)
    await psql.execute("UPDATE embeddings SET embedding = NULL WHERE row_id = ANY($1)", ids[:4])
    rows = await psql.fetch("SELECT row_id FROM embedding_status WHERE embedding_status = 'PENDING' ORDER BY row_id")
    assert [row["row_id"] for row in rows] == ids[:4]
    found = await record(psql, MESSAGE, ids[0])
    assert (found["embedded_hash"], found["embedded_at"]) == (None, None)
    assert len(await tombstones(psql)) == 4


async def test_the_status_view_says_what_a_reader_wants_to_know(psql: Any, dataset: DatasetRef) -> None:
    for text in ("ready", "failed", "pending", " "):
        await plant(psql, MESSAGE, dataset.id, text)
    await psql.execute("UPDATE embeddings SET failed_hash = content_hash WHERE content_hash = $1", digest("failed"))
    await psql.execute(
        "UPDATE embeddings SET embedding = '[1]', embedded_hash = content_hash, embedded_at = now() "
        "WHERE content_hash = $1",
        digest("ready"),
    )
    await psql.execute(
        "INSERT INTO embed_work (vector_id, content_hash, last_error) "
        "SELECT vector_id, content_hash, 'refused' FROM embeddings WHERE failed_hash IS NOT NULL"
    )
    rows = await psql.fetch("SELECT embedding_status, error_message FROM embedding_status ORDER BY row_id")
    assert [tuple(row) for row in rows] == [("READY", None), ("FAILED", "refused"), ("PENDING", None), ("EMPTY", None)]


async def test_a_topic_is_embedded_by_name_and_description(psql: Any, dataset: DatasetRef) -> None:
    row_id = await plant(psql, TOPIC, dataset.id, "Queues")
    assert (await record(psql, TOPIC, row_id))["content_hash"] == digest("Queues")
    await psql.execute("UPDATE topics SET description = 'Everything that waits'")
    assert (await record(psql, TOPIC, row_id))["content_hash"] == digest("Queues\nEverything that waits")


async def test_copy_fires_the_triggers_too(database: Database, dataset: DatasetRef, psql: Any) -> None:
    columns = ("dataset_id", "chat", "external_id", "author", "content")
    rows = [(dataset.id, "chat", str(number), "dev", f"text {number}") for number in range(500)]
    async with database.transaction() as tx:
        assert await tx.copy("messages", columns, rows) == 500
    hashes = {row["content_hash"] for row in await psql.fetch("SELECT content_hash FROM embeddings")}
    assert hashes == {digest(f"text {number}") for number in range(500)}


async def test_a_rolled_back_write_leaves_no_record(psql: Any, dataset: DatasetRef) -> None:
    transaction = psql.transaction()
    await transaction.start()
    await plant(psql, MESSAGE, dataset.id, "never happened")
    await transaction.rollback()
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == 0


async def test_only_another_content_is_another_revision_of_a_message(psql: Any, dataset: DatasetRef) -> None:
    await plant(psql, MESSAGE, dataset.id, "first")
    await psql.execute("UPDATE messages SET content = 'first', author = 'somebody else'")
    assert await psql.fetchval("SELECT revision FROM messages") == 1
    await psql.execute("SET session_replication_role = replica")
    await psql.execute("UPDATE messages SET content = 'second'")
    assert await psql.fetchval("SELECT revision FROM messages") == 2


async def test_postgresql_and_python_agree_on_what_is_blank_for_every_character(psql: Any) -> None:
    # NUL and surrogates can not be stored
    rows = await psql.fetch(
        "SELECT code FROM generate_series(1, 1114111) code "
        "WHERE code NOT BETWEEN 55296 AND 57343 AND chr(code) ~ $1 ORDER BY code",
        BLANK_PATTERN,
    )
    every = [*range(1, 0xD800), *range(0xE000, 0x110000)]
    assert [row["code"] for row in rows] == [code for code in every if is_blank(chr(code))]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(STORABLE | st.text("a \n\t\u200b\u00a0'\\", max_size=6), min_size=1, max_size=20))
async def test_the_record_holds_the_digest_of_any_text(psql: Any, dataset: DatasetRef, texts: list[str]) -> None:
    rows = await psql.fetch(
        "INSERT INTO messages (dataset_id, chat, external_id, author, content) "
        "SELECT $1, 'chat', $2 || place, 'dev', text FROM unnest($3::text[]) WITH ORDINALITY AS v (text, place) "
        "RETURNING id",
        dataset.id,
        uuid4().hex,
        texts,
    )
    found = await psql.fetch(
        "SELECT content_hash FROM embeddings WHERE row_id = ANY($1) ORDER BY row_id", [row["id"] for row in rows]
    )
    assert [row["content_hash"] for row in found] == [None if is_blank(text) else digest(text) for text in texts]
