"""A database with rows, vectors and indexes gets spaces and gives them back: no vector and no text is lost on either way."""

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from evervec.domain.documents.chunking import CHUNK_TOKENS, CHUNKING, TEMPLATE
from evervec.store.database.session import Database
from evervec.store.embeddings import hnsw, neighbours
from evervec.store.schema import migrations, populate
from evervec.store.schema.embeddables import MESSAGE
from evervec.store.spaces import spaces, unchunked
from tests.conftest import NUMBERS, Servers, _sql

RECIPE = sha256(f"1\0{TEMPLATE}\0{CHUNK_TOKENS}\0ollama/m".encode()).hexdigest()[:16]
"""How the release before named the recipe of its one space."""

BEFORE = f"""
INSERT INTO projects (slug, name) VALUES ('river', 'river');
INSERT INTO datasets (project_id, slug, name) SELECT id, made, made FROM projects, unnest(ARRAY['log', 'papers']) made;
INSERT INTO embedding_spaces (provider, model, dimensions, state, activated_at) VALUES ('ollama', 'm', 4, 'active', now());
INSERT INTO embedding_spaces (provider, model, dimensions) VALUES ('ollama', 'wide', 8);
INSERT INTO llm_providers (name, type, model, space_id) SELECT model, provider, model, id FROM embedding_spaces;
INSERT INTO messages (dataset_id, chat, external_id, author, content)
SELECT d.id, 'chat', said, 'dev', said FROM datasets d, unnest(ARRAY['embedded', 'waits', 'failed', 'discarded']) said WHERE slug = 'log';
INSERT INTO documents (dataset_id, uri, recipe, chunk_count)
SELECT d.id, v.uri, v.recipe, 2 FROM datasets d, (VALUES ('ours', '{RECIPE}'), ('stale', 'another'), ('foreign', NULL)) v (uri, recipe)
WHERE slug = 'papers';
INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text)
SELECT dataset_id, id, n, uri || n || '. ', uri || n FROM documents, generate_series(0, 1) n;
INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
SELECT 1, id, dataset_id, sha256(convert_to(content, 'UTF8')) FROM messages
UNION ALL SELECT 4, id, dataset_id, sha256(convert_to(vector_text, 'UTF8')) FROM chunks;
UPDATE embeddings e SET failed_hash = content_hash, content_hash = CASE WHEN m.content = 'failed' THEN e.content_hash END
FROM messages m WHERE e.kind = 1 AND m.id = e.row_id AND m.content IN ('failed', 'discarded');
UPDATE embeddings e SET embedding = '[1,2,3,4]', embedded_hash = content_hash, embedded_at = now(), space_id = 1
WHERE kind = 4 OR row_id = (SELECT id FROM messages WHERE content = 'embedded');
INSERT INTO embed_work (vector_id, content_hash, attempts, last_code, last_error)
SELECT vector_id, content_hash, 3, 'bad_input', 'refused' FROM embeddings WHERE failed_hash = content_hash;
INSERT INTO batch_jobs (id, job_type, model, space_id, submitting_at, external_id, status)
SELECT gen_random_uuid(), 'EMBEDDING', 'm', 1, now(), 'far', 'SUBMITTED';
ALTER TABLE embeddings ADD CONSTRAINT embeddings_width CHECK (vector_dims(embedding) = 4 AND space_id = 1);
CREATE INDEX embeddings_hnsw_message_1 ON embeddings USING hnsw ((embedding::halfvec(4)) halfvec_cosine_ops) WHERE kind = 1;
CREATE INDEX embeddings_hnsw_atom_7 ON embeddings USING hnsw ((embedding::halfvec(4)) halfvec_cosine_ops) WHERE kind = 3;
"""
VECTORS = """
SELECT vector_id, kind, row_id, encode(content_hash, 'hex') AS content, embedding::text AS vector,
       encode(embedded_hash, 'hex') AS embedded, embedded_at, encode(failed_hash, 'hex') AS failed, changed_xid::text AS version
FROM embeddings ORDER BY vector_id
"""
TEXTS = """
SELECT d.uri, coalesce(d.content, (SELECT string_agg(c.content, '' ORDER BY c.ordinal) FROM chunks c WHERE c.document_id = d.id))
FROM documents d ORDER BY d.uri
"""
INDEXES = "SELECT relname FROM pg_class WHERE relname LIKE 'embeddings\\_hnsw\\_%' AND relkind = 'i' ORDER BY relname"


