"""Vectors: written only over the text they were made from, of one space and one width, copied, and found again."""

import asyncio
import itertools
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evervec.domain.vectors import check_vectors
from evervec.store import datasets
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import duplicate_pairs, hnsw, neighbours, rows, vector_wire, vectors
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.providers import Space
from evervec.store.schema.embeddables import ATOM, EMBEDDABLES, MESSAGE, TOPIC
from evervec.store.spaces.spaces import default
from tests.store.conftest import BIG, BOOKS, SMALL, WIDTH
from tests.store.planting import edit, plant, space, space_of, unit

DIM = 4


@pytest.fixture
async def active(database: Database) -> Space:
    """Make the active space, four numbers wide."""
    return await space(database, DIM)


async def claimed(psql: Any, database: Database, dataset: DatasetRef, *texts: str) -> list[ClaimedRow]:
    for text in texts:
        await plant(psql, MESSAGE, dataset.id, text)
    async with database.transaction() as tx:
        return await rows.claim_dataset(
            tx, dataset.id, space_id=await space_of(tx, dataset), limit=1000, owner=uuid4(), lease=60
        )


async def write(database: Database, space_id: int, found: list[ClaimedRow]) -> set[int]:
    async with database.transaction() as tx:
        return await vectors.update_vectors_bulk(tx, space_id, found, unit(len(found), DIM))


