"""Databases that several tests read and none changes: a tall one without meaning, a library to search, a furnished one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from evervec.store.database.session import Database
from evervec.store.embeddings import hnsw, vector_wire
from evervec.store.schema.embeddables import EMBEDDABLES
from tests.conftest import NUMBERS, Servers, _sql
from tests.store.planting import embed_all, plant, space, unit

BIG, SMALL = UUID(int=1), UUID(int=2)
"""The datasets of both: nine rows of ten are in the big one."""
ROWS, WAITING = 200_000, 1_000
BOOKS, WIDTH = 2_000, 32
SCANNED = ["embeddings", "vector_tombstones", "messages", "topics", "atoms", "chunks", "datasets", "projects"]

DATASETS = """
INSERT INTO projects (slug, name) VALUES ('p', 'p');
INSERT INTO datasets (id, project_id, slug, name)
SELECT format('00000000-0000-0000-0000-%s', lpad(n::text, 12, '0'))::uuid, p.id, n::text, n::text
FROM projects p, generate_series(1, 2) n;
"""
NARROW = """
INSERT INTO embedding_spaces (provider, model, dimensions, state, activated_at) VALUES ('local', 'narrow', 1, 'active', now());
SELECT evervec_add_space(id) FROM embedding_spaces WHERE model = 'narrow';
"""
TALL = f"""
{NARROW}
{DATASETS}
INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, embedded_at)
SELECT 1 + n % 4, n, d.id, sha256(int8send(n)), '[1]', sha256(int8send(n)), d.space_id, now()
FROM generate_series(1, {ROWS}) n JOIN datasets d ON d.slug = CASE WHEN n % 10 = 0 THEN '2' ELSE '1' END;
UPDATE embeddings SET embedding = NULL WHERE row_id % {ROWS // WAITING} = 7;
UPDATE embeddings SET failed_hash = content_hash, embedding = NULL WHERE row_id % {ROWS // WAITING} = 1;
INSERT INTO vector_tombstones (vector_id, dataset_id) SELECT vector_id, dataset_id FROM embeddings;
ALTER TABLE messages DISABLE TRIGGER ALL;
INSERT INTO messages (dataset_id, chat, external_id, author, content, score, signal, score_factors, scored_revision,
                      extracted_revision)
SELECT d.id, 'chat', n::text, 'dev', 'text', 0.5, 'signal', '{{}}', 1, 1
FROM generate_series(1, {ROWS // 4}) n JOIN datasets d ON d.slug = CASE WHEN n % 10 = 0 THEN '2' ELSE '1' END;
UPDATE messages SET extracted_revision = NULL WHERE id % 500 = 0;
UPDATE messages SET score = NULL, signal = NULL, score_factors = NULL, scored_revision = NULL,
                    extracted_revision = NULL WHERE id % 500 = 1;
"""
LIBRARY = f"""
{DATASETS}
INSERT INTO messages (dataset_id, chat, external_id, author, content)
SELECT d.id, 'chat', n::text, 'dev', 'message ' || n
FROM generate_series(1, {BOOKS}) n JOIN datasets d ON d.slug = CASE WHEN n % 10 = 0 THEN '2' ELSE '1' END;
INSERT INTO topics (dataset_id, name) SELECT dataset_id, 'topic ' || id FROM messages;
INSERT INTO atoms (dataset_id, type, title, content, confidence)
SELECT dataset_id, 'insight', 'title', 'atom ' || id, 0.5 FROM messages;
INSERT INTO documents (dataset_id, uri) SELECT dataset_id, id::text FROM messages;
INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text)
SELECT dataset_id, id, 0, 'part', 'chunk ' || id FROM documents;
"""


@pytest.fixture(scope="session")
def tall(servers: Servers, template: str) -> Iterator[str]:
    """Return the address of a database of 200,000 records and 50,000 messages, hardly any of which wait for something."""

    async def fill(url: str) -> None:
        await _sql(url, TALL, *(f"VACUUM ANALYZE {table}" for table in SCANNED))

    yield from filled(servers, template, fill)


@pytest.fixture(scope="session")
def library(servers: Servers, template: str) -> Iterator[str]:
    """Return the address of a database of 2,000 rows of each kind, with random vectors of 32 dimensions, indexed."""

    async def fill(url: str) -> None:
        await _sql(url, LIBRARY)
        database = await Database(url).open()
        chosen = await space(database, WIDTH)
        async with database.transaction() as tx:
            ids = [row["vector_id"] for row in await tx.fetch("SELECT vector_id FROM embeddings ORDER BY kind, row_id")]
            await tx.execute(
                "UPDATE embeddings e SET embedding = v.vector, embedded_hash = content_hash, space_id = $3, "
                "embedded_at = now() FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector) WHERE e.vector_id = v.id",
                ids,
                vector_wire.pack(unit(len(ids), WIDTH)),
                chosen.id,
            )
        await hnsw.build_indexes(database, chosen.id, WIDTH)
        await database.aclose()
        await _sql(url, *(f"VACUUM ANALYZE {table}" for table in SCANNED))

    yield from filled(servers, template, fill)


@pytest.fixture(scope="session")
def furnished(servers: Servers, template: str) -> Iterator[str]:
    """Return the address of a database with one embedded row of each kind."""

    async def fill(url: str) -> None:
        await _sql(url, DATASETS)
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE projects SET slug = 'river'")
        for embeddable in EMBEDDABLES:
            await plant(connection, embeddable, BIG, "hello")
        await embed_all(connection)
        await connection.close()

    yield from filled(servers, template, fill)


def filled(servers: Servers, template: str, fill: Callable[[str], Coroutine[Any, Any, None]]) -> Iterator[str]:
    """Clone a database for a fixture that outlives its event loop."""
    name = f"filled_{next(NUMBERS)}"
    asyncio.run(_sql(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    try:
        asyncio.run(fill(servers.database(name)))
        yield servers.database(name)
    finally:
        asyncio.run(_sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def tall_psql(tall: str) -> AsyncIterator[Any]:
    """Connect to the tall database."""
    connection = await asyncpg.connect(tall)
    yield connection
    await connection.close()


@pytest.fixture
async def reader(library: str) -> AsyncIterator[Database]:
    """Open the library."""
    opened = await Database(library).open()
    yield opened
    await opened.aclose()