@pytest.fixture
async def older(servers: Servers) -> AsyncIterator[Database]:
    """Make a database of the release before, with rows of every state."""
    name = f"older_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name}")
    opened = await Database(servers.database(name)).open(check=False)
    await migrations.upgrade(opened, "0014")
    async with opened.transaction() as tx:
        await tx.connection.execute(BEFORE)
    yield opened
    await opened.aclose()
    await _sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


async def rows_of(database: Database, sql: str) -> list[Any]:
    async with database.read() as tx:
        return [tuple(row) for row in await tx.fetch(sql)]


async def one_value(database: Database, sql: str) -> Any:
    ((value,),) = await rows_of(database, sql)
    return value


async def test_every_vector_text_and_failure_is_there_up_down_and_up_again(older: Database) -> None:
    before, texts = await rows_of(older, VECTORS), await rows_of(older, TEXTS)
    await migrations.upgrade(older)
    assert await rows_of(older, VECTORS) == before
    assert await rows_of(older, TEXTS) == texts
    assert await rows_of(
        older, "SELECT DISTINCT space_id FROM embeddings UNION SELECT DISTINCT space_id FROM datasets"
    ) == [(1,)]
    assert await one_value(older, "SELECT last_error FROM embed_work") == "refused"
    assert [step async for step in populate.run(older) if step.taken or step.removed] == []

    await migrations.downgrade(older, "0014")
    assert await rows_of(older, VECTORS) == before
    assert await rows_of(older, TEXTS) == texts
    assert (
        await one_value(older, "SELECT count(*) FROM embeddings WHERE (space_id = 1) <> (embedding IS NOT NULL)") == 0
    )
    assert await one_value(older, "SELECT space_id FROM batch_jobs") == 1

    await migrations.upgrade(older)
    assert await rows_of(older, VECTORS) == before
    assert [step async for step in populate.run(older) if step.taken or step.removed] == []


async def test_documents_are_not_chunked_again_but_those_of_another_recipe(older: Database) -> None:
    await migrations.upgrade(older)
    found = await rows_of(
        older,
        "SELECT DISTINCT d.uri, d.recipe, c.space_id FROM documents d JOIN chunks c ON c.document_id = d.id ORDER BY 1",
    )
    assert found == [("foreign", None, 0), ("ours", CHUNKING, 1), ("stale", "another", 1)]
    papers = await one_value(older, "SELECT id FROM datasets WHERE slug = 'papers'")
    async with older.read() as tx:
        due = await unchunked.in_dataset(tx, papers, CHUNKING, limit=10)
    assert [(one.document.uri, one.document.text) for one in due] == [("stale", "stale0. stale1. ")]


async def test_searches_keep_their_index_until_those_of_the_space_are_built(older: Database) -> None:
    await migrations.upgrade(older)
    assert await rows_of(older, INDEXES) == [("embeddings_hnsw_before_message",)]
    query = neighbours.nearest_sql(MESSAGE, 1, 4)
    async with older.read() as tx:
        await neighbours.use_index(tx, k=1)
        plan = await tx.fetch(f"EXPLAIN {query}", "[1,2,3,4]", None, 1, [])
    assert any("embeddings_hnsw_before_message" in row[0] for row in plan), plan
    await hnsw.build_indexes(older, 1, 4)
    assert await rows_of(older, INDEXES) == [
        (f"embeddings_hnsw_{kind}_1",) for kind in ("atom", "chunk", "message", "topic")
    ]


