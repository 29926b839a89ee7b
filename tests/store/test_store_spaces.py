"""A dataset with two spaces: every row has a record in each, whoever writes; one is searched, flipped to, and removed whole."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from evervec.domain.documents.chunking import CHUNKING, ChunkDraft
from evervec.domain.documents.document import IncomingDocument
from evervec.domain.protocols import ModelProbe
from evervec.store import datasets, documents, monitor, providers
from evervec.store.database.session import Database, ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw, rows
from evervec.store.providers import ProviderDraft, Space
from evervec.store.schema import populate
from evervec.store.schema.embeddables import CHUNK, EMBEDDABLES, MESSAGE, Embeddable
from evervec.store.spaces import space_coverage, space_removal, spaces, unchunked
from tests.store.planting import edit, embed_all, plant, space

EVERY_KIND = pytest.mark.parametrize("embeddable", EMBEDDABLES, ids=lambda embeddable: embeddable.name)
DEADLINE = 60


@pytest.fixture
async def narrow(database: Database, dataset: DatasetRef) -> Space:
    """Make a space of 3 dimensions in which the dataset is searched."""
    return await space(database, 3)


@pytest.fixture
async def wide(database: Database, narrow: Space) -> Space:
    """Make a space of 5 dimensions that nothing is written to yet."""
    async with database.transaction() as tx:
        return (await providers.add(tx, ProviderDraft("wide", "ollama", model="wide"), ModelProbe(5))).space


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    """Connect as another program."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def begin(database: Database, dataset: DatasetRef, chosen: Space) -> None:
    async with database.transaction() as tx:
        await spaces.start(tx, dataset.id, chosen.id, None)


async def take_in(database: Database, dataset: DatasetRef, present: Space, chosen: Space) -> None:
    after: int | None = 0
    while after is not None:
        async with database.transaction() as tx:
            assert await spaces.older_writers_ended(tx, dataset.id, chosen.id)
            after = await spaces.take_in(tx, dataset.id, chosen.id, present=present.id, after=after, limit=2)
    async with database.transaction() as tx:
        await spaces.documents_due(tx, dataset.id, chosen.id)
        await spaces.taken_in(tx, dataset.id, chosen.id)
        await spaces.indexed(tx, dataset.id, chosen.id)


async def recorded(psql: Any, embeddable: Embeddable) -> dict[tuple[int, int], str]:
    """Return the digest of every record of a kind, by row and space."""
    found = await psql.fetch(
        "SELECT row_id, space_id, encode(content_hash, 'hex') AS hash FROM embeddings WHERE kind = $1", embeddable.kind
    )
    return {(row["row_id"], row["space_id"]): row["hash"] for row in found}


async def purged(database: Database, dataset: DatasetRef, chosen: Space) -> None:
    while True:
        async with database.transaction() as tx:
            if not await space_removal.purge(tx, dataset.id, chosen.id, limit=2):
                return


@EVERY_KIND
async def test_a_row_has_a_record_in_each_space_whoever_writes(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space, embeddable: Embeddable
) -> None:
    await begin(database, dataset, wide)
    key = await plant(psql, embeddable, dataset.id, "one")
    both = {(key, narrow.id), (key, wide.id)}
    assert set(await recorded(psql, embeddable)) == both
    first = set((await recorded(psql, embeddable)).values())
    await edit(psql, embeddable, key, "another")
    found = await recorded(psql, embeddable)
    assert set(found) == both
    assert len(set(found.values())) == 1 and set(found.values()) != first
    async with database.transaction() as tx:
        elsewhere = await datasets.ensure(tx, "river", "elsewhere")
    await psql.execute(f"UPDATE {embeddable.table} SET dataset_id = $2 WHERE id = $1", key, elsewhere.id)
    assert set(await recorded(psql, embeddable)) == {(key, narrow.id)}
    await psql.execute(f"UPDATE {embeddable.table} SET dataset_id = $2 WHERE id = $1", key, dataset.id)
    assert set(await recorded(psql, embeddable)) == both
    await psql.execute(f"DELETE FROM {embeddable.table} WHERE id = $1", key)
    assert await recorded(psql, embeddable) == {}


