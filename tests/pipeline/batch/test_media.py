"""Pictures and sounds when all goes well: taken in without a request, described by a job, found by their description."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evervec import Document
from evervec.domain.batch import JobStatus, JobType
from evervec.errors import NoMediaModelError, Refused
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_description
from tests.pipeline.batch.batched import TYPES, add, assert_nothing_is_left, batched, limited, planted, to_the_end
from tests.pipeline.batch.described import (
    DESCRIBED,
    VECTOR_TEXTS,
    WAITING,
    bytes_of,
    describing,
    ingest,
    ingest_as,
    state,
    texts,
    written,
)
from tests.pipeline.indexing.indexed import ingest as indexed
from tests.pipeline.search.meaning import search


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API and a chat model, of each type."""
    async with describing(bare, fake, request.param) as resources:
        yield resources


async def test_a_picture_is_described_embedded_and_found_by_its_description(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    names = ["river_bank.png", "team-photo.jpg", "a song.wav"]
    before = len(fake.requests)
    taken = await ingest(lane, *(written(tmp_path, name) for name in names))
    assert (taken.documents, taken.media, taken.pending, len(fake.requests)) == (3, 3, 0, before)
    assert await state(psql) == dict.fromkeys(["river bank", "team photo", "a song"], WAITING)

    manager = BatchManager(lane)
    flushed = await manager.flush_queue()
    (job,) = flushed.jobs
    assert (flushed.files, flushed.files_waiting, flushed.files_failed, flushed.rows, flushed.reason) == (
        3,
        0,
        0,
        0,
        None,
    )
    assert (job.job_type, job.status, job.model) == (JobType.MEDIA_DESCRIPTION, JobStatus.SUBMITTED, "describer")
    assert (job.space_id, job.cost_usd, job.stats["rows"], job.stats["texts"]) == (None, None, 3, 3)

    (done,) = (await to_the_end(lane, psql))[-1].jobs
    assert done.status is JobStatus.COMPLETED
    assert {name: done.stats[name] for name in ("ready", "failed", "dropped", "returned", "strays")} == {
        "ready": 3, "failed": 0, "dropped": 0, "returned": 0, "strays": 0,
    }  # fmt: skip
    assert sorted(await texts(psql)) == sorted(expected_description(bytes_of(name)) for name in names)
    assert set((await state(psql)).values()) == {DESCRIBED}
    assert await psql.fetchval("SELECT count(*) FROM embed_work WHERE deferred") == 3

    flushed = await manager.flush_queue()
    assert (flushed.rows, flushed.files) == (3, 0)
    await to_the_end(lane, psql)
    await assert_nothing_is_left(psql, fake)
    asked = f"river bank\n\n{expected_description(bytes_of('river_bank.png'))}"
    assert asked in {row["vector_text"] for row in await psql.fetch(VECTOR_TEXTS)}
    (hit,) = (await search(lane, asked, k=1)).hits
    assert (hit.kind, hit.score > 0.999) == ("chunk", True)
    assert expected_description(bytes_of("river_bank.png")) in hit.text


async def test_the_same_file_again_changes_nothing(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    pictures = [written(tmp_path, "a.png"), written(tmp_path, "b.png")]
    await ingest(lane, *pictures)

    async def versions() -> list[Any]:
        return [await psql.fetch(f"SELECT {t}::text, xmin::text FROM {t} ORDER BY 1") for t in ("media", "documents")]

    before = await versions()
    taken = await ingest(lane, *pictures)
    assert (taken.documents, taken.documents_unchanged, taken.media) == (2, 2, 0)
    assert await versions() == before
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    before = await versions()
    assert (await ingest(lane, *pictures)).documents_unchanged == 2
    assert (await versions(), (await BatchManager(lane).flush_queue()).files) == (before, 0)
    assert len(fake.batches.jobs) == 2  # descriptions, and their vectors


async def test_the_old_description_stays_until_the_new_one_is_there(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    manager = BatchManager(lane)
    await ingest(lane, written(tmp_path, "a.png", "old"))
    await manager.flush_queue()
    await to_the_end(lane, psql)
    assert (await ingest(lane, written(tmp_path, "a.png", "new"))).media == 1
    assert await state(psql) == {"a": WAITING}
    await manager.flush_queue()
    assert await texts(psql) == [expected_description(bytes_of("a.png", "old"))]
    await to_the_end(lane, psql)
    assert await texts(psql) == [expected_description(bytes_of("a.png", "new"))]


async def test_equal_files_are_described_once_and_each_has_its_title(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    content = bytes_of("a.png")
    for name in ("one.png", "two.png", "three.png"):
        (tmp_path / name).write_bytes(content)
    await ingest(lane, *(tmp_path / name for name in ("one.png", "two.png", "three.png")))
    (job,) = (await BatchManager(lane).flush_queue()).jobs
    assert (job.stats["rows"], job.stats["texts"], len(fake.batches.jobs[0].lines)) == (3, 1, 1)
    await to_the_end(lane, psql)
    said = expected_description(content)
    assert {row[0] for row in await psql.fetch(VECTOR_TEXTS)} == {f"{t}\n\n{said}" for t in ("one", "two", "three")}


async def test_jobs_are_cut_by_files_and_by_bytes(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest(lane, *(written(tmp_path, f"{n}.png", "x" * 3000) for n in range(7)))
    manager = BatchManager(lane)
    plan = await manager.flush_queue(max_batch_size=3, dry_run=True)
    assert (plan.files, plan.files_waiting, plan.planned_jobs, plan.jobs, plan.rows) == (7, 7, 3, [], 0)
    assert fake.batches.jobs == []
    await limited(lane, monkeypatch, bytes=12_000)
    flushed = await manager.flush_queue(max_batch_size=5)
    # a line has about 4,500 bytes
    assert [job.stats["rows"] for job in flushed.jobs] == [2, 2, 2, 1]
    await to_the_end(lane, psql)
    assert sorted(await texts(psql)) == sorted(expected_description(bytes_of(f"{n}.png", "x" * 3000)) for n in range(7))


async def test_a_file_of_ten_megabytes_travels_and_one_that_is_more_than_a_job_travels_alone(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "a large one.png"
    large.write_bytes(bytes_of("a.png") + bytes(range(256)) * 40_000)
    await limited(lane, monkeypatch, bytes=1_000_000)
    await ingest(lane, written(tmp_path, "a small one.png"), large)
    flushed = await BatchManager(lane).flush_queue()
    assert [job.stats["rows"] for job in flushed.jobs] == [1, 1]
    await to_the_end(lane, psql)
    assert expected_description(large.read_bytes()) in await texts(psql)


async def test_rows_and_files_are_counted_apart(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    await planted(psql, dataset.id, [f"text {n}" for n in range(5)])
    await ingest(lane, written(tmp_path, "a.png"), written(tmp_path, "b.png"))
    manager = BatchManager(lane)
    flushed = await manager.flush_queue(min_batch_size=5)
    assert (flushed.rows, flushed.files, flushed.files_waiting) == (5, 0, 2)
    assert flushed.reason == "2 pictures and sounds wait, and a job has to have 5"
    await planted(psql, dataset.id, ["a text that is alone"])
    flushed = await manager.flush_queue(min_batch_size=2)
    assert (flushed.rows, flushed.files, flushed.waiting, flushed.files_waiting) == (0, 2, 1, 0)
    assert flushed.reason == "1 rows wait, and a job has to have 2"
    await to_the_end(lane, psql)
    assert [job.kind for job in fake.batches.jobs] == ["embed", "describe"]


async def test_texts_and_pictures_may_come_together(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    both = [Document.from_text("t:1", "A text."), Document.from_path(written(tmp_path, "a.png"))]
    taken = await ingest_as(lane, both)
    assert (taken.documents, taken.media, taken.chunks_new, taken.deferred) == (2, 1, 1, 1)
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, flushed.files, len(flushed.jobs)) == (1, 1, 2)


async def test_two_flushes_at_once_put_every_file_into_one_job(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    await ingest(lane, *(written(tmp_path, f"{n}.png") for n in range(40)))
    flushes = [BatchManager(lane).flush_queue(max_batch_size=10) for _ in range(3)]
    flushed = await asyncio.gather(*flushes)
    assert sum(one.files for one in flushed) == 40
    keys = [key for job in fake.batches.jobs for key, _ in job.lines]
    assert (len(keys), len(set(keys))) == (40, 40)
    await to_the_end(lane, psql)
    assert len(await texts(psql)) == 40


async def test_a_description_is_for_the_space_that_is_active_when_it_comes(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    await ingest(lane, written(tmp_path, "a.png"))
    await BatchManager(lane).flush_queue()
    await providers.add(lane, ProviderDraft("other", "ollama", base_url=fake.url, model="another"))
    await providers.use(lane, "other", reembed=True)
    synced = await to_the_end(lane, psql)
    assert sum(one.ready for one in synced) == 1
    assert await texts(psql) == [expected_description(bytes_of("a.png"))]
    # it waits for workers, and for no batch job
    assert await psql.fetchval("SELECT count(*) FROM embed_work") == 0
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE pending_id IS NOT NULL") == 1


# --- refused ---------------------------------------------------------------------------------------------------------


async def test_a_local_provider_describes_nothing_and_says_so(
    local: Resources, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    both = [Document.from_text("t:1", "A text."), Document.from_path(written(tmp_path, "a.png"))]
    with pytest.raises(NoMediaModelError, match="of type local has no model that describes them"):
        await ingest_as(local, both, mode="auto")
    assert await psql.fetchval("SELECT count(*) FROM documents") == 0


@pytest.mark.parametrize("type_", TYPES)
async def test_without_a_chat_model_nothing_is_taken_in_and_what_waits_goes_on_waiting(
    bare: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, type_: str
) -> None:
    async with batched(bare, fake, type_) as resources:
        with pytest.raises(NoMediaModelError, match=r"has no chat model\. .*--chat-model"):
            await ingest(resources, written(tmp_path, "a.png"))
        assert await psql.fetchval("SELECT count(*) FROM media") == 0
        await add(resources, fake, type_, chat_model="describer")
        await ingest(resources, *(written(tmp_path, f"{n}.png") for n in range(3)))
        await add(resources, fake, type_, chat_model=None)
        for dry_run in (True, False):
            flushed = await BatchManager(resources).flush_queue(dry_run=dry_run)
            assert (flushed.files_waiting, flushed.files, flushed.jobs) == (3, 0, [])
            wanted = f"3 pictures and sounds wait: provider '{type_}' has no chat model; add one with --chat-model"
            assert flushed.reason == wanted


async def test_nothing_is_described_at_once(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="nothing describes them at once"):
        await ingest(lane, written(tmp_path, "a.png"), mode="sync")
    assert await psql.fetchval("SELECT count(*) FROM documents") == 0
    assert (await ingest(lane, tmp_path / "a.png", mode="auto")).media == 1


async def test_a_full_rebuild_of_a_folder_leaves_its_pictures_alone(
    lane: Resources, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    (tmp_path / "old.md").write_text("An old page.")
    (tmp_path / "new.md").write_text("A new page.")
    await indexed(lane, tmp_path, dataset=dataset.slug, project=dataset.project)
    await ingest(lane, written(tmp_path, "river.png"))
    (tmp_path / "old.md").unlink()
    run = await indexed(lane, tmp_path, dataset=dataset.slug, project=dataset.project)
    assert run.counts.documents_deleted == 1
    assert await psql.fetchval("SELECT count(*) FROM media") == 1
    assert await psql.fetchval("SELECT count(*) FROM documents") == 2