async def test_an_index_of_one_width_goes_before_a_space_of_another_is_written(older: Database) -> None:
    await migrations.upgrade(older)
    log = await one_value(older, "SELECT id FROM datasets WHERE slug = 'log'")
    async with older.transaction() as tx:
        await spaces.start(tx, log, 2, None)
    assert await rows_of(older, INDEXES) == []
    async with older.transaction() as tx:
        await tx.execute(
            "INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, embedded_at, space_id) "
            "SELECT kind, row_id, dataset_id, content_hash, '[1,2,3,4,5,6,7,8]', content_hash, now(), 2 FROM embeddings "
            "WHERE kind = 1 AND embedding IS NOT NULL"
        )


async def test_a_row_that_comes_after_the_migration_waits_in_the_space_of_its_dataset(older: Database) -> None:
    await migrations.upgrade(older)
    async with older.transaction() as tx:
        await tx.execute(
            "INSERT INTO messages (dataset_id, chat, external_id, author, content) "
            "SELECT id, 'chat', 'new', 'dev', 'new' FROM datasets WHERE slug = 'log'"
        )
    found = await rows_of(
        older,
        "SELECT e.space_id, e.pending_id IS NOT NULL FROM embeddings e JOIN messages m ON m.id = e.row_id AND e.kind = 1 "
        "WHERE m.content = 'new'",
    )
    assert found == [(1, True)]


SEARCHED_ELSEWHERE = """
UPDATE datasets SET space_id = 2 WHERE slug = 'papers';
INSERT INTO dataset_spaces (dataset_id, space_id, state, taken_in_at, indexed_at)
SELECT id, 1, 'previous', now(), now() FROM datasets WHERE slug = 'papers';
INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text, space_id)
SELECT dataset_id, id, 0, 'whole ' || uri, 'whole ' || uri, 2 FROM documents WHERE uri = 'ours';
INSERT INTO chunk_work (space_id, document_id) SELECT 2, id FROM documents WHERE uri = 'stale';
"""


async def test_texts_that_only_the_chunks_of_another_space_hold_are_kept_on_the_way_down(older: Database) -> None:
    await migrations.upgrade(older)
    async with older.transaction() as tx:
        await tx.execute("SELECT evervec_add_space(2)")
        await tx.connection.execute(SEARCHED_ELSEWHERE)
    await migrations.downgrade(older, "0014")
    assert await rows_of(older, TEXTS) == [
        ("foreign", "foreign0. foreign1. "),
        ("ours", "whole ours"),
        ("stale", "stale0. stale1. "),
    ]
    # what is searched in another space than the default has to be embedded again, and nothing else
    counted = "SELECT count(*) FILTER (WHERE embedding IS NULL), count(*) FROM embeddings WHERE kind = 4"
    ((without, records),) = await rows_of(older, counted)
    assert without == records
    assert await one_value(older, "SELECT count(*) FROM embeddings WHERE kind = 1 AND embedding IS NOT NULL") == 1


async def test_whatever_reads_the_views_of_spaces_reads_those_of_the_release_before(older: Database) -> None:
    await migrations.upgrade(older)
    async with older.transaction() as tx:
        await tx.execute("CREATE VIEW public.mine AS SELECT text, embedding_status FROM attached_chunks_1")
        await tx.execute("CREATE VIEW public.states AS SELECT * FROM embedding_status")
    for revision in ("0014", "head"):
        await (migrations.downgrade if revision == "0014" else migrations.upgrade)(older, revision)
        assert await rows_of(older, "SELECT * FROM public.mine") == []
        assert len(await rows_of(older, "SELECT * FROM public.states")) == 10


async def test_a_migration_that_was_interrupted_after_its_indexes_goes_on(older: Database) -> None:
    async with older.autocommit() as connection:
        await connection.execute(
            "CREATE UNIQUE INDEX embeddings_kind_row_id_space_id_key ON evervec.embeddings (kind, row_id, space_id)"
        )
    before = await rows_of(older, VECTORS)
    await migrations.upgrade(older)
    await migrations.check(older)
    assert await rows_of(older, VECTORS) == before