async def test_a_chunk_that_was_made_for_a_space_is_in_that_one_alone(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    await begin(database, dataset, wide)
    key = await plant(psql, CHUNK, dataset.id, "foreign")
    await psql.execute("UPDATE chunks SET space_id = $2 WHERE id = $1", key, wide.id)
    assert set(await recorded(psql, CHUNK)) == {(key, wide.id)}
    await psql.execute("UPDATE chunks SET space_id = 0 WHERE id = $1", key)
    assert set(await recorded(psql, CHUNK)) == {(key, narrow.id), (key, wide.id)}


async def test_rows_that_were_there_are_taken_in_as_they_are(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    keys = [await plant(psql, MESSAGE, dataset.id, text) for text in ("one", "two", "discarded", " ", "failed")]
    await psql.execute("UPDATE embeddings SET failed_hash = content_hash WHERE row_id = ANY($1)", [keys[2], keys[4]])
    async with database.transaction() as tx:
        await rows.discard(tx, [dataset.id], row=(MESSAGE.kind, keys[2]))
    await begin(database, dataset, wide)
    await edit(psql, MESSAGE, keys[1], "two edited")
    await take_in(database, dataset, narrow, wide)
    found = await recorded(psql, MESSAGE)
    assert all(found[key, narrow.id] == found[key, wide.id] for key in keys)
    async with database.read() as tx:
        told = await space_coverage.coverage(tx, dataset.id, wide.id)
    assert (told.rows, told.pending, told.failed) == (3, 3, 0)  # what failed in one space may not fail in another
    assert [step async for step in populate.run(database) if step.taken or step.removed] == []


async def test_a_row_that_failed_only_in_the_space_that_is_built_is_listed_once(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    keys = [await plant(psql, MESSAGE, dataset.id, text) for text in ("in both", "in the next", "in the searched")]
    await begin(database, dataset, wide)
    await take_in(database, dataset, narrow, wide)
    for key, failed in zip(keys, ([narrow.id, wide.id], [wide.id], [narrow.id]), strict=True):
        await psql.execute(
            "UPDATE embeddings SET failed_hash = content_hash WHERE row_id = $1 AND space_id = ANY($2)", key, failed
        )
    async with database.read() as tx:
        listed = await monitor.failures(tx, [dataset.id])
    assert {one.id: "wide" in one.reason for one in listed} == dict(zip(keys, (False, True, False), strict=True))
    assert len(listed) == 3


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read"])
async def test_a_build_waits_for_a_writer_that_does_not_know_of_it(
    database: Database, psql: Any, other: Any, dataset: DatasetRef, narrow: Space, wide: Space, isolation: str
) -> None:
    transaction = other.transaction(isolation=isolation)
    await transaction.start()
    await other.fetchval("SELECT count(*) FROM messages")
    if isolation == "read_committed":
        key = await plant(other, MESSAGE, dataset.id, "unknown to the build")
    await begin(database, dataset, wide)
    async with database.transaction() as tx:
        assert not await spaces.older_writers_ended(tx, dataset.id, wide.id)
    if isolation == "repeatable_read":
        key = await plant(other, MESSAGE, dataset.id, "unknown to the build")
    await transaction.commit()
    assert set(await recorded(psql, MESSAGE)) == {(key, narrow.id)}
    await take_in(database, dataset, narrow, wide)
    assert set(await recorded(psql, MESSAGE)) == {(key, narrow.id), (key, wide.id)}


async def test_a_writer_between_begin_and_commit_of_a_build_is_waited_for(
    database: Database, psql: Any, other: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    """Its number is higher than that of the transaction which begins the build, and its trigger did not see that one."""
    writer = other.transaction()
    async with database.transaction() as tx:
        await spaces.start(tx, dataset.id, wide.id, None)
        await writer.start()
        key = await plant(other, MESSAGE, dataset.id, "unknown to the build")
    async with database.transaction() as tx:
        assert not await spaces.older_writers_ended(tx, dataset.id, wide.id)
    await writer.commit()
    assert set(await recorded(psql, MESSAGE)) == {(key, narrow.id)}
    await take_in(database, dataset, narrow, wide)
    assert set(await recorded(psql, MESSAGE)) == {(key, narrow.id), (key, wide.id)}


async def test_nobody_waits_long_behind_a_space_that_waits_for_the_table(
    database: Database, psql: Any, other: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    """A dump reads the table for hours; the change of it comes when that ends, and searches and writers go on meanwhile."""
    await psql.execute("ALTER TABLE embeddings DROP CONSTRAINT " + f"embeddings_width_{wide.id}")
    reading = psql.transaction()
    await reading.start()
    await psql.fetchval("SELECT count(*) FROM embeddings")

    async def add() -> None:
        async with database.transaction() as tx:
            await tx.execute("SELECT evervec_add_space($1)", wide.id)

    adding = asyncio.create_task(add())
    async with asyncio.timeout(DEADLINE):
        while not await other.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%evervec_add_space($1)%' AND state = 'active' "
            "AND datname = current_database() AND pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.01)
        for number in range(5):
            await plant(other, MESSAGE, dataset.id, f"written meanwhile {number}")
            await other.fetch("SELECT * FROM embeddings")
        assert not adding.done()
        await reading.rollback()
        await adding
    found = "SELECT count(*) FROM pg_constraint WHERE conname = $1"
    assert await other.fetchval(found, f"embeddings_width_{wide.id}") == 1


async def searched_in(tx: ReadTx, dataset: DatasetRef) -> int:
    found = await datasets.by_id(tx, dataset.id)
    assert found is not None
    return found.space_id


async def test_a_flip_and_the_way_back(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    key = await plant(psql, MESSAGE, dataset.id, "one")
    await begin(database, dataset, wide)
    await take_in(database, dataset, narrow, wide)
    async with database.transaction() as tx:
        assert await spaces.flip(tx, [dataset.id], spaces.NEXT) == [dataset.id]
    async with database.read() as tx:
        (kept,) = await spaces.others(tx)
        assert (kept.space_id, kept.state) == (narrow.id, spaces.PREVIOUS)
        assert await searched_in(tx, dataset) == wide.id
    await edit(psql, MESSAGE, key, "after the flip")
    assert len(set((await recorded(psql, MESSAGE)).values())) == 1
    async with database.transaction() as tx:
        assert await spaces.flip(tx, [dataset.id], spaces.PREVIOUS) == [dataset.id]
    async with database.read() as tx:
        assert await searched_in(tx, dataset) == narrow.id
        assert [one.state for one in await spaces.others(tx)] == [spaces.NEXT]


async def test_a_dropped_space_leaves_nothing(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    for embeddable in EMBEDDABLES:
        await plant(psql, embeddable, dataset.id, "one")
    await plant(psql, MESSAGE, dataset.id, " ")
    await embed_all(psql)
    await begin(database, dataset, wide)
    await take_in(database, dataset, narrow, wide)
    await embed_all(psql, vector="[1,2,3,4,5]")
    await hnsw.build_indexes(database, wide.id, 5)
    async with database.transaction() as tx:
        assert await spaces.drop(tx, dataset.id, wide.id)
    await purged(database, dataset, wide)
    left = await psql.fetch(
        "SELECT 'record' FROM embeddings WHERE space_id = $1 UNION ALL SELECT 'chunk' FROM chunks WHERE space_id = $1 "
        "UNION ALL SELECT 'work' FROM chunk_work WHERE space_id = $1 UNION ALL SELECT 'space' FROM dataset_spaces "
        "UNION ALL SELECT relname FROM pg_class WHERE relname ~ ('^(embeddings_hnsw_[a-z]+|attached_chunks)_' || $1::text || '$') "
        "UNION ALL SELECT conname FROM pg_constraint WHERE conname = 'embeddings_width_' || $1::text",
        wide.id,
    )
    assert left == []
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE embedding IS NOT NULL") == len(EMBEDDABLES)


async def test_somebodys_view_of_a_space_does_not_keep_it_from_being_dropped(
    database: Database, psql: Any, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    await psql.execute(f"CREATE VIEW public.mine AS SELECT text FROM attached_chunks_{wide.id}")
    await begin(database, dataset, wide)
    async with database.transaction() as tx:
        await spaces.drop(tx, dataset.id, wide.id)
    await purged(database, dataset, wide)
    async with database.read() as tx:
        assert await spaces.others(tx) == []
    assert await psql.fetch("SELECT * FROM public.mine") == []
    await begin(database, dataset, wide)
    assert await psql.fetch("SELECT * FROM public.mine") == []


def draft(ordinal: int, text: str) -> ChunkDraft:
    return ChunkDraft(ordinal, text, "", text, 1, 1, 3, documents.digest(text))


async def write(database: Database, dataset: DatasetRef, chosen: Space, *parts: str) -> None:
    """Write a document as the space's chunks."""
    document = IncomingDocument("file:///a", "a", "".join(parts), "plain", None)
    async with database.transaction() as tx:
        chunks = [draft(n, part) for n, part in enumerate(parts)]
        await documents.replace(tx, dataset.id, [(document, chunks)], CHUNKING, chosen.id)


async def due(database: Database, dataset: DatasetRef) -> list[str]:
    """Return the texts of documents that are to be chunked for the space that is searched."""
    async with database.read() as tx:
        return [one.document.text for one in await unchunked.in_dataset(tx, dataset.id, CHUNKING, limit=10)]


async def test_a_document_that_was_not_chunked_for_the_new_space_keeps_its_text(
    database: Database, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    """Activated with documents missing: their text is in the chunks of the former space, also while that one is removed."""
    await write(database, dataset, narrow, "one ", "two")
    await begin(database, dataset, wide)
    await take_in(database, dataset, narrow, wide)
    async with database.transaction() as tx:
        await spaces.flip(tx, [dataset.id], spaces.NEXT)
        await spaces.drop(tx, dataset.id, narrow.id)
    await purged(database, dataset, narrow)
    assert await due(database, dataset) == ["one two"]
    await write(database, dataset, wide, "one two")
    await purged(database, dataset, narrow)
    assert await due(database, dataset) == []
    async with database.read() as tx:
        assert await spaces.others(tx) == []


async def test_the_text_of_a_dataset_that_moves_without_a_vector_is_kept(
    database: Database, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    await write(database, dataset, narrow, "one ", "two")
    async with database.transaction() as tx:
        await spaces.move(tx, [dataset.id], narrow.id, wide.id)
    assert await due(database, dataset) == ["one two"]


async def test_an_edit_is_not_undone_by_the_chunks_of_a_space_that_was_dropped(
    database: Database, dataset: DatasetRef, narrow: Space, wide: Space
) -> None:
    await write(database, dataset, narrow, "old")
    await begin(database, dataset, wide)
    await take_in(database, dataset, narrow, wide)
    async with database.transaction() as tx:
        document_id = await tx.fetchval("SELECT id FROM documents")
        await documents.replace_chunks(tx, dataset.id, wide.id, [(document_id, [draft(0, "old")])])
        await spaces.drop(tx, dataset.id, wide.id)
        third = (await providers.add(tx, ProviderDraft("third", "ollama", model="third"), ModelProbe(4))).space
    await write(database, dataset, narrow, "new")
    await begin(database, dataset, third)
    await take_in(database, dataset, narrow, third)
    async with database.transaction() as tx:
        await spaces.flip(tx, [dataset.id], spaces.NEXT)
    assert await due(database, dataset) == ["new"]
