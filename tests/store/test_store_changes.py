"""The change feed: nothing skipped, nothing twice, whoever commits when; and what a reader of another database identity is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from evervec.domain.feed import Digest, Watermark, compare
from evervec.errors import FeedError
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.schema.embeddables import MESSAGE, TOPIC
from tests.store.planting import edit, embed_all, plant, space, space_of

BEGINNING = Watermark(1, 1)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    """Open a second connection."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def read(database: Database, dataset: DatasetRef, seen: Watermark = BEGINNING) -> changes.Changes:
    """Return what the feed now gives to a reader at `seen`."""
    async with database.read() as tx:
        return await changes.since(tx, dataset.id, await space_of(tx, dataset), seen, 3)


async def ids(psql: Any) -> dict[str, int]:
    """Return vector ids by text."""
    return dict(await psql.fetch("SELECT m.content, e.vector_id FROM embeddings e JOIN messages m ON m.id = e.row_id"))


async def embedded(psql: Any, dataset: DatasetRef, *texts: str) -> list[int]:
    """Commit messages with vectors and return their vector ids."""
    for text in texts:
        await plant(psql, MESSAGE, dataset.id, text)
    await embed_all(psql)
    by_text = await ids(psql)
    return [by_text[text] for text in texts]


async def test_a_new_reader_gets_everything_and_the_next_time_nothing(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await space(database, 3)
    wanted = await embedded(psql, dataset, "a", "b")
    await plant(psql, MESSAGE, dataset.id, "has no vector yet")
    first = await read(database, dataset)
    assert sorted(first.upserts.ids) == wanted
    assert set(first.upserts.kinds) == {MESSAGE.kind}
    assert np.allclose(first.upserts.rows, np.array([1, 2, 3], np.float32) / np.sqrt(14))
    assert not len(await read(database, dataset, first.watermark))


async def test_a_late_commit_is_not_skipped(database: Database, dataset: DatasetRef, psql: Any, other: Any) -> None:
    await space(database, 3)
    a, b = await embedded(psql, dataset, "a", "b")
    seen = (await read(database, dataset)).watermark
    async with psql.transaction():
        await psql.execute("UPDATE embeddings SET embedding = '[3,2,1]' WHERE vector_id = $1", a)
        # a transaction with a newer id commits before the older one does
        await other.execute("UPDATE embeddings SET embedding = '[1,1,1]' WHERE vector_id = $1", b)
        during = await read(database, dataset, seen)
        assert list(during.upserts.ids) == [b]
    after = await read(database, dataset, during.watermark)
    assert list(after.upserts.ids) == [a]
    assert not len(await read(database, dataset, after.watermark))


async def test_a_long_transaction_elsewhere_holds_nothing_back(
    database: Database, dataset: DatasetRef, psql: Any, other: Any
) -> None:
    await space(database, 3)
    seen = (await read(database, dataset)).watermark
    async with other.transaction():
        await other.execute("CREATE TABLE elsewhere ()")
        for text in "abc":
            [wanted] = await embedded(psql, dataset, text)
            found = await read(database, dataset, seen)
            assert list(found.upserts.ids) == [wanted]
            seen = found.watermark
    assert not len(await read(database, dataset, seen))


@pytest.mark.parametrize("how", ["delete", "blank", "null", "move"])
async def test_what_goes_leaves_a_tombstone(database: Database, dataset: DatasetRef, psql: Any, how: str) -> None:
    await space(database, 3)
    gone, kept = await embedded(psql, dataset, "gone", "kept")
    seen = (await read(database, dataset)).watermark
    await psql.execute("INSERT INTO datasets (project_id, slug, name) SELECT project_id, 'other', 'o' FROM datasets")
    await psql.execute(
        {
            "delete": "DELETE FROM messages WHERE content = 'gone'",
            "blank": "UPDATE messages SET content = '  ' WHERE content = 'gone'",
            "null": f"UPDATE embeddings SET embedding = NULL WHERE vector_id = {gone}",
            "move": "UPDATE messages SET dataset_id = (SELECT id FROM datasets WHERE slug = 'other') WHERE content = 'gone'",
        }[how]
    )
    found = await read(database, dataset, seen)
    assert list(found.deleted) == [gone]
    assert not len(found.upserts)
    async with database.read() as tx:
        assert list((await changes.all_vectors(tx, dataset.id, await space_of(tx, dataset), 3)).ids) == [kept]


async def test_a_row_that_left_and_came_back_is_there(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    [there] = await embedded(psql, dataset, "a")
    seen = (await read(database, dataset)).watermark
    await psql.execute("INSERT INTO datasets (project_id, slug, name) SELECT project_id, 'other', 'o' FROM datasets")
    await psql.execute("UPDATE messages SET dataset_id = (SELECT id FROM datasets WHERE slug = 'other')")
    await psql.execute("UPDATE messages SET dataset_id = $1", dataset.id)
    found = await read(database, dataset, seen)
    assert list(found.upserts.ids) == [there]


async def test_what_was_rolled_back_never_was(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    await embedded(psql, dataset, "a")
    seen = (await read(database, dataset)).watermark
    rolling = psql.transaction()
    await rolling.start()
    await psql.execute("DELETE FROM messages")
    await rolling.rollback()
    assert not len(await read(database, dataset, seen))


async def test_datasets_with_news_are_named(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    await embedded(psql, dataset, "a")
    seen = (await read(database, dataset)).watermark
    async with database.read() as tx:
        assert await changes.with_unseen(tx, {(dataset.id, await space_of(tx, dataset)): seen}) == set()
    await psql.execute("DELETE FROM messages")
    async with database.read() as tx:
        assert await changes.with_unseen(tx, {(dataset.id, await space_of(tx, dataset)): seen}) == {
            (dataset.id, await space_of(tx, dataset))
        }


async def test_the_digest_is_the_same_here_and_there(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    await embedded(psql, dataset, *(f"text {n}" for n in range(50)))
    async with database.read() as tx:
        wanted = await changes.digest(tx, dataset.id, await space_of(tx, dataset))
        pairs = await changes.versions(tx, dataset.id, await space_of(tx, dataset))
        for version in (15, 17, 18):
            sql = changes.digest_sql(await space_of(tx, dataset), version)
            row = await tx.fetchrow(sql, dataset.id)
            assert Digest(*row) == wanted
    assert Digest.of(*pairs) == wanted
    assert wanted.count == 50


async def test_a_difference_names_what_is_missing_extra_and_stale(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await space(database, 3)
    wanted = await embedded(psql, dataset, "a", "b", "c")
    async with database.read() as tx:
        mirrored = await changes.versions(tx, dataset.id, await space_of(tx, dataset))
    [new] = await embedded(psql, dataset, "d")
    await psql.execute("DELETE FROM messages WHERE content = 'a'")
    await psql.execute("UPDATE embeddings SET embedding = '[3,2,1]' WHERE vector_id = $1", wanted[1])
    async with database.read() as tx:
        found = compare(await changes.versions(tx, dataset.id, await space_of(tx, dataset)), mirrored)
    assert (list(found.missing), list(found.extra), list(found.stale)) == ([new], [wanted[0]], [wanted[1]])


async def test_an_edited_text_keeps_its_old_vector_until_the_new_one_is_there(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await space(database, 3)
    [one] = await embedded(psql, dataset, "a")
    seen = (await read(database, dataset)).watermark
    row_id = await psql.fetchval("SELECT id FROM messages")
    await edit(psql, MESSAGE, row_id, "another text")
    assert not len(await read(database, dataset, seen))
    await embed_all(psql, vector="[9,9,9]")
    found = await read(database, dataset, seen)
    assert list(found.upserts.ids) == [one]
    assert np.allclose(found.upserts.rows, 1 / np.sqrt(3))


async def test_many_vectors_come_in_one_pass(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    await psql.execute("ALTER TABLE embeddings DISABLE TRIGGER ALL")
    await psql.execute(
        "INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, embedded_at) "
        "SELECT 1, n, d.id, sha256(int8send(n)), ARRAY[n, 1, 0]::vector, sha256(int8send(n)), d.space_id, now() "
        "FROM generate_series(1, 60000) n, datasets d WHERE d.id = $1",
        dataset.id,
    )
    async with database.read() as tx:
        found = await changes.all_vectors(tx, dataset.id, await space_of(tx, dataset), 3)
    order = np.argsort(found.ids)
    numbers = np.arange(1, 60_001, dtype=np.float32)
    wanted = np.stack([numbers, np.ones_like(numbers), np.zeros_like(numbers)], axis=1)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.allclose(found.rows[order], wanted)
    some = found.ids[:2000]
    async with database.read() as tx:
        assert set((await changes.by_ids(tx, dataset.id, await space_of(tx, dataset), some, 3)).ids) == set(some)


async def test_a_vector_of_another_width_is_refused_in_words(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await space(database, 3)
    await embedded(psql, dataset, "a")
    with pytest.raises(FeedError, match="width"):
        async with database.read() as tx:
            await changes.all_vectors(tx, dataset.id, await space_of(tx, dataset), 4)


async def test_an_identity_tells_databases_apart(database: Database, dataset: DatasetRef, psql: Any) -> None:
    async with database.read() as tx:
        assert await changes.feed_state(tx, dataset.id, 99) is None
    await space(database, 3)
    async with database.read() as tx:
        first = await changes.feed_state(tx, dataset.id, await space_of(tx, dataset))
        nowhere = await changes.feed_state(tx, UUID(int=5), await space_of(tx, dataset))
    await space(database, 4, model="another")
    await psql.execute("UPDATE datasets SET deleted_at = now(), recall_target = 0.9")
    async with database.read() as tx:
        second = await changes.feed_state(tx, dataset.id, await space_of(tx, dataset))
    assert first is not None and second is not None and nowhere is not None
    assert first.identity.difference(first.identity) is None
    assert "space id" in str(first.identity.difference(second.identity))
    assert (first.live, nowhere.live, second.live) == (True, False, False)
    assert first.recall_target is None
    assert second.recall_target == pytest.approx(0.9)


async def test_pruned_tombstones_are_told_of(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await space(database, 3)
    await embedded(psql, dataset, "a", "b")
    seen = (await read(database, dataset)).watermark
    await psql.execute("DELETE FROM messages WHERE content = 'a'")
    async with database.transaction() as tx:
        assert await changes.prune(tx, dataset.id, seen.xmin) == 0
        now = await changes.watermark(tx)
        assert await changes.prune(tx, dataset.id, now.xmin) == 1
    async with database.read() as tx:
        heading = await changes.feed_state(tx, dataset.id, await space_of(tx, dataset))
    assert heading is not None
    assert heading.feed_from > seen.xmin


async def test_random_writers_and_a_reader_agree_at_every_moment(
    database: Database, database_url: str, dataset: DatasetRef, psql: Any
) -> None:
    """Let four writers work in transactions of any length; a reader that follows must hold what a fresh reader reads."""
    await space(database, 3)
    await space(database, 3)
    chance = np.random.default_rng(5)
    await embedded(psql, dataset, *(f"row {n}" for n in range(40)))
    done = asyncio.Event()

    async def write(number: int) -> None:
        connection = await asyncpg.connect(database_url)
        for turn in range(40):
            # two that wait for each other: one of them is undone, which the reader must not see either
            with suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    for _ in range(int(chance.integers(1, 4))):
                        victim = int(chance.integers(0, 40))
                        action = chance.integers(0, 4)
                        if action == 0:
                            await connection.execute("DELETE FROM messages WHERE content = $1", f"row {victim}")
                        elif action == 1:
                            await plant(
                                connection, TOPIC, dataset.id, f"topic {number} {turn} {chance.integers(0, 9**9)}"
                            )
                        else:
                            await connection.execute(
                                "UPDATE embeddings SET embedding = ARRAY[$1, 1, 1]::vector, embedded_hash = content_hash, "
                                "embedded_at = now() WHERE vector_id IN (SELECT vector_id FROM embeddings "
                                "WHERE row_id % 10 = $2 AND content_hash IS NOT NULL ORDER BY vector_id FOR UPDATE SKIP LOCKED)",
                                turn + 1,
                                number,
                            )
        await connection.close()

    async def follow() -> None:
        held: dict[int, int] = {}
        seen = BEGINNING
        finished = False
        while not finished:
            finished = done.is_set()
            async with database.read() as tx:
                news = await changes.since(tx, dataset.id, await space_of(tx, dataset), seen, 3)
                truth = await changes.versions(tx, dataset.id, await space_of(tx, dataset))
            seen = news.watermark
            for gone in news.deleted.tolist():
                held.pop(gone, None)
            held |= dict(zip(news.upserts.ids.tolist(), news.upserts.versions.tolist(), strict=True))
            assert held == dict(zip(truth[0].tolist(), truth[1].tolist(), strict=True))

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(number) for number in range(4)))
    done.set()
    await following