async def test_vectors_are_stored_as_they_are_and_the_lease_ends(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    found = await claimed(psql, database, dataset, "one", "two", "three")
    assert await write(database, active.id, found) == {row.vector_id for row in found}
    async with database.read() as tx:
        for row, vector in zip(found, unit(3, DIM), strict=True):
            found_now = await vectors.vector_of(tx, MESSAGE, row.row_id)
            assert found_now is not None
            np.testing.assert_array_equal(found_now[1], vector)
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
    assert await psql.fetchval("SELECT count(*) FROM embedding_status WHERE embedding_status = 'READY'") == 3


async def test_a_vector_of_a_text_that_was_edited_or_deleted_meanwhile_is_nobodys(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    edited, deleted, sound = await claimed(psql, database, dataset, "edited", "deleted", "sound")
    await edit(psql, MESSAGE, edited.row_id, "another text")
    await psql.execute("DELETE FROM messages WHERE id = $1", deleted.row_id)
    assert await write(database, active.id, [edited, deleted, sound]) == {sound.vector_id}
    states = await psql.fetch("SELECT row_id, embedding_status FROM embedding_status ORDER BY row_id")
    assert [tuple(row) for row in states] == [(edited.row_id, "PENDING"), (sound.row_id, "READY")]


async def test_a_vector_of_a_space_that_is_no_longer_active_is_nobodys(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    found = await claimed(psql, database, dataset, "one")
    await space(database, DIM, model="another model of the same width")
    assert await write(database, active.id, found) == set()
    async with database.transaction() as tx:
        assert await vectors.reuse(tx, active.id, found) == set()
    assert await psql.fetchval("SELECT count(embedding) FROM embeddings") == 0


async def test_a_late_vector_heals_a_row_that_was_given_up(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    found = await claimed(psql, database, dataset, "given up too early")
    await psql.execute("UPDATE embeddings SET failed_hash = content_hash")
    assert len(await write(database, active.id, found)) == 1
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "READY"
    assert await psql.fetchval("SELECT failed_hash FROM embeddings") is None


@pytest.mark.parametrize("width", [DIM + 1, DIM - 1])
async def test_a_vector_of_another_width_is_refused_and_nothing_is_padded(
    psql: Any, database: Database, dataset: DatasetRef, active: Space, width: int
) -> None:
    await plant(psql, MESSAGE, dataset.id, "hello")
    with pytest.raises(asyncpg.CheckViolationError, match=f"embeddings_width_{active.id}"):
        await psql.execute(
            "UPDATE embeddings SET embedding = $1::text::vector, embedded_hash = content_hash, embedded_at = now()",
            f"[{','.join('1' * width)}]",
        )


async def test_rows_without_a_vector_go_into_another_space_as_they_are(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    await plant(psql, MESSAGE, dataset.id, "one")
    wide = await space(database, DIM + 2, model="wider")
    assert await psql.fetchval("SELECT array_agg(space_id) FROM embeddings") == [wide.id]
    assert await psql.fetchval("SELECT count(*) FROM embedding_status WHERE embedding_status = 'PENDING'") == 1
    assert await psql.fetchval("SELECT id FROM embedding_spaces WHERE state = 'active'") == wide.id
    assert await psql.fetchval("SELECT count(*) FROM embedding_spaces WHERE state = 'active'") == 1


async def test_an_equal_text_gets_the_vector_that_is_there(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    await write(database, active.id, await claimed(psql, database, dataset, "same", "same"))
    found = await claimed(psql, database, dataset, "same", "other", "same")
    async with database.transaction() as tx:
        reused = await vectors.reuse(tx, active.id, found)
    assert reused == {row.vector_id for row in found if row.text == "same"}
    distinct = "SELECT count(DISTINCT embedding::text) FROM embeddings WHERE content_hash = $1"
    assert await psql.fetchval(distinct, sha256(b"same").digest()) == 2  # the two that were written above
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 1


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 40)), elements=st.floats(width=32)))
def test_packed_vectors_have_one_row_of_their_width_each(given_vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    packed = vector_wire.pack(given_vectors)
    width = given_vectors.shape[1]
    assert [len(row) for row in packed] == [4 + 4 * width] * len(given_vectors)
    for row, vector in zip(packed, given_vectors, strict=True):
        assert row[:4] == width.to_bytes(2, "big") + b"\0\0"
        np.testing.assert_array_equal(np.frombuffer(row, ">f4", offset=4), vector)


async def test_pgvector_reads_our_bytes_as_the_numbers_they_are(database: Database, psql: Any) -> None:
    given_vectors = unit(5, 7) * 1000
    async with database.read() as tx:
        for vector, packed in zip(given_vectors, vector_wire.pack(given_vectors), strict=True):
            text = await tx.fetchval("SELECT $1::vector::text", packed)
            np.testing.assert_array_equal(np.array(text.strip("[]").split(","), np.float32), vector)
            back = await tx.fetchval("SELECT $1::text::vector", text)
            assert back == packed


async def test_whatever_passes_the_gate_fits_into_the_index(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    extremes = np.array(
        [[65_504, 1, 1, 1], [65_519, 0, 0, 0], [6e-8, 0, 0, 0], [65_520, 1, 1, 1], [1e-9, 0, 0, 0], [np.inf, 1, 1, 1]],
        np.float32,
    )
    sound = check_vectors(extremes, count=len(extremes), dimensions=DIM, provider="p")
    assert sound.tolist() == [True, True, True, False, False, False]
    await hnsw.build_indexes(database, active.id, DIM)
    found = await claimed(psql, database, dataset, "one", "two", "three")
    async with database.transaction() as tx:
        assert len(await vectors.update_vectors_bulk(tx, active.id, found, extremes[sound])) == 3
    async with database.read() as tx:
        await neighbours.use_index(tx, k=10)
        hits = await neighbours.nearest(
            tx, MESSAGE, unit(1, DIM)[0], space_id=await default(tx), k=10, dataset_ids=None
        )
    assert len(hits) == 3


@pytest.mark.parametrize("embeddable", [MESSAGE, TOPIC, ATOM], ids=lambda embeddable: embeddable.name)
async def test_hnsw_exact_and_numpy_agree_on_random_vectors(reader: Database, embeddable: Any) -> None:
    place = EMBEDDABLES.index(embeddable)
    stored = unit(len(EMBEDDABLES) * BOOKS, WIDTH)[place * BOOKS : (place + 1) * BOOKS]
    found_again = 0
    async with reader.read() as tx:
        for query in unit(20, WIDTH, seed=99):
            cosine = stored @ query
            wanted = [int(index) + 1 for index in np.argsort(-cosine)[:10]]
            exact = await neighbours.nearest(
                tx, embeddable, query, space_id=await default(tx), k=10, dataset_ids=None, exact=True
            )
            assert [hit.id for hit in exact] == wanted
            np.testing.assert_allclose([hit.score for hit in exact], np.sort(cosine)[::-1][:10], atol=1e-5)
        await neighbours.use_index(tx, k=10)
        for query in unit(20, WIDTH, seed=99):
            wanted = [int(index) + 1 for index in np.argsort(-(stored @ query))[:10]]
            hnsw = await neighbours.nearest(tx, embeddable, query, space_id=await default(tx), k=10, dataset_ids=None)
            assert [hit.score for hit in hnsw] == sorted((hit.score for hit in hnsw), reverse=True)
            found_again += len(set(wanted) & {hit.id for hit in hnsw})
    assert found_again / 200 >= 0.95


async def test_a_filter_by_dataset_never_comes_back_short_or_strays(reader: Database) -> None:
    async with reader.read() as tx:
        for exact in (True, False):
            if not exact:
                await neighbours.use_index(tx, k=150)
            hits = await neighbours.nearest(
                tx,
                MESSAGE,
                unit(1, WIDTH, seed=5)[0],
                space_id=await default(tx),
                k=150,
                dataset_ids=[SMALL],
                exact=exact,
            )
            assert len(hits) == 150 and {hit.dataset for hit in hits} == {"2"}
            assert (
                await neighbours.nearest(
                    tx, MESSAGE, unit(1, WIDTH)[0], space_id=await default(tx), k=5, dataset_ids=[uuid4()], exact=exact
                )
                == []
            )
        assert (
            await neighbours.count_in_scope(tx, MESSAGE, [SMALL], space_id=await default(tx), most=10_000)
            == BOOKS // 10
        )
        assert await neighbours.count_in_scope(tx, MESSAGE, [BIG, SMALL], space_id=await default(tx), most=50) == 50


@pytest.mark.parametrize("exact", [True, False])
async def test_a_deleted_dataset_does_not_use_up_the_hits(
    psql: Any, database: Database, dataset: DatasetRef, active: Space, exact: bool
) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    crowd = await claimed(psql, database, dataset, *(f"text {number}" for number in range(30)))
    async with database.transaction() as tx:
        await vectors.update_vectors_bulk(tx, active.id, crowd, np.tile(np.array([[1, 0, 0, 0]], np.float32), (30, 1)))
        other = await datasets.ensure(tx, "river", "other")
    await write(database, active.id, await claimed(psql, database, other, "the only one left"))
    async with database.transaction() as tx:
        await datasets.remove(tx, dataset.id)
    async with database.read() as tx:
        if not exact:
            await neighbours.use_index(tx, k=5)
        query = np.array([1, 0, 0, 0], np.float32)
        hits = await neighbours.nearest(
            tx, MESSAGE, query, space_id=await default(tx), k=5, dataset_ids=None, exact=exact
        )
    assert [hit.text for hit in hits] == ["the only one left"]


async def test_a_stale_vector_is_found_and_says_so(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    found = await claimed(psql, database, dataset, "before")
    await write(database, active.id, found)
    await edit(psql, MESSAGE, found[0].row_id, "after")
    async with database.read() as tx:
        (hit,) = await neighbours.nearest(
            tx, MESSAGE, unit(1, DIM)[0], space_id=await default(tx), k=5, dataset_ids=None, exact=True
        )
    assert (hit.text, hit.stale) == ("after", True)
    assert hit.score == pytest.approx(1.0, abs=1e-6)


async def test_duplicates_are_pairs_of_one_scope_nearest_first(
    psql: Any, database: Database, dataset: DatasetRef, active: Space
) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    found = await claimed(psql, database, dataset, "a", "a again", "nearly a", "something else")
    written = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0.1, 0, 0], [0, 0, 1, 0]], np.float32)
    async with database.transaction() as tx:
        await vectors.update_vectors_bulk(tx, active.id, found, written)
    ids = [row.row_id for row in found]
    async with database.read() as tx:
        await neighbours.use_index(tx, k=10)
        pairs = await duplicate_pairs.find(tx, MESSAGE, await default(tx), DIM, [dataset.id], threshold=0.9, most=10)
        assert await duplicate_pairs.find(tx, MESSAGE, await default(tx), DIM, [uuid4()], threshold=0.9, most=10) == []
    assert [(one, other) for one, other, _ in pairs] == [(ids[0], ids[1]), (ids[0], ids[2]), (ids[1], ids[2])]
    assert pairs[0][2] == pytest.approx(1.0, abs=1e-3)


TWIN, NEAR, FAR = [1, 0, 0, 0], [1, 0.1, 0, 0], [0, 0, 1, 0]


async def written(
    psql: Any, database: Database, dataset: DatasetRef, space_id: int, texts: list[tuple[str, list[float]]]
) -> list[int]:
    """Plant rows with these texts and vectors and return their row ids."""
    found = await claimed(psql, database, dataset, *(text for text, _ in texts))
    async with database.transaction() as tx:
        await vectors.update_vectors_bulk(tx, space_id, found, np.array([v for _, v in texts], np.float32))
    return [row.row_id for row in found]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("deleted", [True, False])
async def test_copies_in_another_dataset_hide_no_duplicates(
    psql: Any, database: Database, dataset: DatasetRef, active: Space, exact: bool, deleted: bool
) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    async with database.transaction() as tx:
        other = await datasets.ensure(tx, "another project", "log")
    await written(psql, database, other, active.id, [("same", TWIN)] * 40)
    ids = await written(
        psql, database, dataset, active.id, [("same", TWIN), ("same", TWIN), ("nearly", NEAR), ("far", FAR)]
    )
    if deleted:
        async with database.transaction() as tx:
            await datasets.remove(tx, other.id)
    async with database.read() as tx:
        await neighbours.use_index(tx, k=10)
        pairs = await duplicate_pairs.find(
            tx, MESSAGE, await default(tx), DIM, [dataset.id], threshold=0.9, most=100, exact=exact
        )
        gone = await duplicate_pairs.find(
            tx, MESSAGE, await default(tx), DIM, [other.id], threshold=0.9, most=2000, exact=exact
        )
    assert {(ids[0], ids[1]), (ids[0], ids[2])} <= {(one, later) for one, later, _ in pairs}
    assert {row_id for one, later, _ in pairs for row_id in (one, later)} == set(ids[:3])
    assert len(gone) == (0 if deleted else 40 * 39 // 2)


@pytest.mark.parametrize("exact", [True, False])
async def test_many_equal_texts_hide_no_text_that_is_only_similar(
    psql: Any, database: Database, dataset: DatasetRef, active: Space, exact: bool
) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    ids = await written(psql, database, dataset, active.id, [("same", TWIN)] * 15 + [("nearly", NEAR)] * 15)
    async with database.read() as tx:
        await neighbours.use_index(tx, k=10)
        pairs = await duplicate_pairs.find(
            tx, MESSAGE, await default(tx), DIM, [dataset.id], threshold=0.9, most=1000, exact=exact
        )
        fewest = await duplicate_pairs.find(
            tx, MESSAGE, await default(tx), DIM, [dataset.id], threshold=0.9, most=5, exact=exact
        )
    found = {(one, later) for one, later, _ in pairs}
    equal = {(one, later) for part in (ids[:15], ids[15:]) for one, later in itertools.combinations(part, 2)}
    assert equal <= found
    assert (ids[0], ids[15]) in found, "the two texts"
    assert [score for _, _, score in pairs] == sorted((score for _, _, score in pairs), reverse=True)
    assert len(fewest) == 5 and {(one, later) for one, later, _ in fewest} <= equal


@pytest.mark.parametrize("exact", [True, False])
async def test_records_whose_rows_are_lost_take_no_places(
    psql: Any, database: Database, dataset: DatasetRef, active: Space, exact: bool
) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    ids = await written(psql, database, dataset, active.id, [(str(n), TWIN) for n in range(12)] + [("left", NEAR)])
    await psql.execute("ALTER TABLE messages DISABLE TRIGGER ALL")
    await psql.execute("DELETE FROM messages WHERE id = ANY($1)", ids[:12])
    async with database.read() as tx:
        if not exact:
            await neighbours.use_index(tx, k=2)
        query = np.array(TWIN, np.float32)
        hits = await neighbours.nearest(
            tx, MESSAGE, query, space_id=await default(tx), k=2, dataset_ids=[dataset.id], exact=exact
        )
        every = [row["vector_id"] for row in await tx.fetch("SELECT vector_id FROM embeddings")]
        joined = await neighbours.rejoin(tx, query, every, dataset_ids=[dataset.id], kinds=[MESSAGE])
    assert [hit.text for hit in hits] == [hit.text for hit in joined] == ["left"]


async def test_several_processes_may_build_the_indexes_at_once(database: Database, active: Space) -> None:
    async def another() -> None:
        opened = await Database(database.url).open()
        await hnsw.build_indexes(opened, active.id, DIM)
        await opened.aclose()

    await asyncio.gather(*(another() for _ in range(4)))
    async with database.read() as tx:
        valid = await tx.fetch("SELECT indisvalid FROM pg_index WHERE indexrelid::regclass::text LIKE '%_hnsw_%'")
    assert [row["indisvalid"] for row in valid] == [True] * len(EMBEDDABLES)
    await hnsw.drop_indexes(database, active.id)
    async with database.read() as tx:
        assert await tx.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'embeddings_hnsw_%'") == 0


async def test_an_index_that_a_crash_left_invalid_is_built_again(psql: Any, database: Database, active: Space) -> None:
    await hnsw.build_indexes(database, active.id, DIM)
    name = hnsw.index_name(MESSAGE, active.id)
    await psql.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", name)
    await hnsw.build_indexes(database, active.id, DIM)
    assert await psql.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = $1::text::regclass", name)
