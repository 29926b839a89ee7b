"""Pictures and sounds in the database: which of them wait, who may take one, what an answer finds, how one is given up."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest

from evervec.domain.batch import JobType
from evervec.domain.documents.document import IncomingDocument, Media
from evervec.store import datasets
from evervec.store.batch import batch_jobs, media
from evervec.store.batch.batch_jobs import JobRow
from evervec.store.batch.media import RequestedFile, WaitingFile
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from tests.store.explaining import plans

OLD, NEW = sha256(b"old").digest(), sha256(b"new").digest()
STATE = "SELECT content_hash, described_hash, failed_hash, error, job_id, tries FROM media WHERE document_id = $1"


def picture(name: str, digest: bytes = OLD, title: str | None = None) -> IncomingDocument:
    path = f"/p/{name}.png"
    return IncomingDocument(f"file://{path}", title or name, "", "image", "1:1", Media(path, "image/png", 3, digest))


@pytest.fixture
async def job(database: Database) -> UUID:
    """Make a job of media at a provider."""
    return await made(database)


async def made(database: Database) -> UUID:
    async with database.transaction() as tx:
        provider = await tx.fetchval(
            "WITH s AS (INSERT INTO embedding_spaces (provider, model, dimensions, metric, state) VALUES "
            "('p', $1, 3, 'cosine', 'ready') RETURNING id) INSERT INTO llm_providers (name, type, model, space_id) "
            "SELECT $1, 'gemini', 'm', id FROM s RETURNING id",
            uuid4().hex,
        )
        intent = uuid4()
        await batch_jobs.add(
            tx, intent, JobType.MEDIA_DESCRIPTION, provider_id=provider, space_id=None, model="m", price=None, hours=1
        )
    return intent


async def taken(database: Database, dataset: DatasetRef, *given: IncomingDocument) -> list[int]:
    """Save images and return the ids of their documents, in the order of their URIs."""
    async with database.transaction() as tx:
        await media.upsert(tx, dataset.id, given)
        return [row["id"] for row in await tx.fetch("SELECT id FROM documents ORDER BY uri")]


async def put(database: Database, job: UUID, *ids: int, digest: bytes = OLD) -> None:
    """Put free images into a job."""
    async with database.transaction() as tx:
        for one in ids:
            assert await media.lock_free(tx, one, digest)
            await media.add_to_job(tx, job, one)
        await batch_jobs.add_items(tx, job, [JobRow(one, f"document:{one}", digest) for one in ids])


async def waits(database: Database, dataset: DatasetRef, tries: int = 0) -> list[int]:
    async with database.read() as tx:
        found = await media.waiting_files(tx, dataset.id, tries=tries, after=0, limit=100)
        count = sum(n for _, n in await media.waiting(tx, [dataset.id], tries=tries))
    assert count == len(found)
    return [one.document_id for one in found]


async def asked(database: Database, job: UUID, ids: Sequence[int]) -> list[RequestedFile]:
    async with database.read() as tx:
        return await media.requested(tx, job, [f"document:{one}" for one in ids])


async def test_what_is_taken_in_waits_once_in_the_order_of_its_documents(
    database: Database, dataset: DatasetRef
) -> None:
    a, b, c = await taken(database, dataset, picture("b"), picture("a"), picture("c"))
    assert await waits(database, dataset) == [a, b, c]
    async with database.read() as tx:
        assert await media.waiting_files(tx, dataset.id, tries=0, after=a, limit=1) == [
            WaitingFile(b, "/p/b.png", "image/png", OLD)
        ]
        assert await media.waiting_bytes(tx, [dataset.id]) == 9
        assert await media.waiting(tx, [uuid4()]) == []
        same = await media.unchanged(tx, dataset.id, [picture("a"), picture("b", NEW), picture("c", title="other")])
    assert same == {"file:///p/a.png"}


async def test_what_is_held_described_given_up_or_in_a_deleted_dataset_does_not_wait(
    database: Database, dataset: DatasetRef, job: UUID
) -> None:
    ids = await taken(database, dataset, *(picture(name) for name in "abcd"))
    await put(database, job, ids[0])
    async with database.transaction() as tx:
        await media.mark_described(tx, [ids[1]])
        assert await media.give_up(tx, ids[2], OLD, "no")
    assert await waits(database, dataset) == [ids[3]]
    async with database.transaction() as tx:
        await tx.execute("UPDATE documents SET format = 'plain' WHERE id = $1", ids[3])
    assert await waits(database, dataset) == []
    async with database.transaction() as tx:
        await tx.execute("UPDATE documents SET format = 'audio' WHERE id = $1", ids[3])
    assert await waits(database, dataset) == [ids[3]]
    async with database.transaction() as tx:
        await datasets.remove(tx, dataset.id)
    assert await waits(database, dataset) == []


async def test_another_file_leaves_its_job_and_the_same_stays(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    same, other = await taken(database, dataset, picture("a"), picture("b"))
    await put(database, job, same, other)
    await taken(database, dataset, picture("a", title="renamed"), picture("b", NEW))
    assert tuple(await psql.fetchrow(STATE, same)) == (OLD, None, None, None, job, 0)
    assert tuple(await psql.fetchrow(STATE, other)) == (NEW, None, None, None, None, 0)
    assert await waits(database, dataset) == [other]
    first, second = await asked(database, job, [same, other])
    assert first.document == IncomingDocument("file:///p/a.png", "renamed", "", "image", "1:1")
    assert (second.document, second.content_hash) == (None, OLD)
    async with database.transaction() as tx:
        assert [medium.document_id for _, medium in await media.of_job(tx, job)] == [same]
        assert await media.lock_undescribed(tx, [first, second]) == {same}
        assert await media.is_wanted(tx, job)
        await media.mark_described(tx, [same])
        assert not await media.is_wanted(tx, job)
        assert await media.lock_undescribed(tx, [first, second]) == set()


async def test_a_file_that_was_given_up_waits_again_when_it_is_handed_over_again(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    (one,) = await taken(database, dataset, picture("a"))
    async with database.transaction() as tx:
        assert not await media.give_up(tx, one, NEW, "another file")
        assert await media.give_up(tx, one, OLD, "x" * 600)
    assert tuple(await psql.fetchrow(STATE, one)) == (OLD, None, OLD, "x" * 500, None, 0)
    async with database.read() as tx:
        assert await media.unchanged(tx, dataset.id, [picture("a")]) == set()
    await taken(database, dataset, picture("a"))
    assert tuple(await psql.fetchrow(STATE, one)) == (OLD, None, None, None, None, 0)


async def test_a_picture_after_a_text_is_described_again(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    (one,) = await taken(database, dataset, picture("a"))
    async with database.transaction() as tx:
        await media.mark_described(tx, [one])
        await tx.execute("UPDATE documents SET format = 'plain'")
    async with database.read() as tx:
        assert await media.unchanged(tx, dataset.id, [picture("a")]) == set()
    assert await taken(database, dataset, picture("a")) == [one]
    assert await waits(database, dataset) == [one]


async def test_two_jobs_never_hold_the_same_file(database: Database, dataset: DatasetRef, job: UUID) -> None:
    ids = await taken(database, dataset, *(picture(f"{n}") for n in range(20)))
    other = await made(database)

    async def race(intent: UUID) -> list[int]:
        won: list[int] = []
        for one in ids:
            async with database.transaction() as tx:
                if await media.lock_free(tx, one, OLD):
                    await media.add_to_job(tx, intent, one)
                    won.append(one)
        return won

    first, second = await asyncio.gather(race(job), race(other))
    assert sorted(first + second) == ids


async def test_a_file_comes_back_once_and_is_then_given_up(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    (one,) = await taken(database, dataset, picture("a"))
    await put(database, job, one)
    async with database.transaction() as tx:
        assert await media.return_files(tx, uuid4(), [one], error="not yours") == (0, 0)
        assert await media.return_files(tx, job, [one], error="first") == (1, 0)
        assert await media.return_files(tx, job, [one], error="it has it no more") == (0, 0)
    assert (await waits(database, dataset), await waits(database, dataset, tries=1)) == ([], [one])
    again = await made(database)
    await put(database, again, one)
    async with database.transaction() as tx:
        assert await media.return_files(tx, again, [one], error="second") == (0, 1)
    assert tuple(await psql.fetchrow(STATE, one)) == (OLD, None, OLD, "second", None, 2)
    # another file begins afresh
    await taken(database, dataset, picture("a", NEW))
    assert await waits(database, dataset) == [one]


async def test_a_file_that_is_let_go_is_as_it_was(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    one, two = await taken(database, dataset, picture("a"), picture("b"))
    await put(database, job, one)
    async with database.transaction() as tx:
        assert await media.release(tx, job, [one, two]) == 1
    assert await waits(database, dataset) == [one, two]


async def test_a_file_found_changed_on_disk_waits_as_what_it_is_unless_that_is_described(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    (one,) = await taken(database, dataset, picture("a"))
    async with database.transaction() as tx:
        await media.mark_described(tx, [one])
        await media.replace_file(
            tx, WaitingFile(one, "/p/a.png", "image/png", OLD), Media("/p/a.png", "image/jpeg", 7, NEW)
        )
        assert not await media.lock_free(tx, one, OLD)
        assert await media.lock_free(tx, one, NEW)
        await media.replace_file(
            tx, WaitingFile(one, "/p/a.png", "image/png", NEW), Media("/p/a.png", "image/png", 3, OLD)
        )
        assert not await media.lock_free(tx, one, OLD)
    assert await waits(database, dataset) == []


async def test_a_text_that_is_being_written_while_an_answer_comes_is_left_alone(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    (one,) = await taken(database, dataset, picture("a"))
    await put(database, job, one)
    found = await asked(database, job, [one])

    async def answered() -> set[int]:
        async with database.transaction() as tx:
            return await media.lock_undescribed(tx, found)

    writing = psql.transaction()
    await writing.start()
    await psql.execute("UPDATE documents SET format = 'plain' WHERE id = $1", one)
    answer = asyncio.create_task(answered())
    async with asyncio.timeout(60):
        while not await psql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not answer.done()
    await writing.commit()
    assert await answer == set()


async def test_media_go_with_their_documents_and_outlive_their_jobs(
    database: Database, dataset: DatasetRef, psql: Any, job: UUID
) -> None:
    one, two = await taken(database, dataset, picture("a"), picture("b"))
    await put(database, job, one)
    await psql.execute("DELETE FROM documents WHERE id = $1", two)
    await psql.execute("DELETE FROM batch_jobs")
    assert [tuple(row) for row in await psql.fetch("SELECT document_id, job_id FROM media")] == [(one, None)]


async def test_answers_and_what_waits_are_looked_up_in_indexes(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await psql.execute(
        "WITH d AS (INSERT INTO documents (dataset_id, uri, format) SELECT $1, n::text, 'image' "
        "FROM generate_series(1, 20000) n RETURNING id, dataset_id, uri) "
        "INSERT INTO media (document_id, dataset_id, path, media_type, bytes, content_hash, described_hash) "
        "SELECT id, dataset_id, uri, 'image/png', 1, sha256(uri::bytea), sha256(uri::bytea) FROM d",
        dataset.id,
    )
    async with database.transaction() as tx:
        small = await datasets.ensure(tx, "river", "small")
    await taken(database, small, picture("a"))
    jobs = [await made(database) for _ in range(5)]
    await psql.execute(
        "INSERT INTO batch_items (job_id, vector_id, key, content_hash) SELECT ($1::uuid[])[1 + n % 5], document_id, "
        "'document:' || document_id, content_hash FROM (SELECT m.*, row_number() OVER () AS n FROM media m) m",
        jobs,
    )
    await psql.execute("ANALYZE documents; ANALYZE media; ANALYZE batch_items; ANALYZE datasets")
    keys = [f"document:{n}" for n in range(1, 50)]
    for plan in await plans(psql, media.REQUESTED, jobs[0], keys):
        assert "batch_items_job_id_key_idx" in plan, plan
        assert "Seq Scan on media" not in plan, plan
        assert "Seq Scan on documents" not in plan, plan
    plan = (await plans(psql, f"SELECT 1 FROM media m WHERE m.dataset_id = $1 AND {media.CLAIMABLE_FILES}", small.id))[
        0
    ]
    assert "media_dataset_id_idx" in plan, plan
