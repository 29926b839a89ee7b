"""Pictures and sounds when things go wrong: files that change, go or are refused, jobs that fail, a process that dies."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from evervec import Document
from evervec.domain.batch import JobStatus
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.batch import batch_jobs, media
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from tests.fakes.faults import Fault
from tests.fakes.jobs import Outcome
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_description
from tests.pipeline.batch.batched import TYPES, assert_nothing_is_left, to_the_end
from tests.pipeline.batch.described import (
    CREATE,
    DESCRIBED,
    WAITING,
    bytes_of,
    describing,
    ingest,
    ingest_as,
    state,
    texts,
    written,
)

COUNTS = ("rows", "ready", "failed", "dropped", "returned")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(params=TYPES)
async def lane(bare: Resources, fake: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Resources]:
    """Add a provider with a batch API and a chat model, of each type; a job that no list has is requested again at once."""
    async with describing(bare, fake, request.param, batch_grace_seconds=0) as resources:
        yield resources


async def counts(lane: Resources, external: str | UUID) -> tuple[int, ...]:
    """Return the `COUNTS` of a job, which add up."""
    stats = (await BatchManager(lane).get(str(external))).stats
    assert stats["rows"] == stats["ready"] + stats["failed"] + stats["dropped"] + stats["returned"]
    return tuple(stats[name] for name in COUNTS)


async def sent(lane: Resources, *paths: Path) -> UUID:
    """Take files in and send them in one job."""
    await ingest(lane, *paths)
    (job,) = (await BatchManager(lane).flush_queue()).jobs
    return job.id


# --- files ---------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_gone_or_no_picture_any_more_is_given_up_with_its_reason(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    gone, turned, good = (written(tmp_path, name) for name in ("gone.png", "turned.png", "good.png"))
    await ingest(lane, gone, turned, good)
    gone.unlink()
    turned.write_text("not a picture")
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.files, flushed.files_failed, flushed.files_waiting) == (1, 2, 0)
    found = await state(psql)
    assert found["gone"] == (False, True, f"{gone}: gone", False, 0)
    assert found["turned"][:2] == (False, True)
    assert found["turned"][2].startswith(f"{turned}: not what its name says (it begins with 6e 6f 74")
    await to_the_end(lane, psql)
    assert await texts(psql) == [expected_description(bytes_of("good.png"))]

    # nobody sends them again, until they are handed over again
    assert (await BatchManager(lane).flush_queue()).files_failed == 0
    written(tmp_path, "gone.png")
    assert (await ingest(lane, gone, good)).media == 1
    assert (await BatchManager(lane).flush_queue()).files == 1


async def test_where_nothing_can_be_sent_there_is_no_job(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    name = {"gemini": "a.gif", "openai": "a.flac"}[(await lane.provider()).type]
    await ingest(lane, written(tmp_path, name))
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.jobs, flushed.files_failed, fake.batches.jobs) == ([], 1, [])
    _, failed, error, held, _ = (await state(psql))["a"]
    assert (failed, held, name.rpartition(".")[2] in error) == (True, False, True)
    assert await psql.fetchval("SELECT count(*) FROM batch_jobs") == 0


async def test_a_file_that_changed_since_it_was_taken_in_is_sent_as_it_is_now(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    picture = written(tmp_path, "a.png", "old")
    await ingest(lane, picture)
    written(tmp_path, "a.png", "new")
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    assert await texts(psql) == [expected_description(bytes_of("a.png", "new"))]
    # known by now: nothing to do
    assert (await ingest(lane, picture)).documents_unchanged == 1


async def test_a_file_that_changes_while_its_job_runs_is_described_again(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png", "old"), written(tmp_path, "b.png"))
    await ingest(lane, written(tmp_path, "a.png", "new"))
    await to_the_end(lane, psql)
    assert await counts(lane, job) == (2, 1, 0, 1, 0)
    assert await state(psql) == {"a": WAITING, "b": DESCRIBED}
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    assert expected_description(bytes_of("a.png", "new")) in await texts(psql)
    assert expected_description(bytes_of("a.png", "old")) not in await texts(psql)


async def test_a_file_that_changes_back_takes_the_answer_that_it_was_sent_for(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png", "old"))
    await ingest(lane, written(tmp_path, "a.png", "new"))
    await ingest(lane, written(tmp_path, "a.png", "old"))
    await to_the_end(lane, psql)
    assert (await counts(lane, job), await state(psql)) == ((1, 1, 0, 0, 0), {"a": DESCRIBED})


async def test_a_document_that_is_deleted_while_its_job_runs_does_not_come_back(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"), written(tmp_path, "b.png"))
    await psql.execute("DELETE FROM documents WHERE title = 'a'")
    await to_the_end(lane, psql)
    assert await counts(lane, job) == (2, 1, 0, 1, 0)
    assert await state(psql) == {"b": DESCRIBED}
    assert await texts(psql) == [expected_description(bytes_of("b.png"))]


@pytest.mark.parametrize("polls", [1, 100])
async def test_a_dataset_that_is_deleted_while_its_job_runs_gets_nothing(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, polls: int
) -> None:
    fake.batches.polls = polls
    job = await sent(lane, written(tmp_path, "a.png"))
    async with lane.database.transaction() as tx:
        await datasets.remove(tx, dataset.id)
    await to_the_end(lane, psql)
    assert (await BatchManager(lane).get(str(job))).status is JobStatus.CANCELLED
    assert await texts(psql) == []
    await assert_nothing_is_left(psql, fake)


async def test_a_text_that_took_the_place_of_a_picture_is_left_alone(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"))
    await ingest_as(lane, [Document.from_text(Document.from_path(tmp_path / "a.png").uri, "A text.")])
    await to_the_end(lane, psql)
    assert (await counts(lane, job))[:2] == (1, 0)
    assert await texts(psql) == ["A text."]
    # the picture again: its description was never taken in
    assert (await ingest(lane, tmp_path / "a.png")).media == 1
    await BatchManager(lane).flush_queue()
    await to_the_end(lane, psql)
    assert await texts(psql) == [expected_description(bytes_of("a.png"))]


async def test_a_text_that_comes_between_an_answer_and_its_writing_is_left_alone(
    lane: Resources, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"))
    uri = Document.from_path(tmp_path / "a.png").uri
    still = media.lock_undescribed

    async def late(tx: Tx, given: Any) -> set[int]:
        await ingest_as(lane, [Document.from_text(uri, "A text.")])
        return await still(tx, given)

    monkeypatch.setattr(media, "lock_undescribed", late)
    await to_the_end(lane, psql)
    assert (await counts(lane, job), await texts(psql)) == ((1, 0, 0, 1, 0), ["A text."])


# --- answers -------------------------------------------------------------------------------------------------------


async def test_a_file_that_the_provider_refuses_is_given_up_with_its_words(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    bad = expected_description(bytes_of("bad.png"))
    fake.batches.fail_lines(lambda text: text == bad, "This picture is not for us.")
    job = await sent(lane, written(tmp_path, "bad.png"), written(tmp_path, "good.png"))
    seen = await to_the_end(lane, psql)
    assert (sum(one.ready for one in seen), sum(one.failed for one in seen)) == (1, 1)
    assert await counts(lane, job) == (2, 1, 1, 0, 0)
    found = await state(psql)
    assert (found["good"], found["bad"][:2]) == (DESCRIBED, (False, True))
    assert "This picture is not for us." in found["bad"][2]
    assert len(fake.batches.jobs) == 1


async def test_a_line_without_an_answer_is_sent_once_more_and_then_given_up(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    lost = expected_description(bytes_of("lost.png"))
    fake.batches.drop_lines(lambda text: text == lost)
    first = await sent(lane, written(tmp_path, "lost.png"), written(tmp_path, "good.png"))
    seen = await to_the_end(lane, psql)
    (again,) = [job for one in seen for job in one.again]
    assert (await counts(lane, first), await counts(lane, again.id)) == ((2, 1, 0, 0, 1), (1, 0, 1, 0, 0))
    assert [len(job.lines) for job in fake.batches.jobs] == [2, 1]
    error = "the provider's answer has no line for this row"
    assert await state(psql) == {"good": DESCRIBED, "lost": (False, True, error, False, 2)}
    await assert_nothing_is_left_but_the_queue(psql)


async def assert_nothing_is_left_but_the_queue(psql: Any) -> None:
    assert await psql.fetchval("SELECT count(*) FROM batch_items") == 0
    assert await psql.fetchval("SELECT count(*) FROM media WHERE job_id IS NOT NULL") == 0


@pytest.mark.parametrize("outcome", ["fail", "expire", "vanish", "results_vanish"])
async def test_a_job_that_comes_to_nothing_gives_its_files_back_and_they_are_described_by_the_next(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, outcome: Outcome
) -> None:
    fake.batches.next_outcomes.append(outcome)
    job = await sent(lane, written(tmp_path, "a.png"), written(tmp_path, "b.png"), written(tmp_path, "c.png"))
    await to_the_end(lane, psql)
    rows, ready, failed, dropped, _ = await counts(lane, job)
    assert (rows, failed, dropped, ready < 3) == (3, 0, 0, True)
    assert await state(psql) == dict.fromkeys("abc", DESCRIBED)
    await assert_nothing_is_left_but_the_queue(psql)


async def test_jobs_that_always_fail_end_with_a_reason_for_every_file(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    fake.batches.outcome = "fail"
    await sent(lane, written(tmp_path, "a.png"), written(tmp_path, "b.png"))
    seen = await to_the_end(lane, psql)
    assert sum(one.failed for one in seen) == 2
    for described, failed, error, held, tries in (await state(psql)).values():
        assert (described, failed, held, tries) == (False, True, False, 2)
        assert "The job came to its end: fail." in error
    # one job, and then jobs of half the size
    assert [len(job.lines) for job in fake.batches.jobs] == [2, 1, 1]


async def test_a_job_that_is_cancelled_leaves_its_files_as_they_were(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"))
    assert set((await state(psql)).values()) == {(False, False, None, True, 0)}
    cancelled = await BatchManager(lane).cancel(str(job))
    assert (cancelled.status, await state(psql)) == (JobStatus.CANCELLED, {"a": WAITING})
    assert await counts(lane, job) == (1, 0, 0, 0, 1)
    assert (await BatchManager(lane).flush_queue()).files == 1


async def test_a_job_that_is_not_done_by_its_deadline_gives_its_files_to_another(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    fake.batches.polls = 100
    job = await sent(lane, written(tmp_path, "a.png"))
    await psql.execute("UPDATE batch_jobs SET deadline = now() - interval '1 s'")
    (again,) = (await BatchManager(lane).check_and_sync()).again
    assert (await BatchManager(lane).get(str(job))).status is JobStatus.EXPIRED
    assert (await counts(lane, job), again.stats["rows"]) == ((1, 0, 0, 0, 1), 1)


async def test_a_provider_that_becomes_another_leaves_the_files_as_they_were(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"))
    await psql.execute("UPDATE llm_providers SET type = 'ollama'")
    await to_the_end(lane, psql)
    assert (await BatchManager(lane).get(str(job))).status is JobStatus.FAILED
    assert (await state(psql))["a"] == WAITING


async def test_a_provider_that_was_removed_leaves_the_files_as_they_were(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    job = await sent(lane, written(tmp_path, "a.png"))
    await psql.execute("UPDATE batch_jobs SET provider_id = NULL")
    await BatchManager(lane).check_and_sync()
    assert (await BatchManager(lane).get(str(job))).status is JobStatus.FAILED
    assert (await state(psql))["a"] == WAITING


# --- a process that dies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.DONE_BUT_500])
async def test_an_answer_that_is_lost_makes_no_second_job(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, fault: Fault
) -> None:
    fake.fail_next(1, fault, endpoint=CREATE[(await lane.provider()).type])
    await sent(lane, written(tmp_path, "a.png"))
    await to_the_end(lane, psql)
    assert [len(job.lines) for job in fake.batches.jobs] == [1]
    assert await state(psql) == {"a": DESCRIBED}


async def test_a_process_that_dies_before_it_stores_the_job_leaves_it_to_be_adopted(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(batch_jobs, "mark_submitted", _killed)
        with pytest.raises(Killed):
            await sent(lane, written(tmp_path, "a.png"), written(tmp_path, "b.png"))
    assert await psql.fetch("SELECT status, external_id FROM batch_jobs") == [("CREATED", None)]
    await to_the_end(lane, psql)
    assert len(fake.batches.jobs) == 1
    assert await state(psql) == {"a": DESCRIBED, "b": DESCRIBED}


async def test_an_intent_that_was_never_sent_goes_on_with_the_files_as_they_are_by_then(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("same.png", "gone.png", "changed.png", "taken.png", "deleted.png")
    with monkeypatch.context() as patch:
        patch.setattr(batch_jobs, "mark_uploaded", _killed)
        with pytest.raises(Killed):
            await sent(lane, *(written(tmp_path, name) for name in names))
    (tmp_path / "gone.png").unlink()
    written(tmp_path, "changed.png", "new")
    await ingest(lane, written(tmp_path, "taken.png", "new"))
    await psql.execute("DELETE FROM documents WHERE title = 'deleted'")
    job = await psql.fetchval("SELECT id FROM batch_jobs")
    await to_the_end(lane, psql)
    assert await counts(lane, job) == (5, 1, 1, 3, 0)
    assert [len(one.lines) for one in fake.batches.jobs] == [1]
    found = await state(psql)
    assert (found["same"], found["changed"], found["taken"]) == (DESCRIBED, WAITING, WAITING)
    assert found["gone"][1:3] == (True, f"{tmp_path / 'gone.png'}: gone")
    assert (await BatchManager(lane).flush_queue()).files == 2
    await to_the_end(lane, psql)
    assert expected_description(bytes_of("changed.png", "new")) in await texts(psql)


async def test_an_intent_of_which_nothing_is_left_is_cancelled(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(batch_jobs, "mark_uploaded", _killed)
        with pytest.raises(Killed):
            await sent(lane, written(tmp_path, "a.png"))
    (tmp_path / "a.png").unlink()
    await to_the_end(lane, psql)
    assert await psql.fetchval("SELECT status FROM batch_jobs") == "CANCELLED"
    assert fake.batches.jobs == []


async def test_a_process_that_dies_in_the_middle_of_a_description_leaves_all_or_nothing_of_it(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sent(lane, written(tmp_path, "a.png"))
    fake.batches.polls = 0
    with monkeypatch.context() as patch:
        patch.setattr(media, "mark_described", _killed)
        with pytest.raises(Killed):
            await BatchManager(lane).check_and_sync()
    assert await texts(psql) == []
    await to_the_end(lane, psql)
    assert (await texts(psql), len(fake.batches.jobs)) == ([expected_description(bytes_of("a.png"))], 1)


async def _killed(*_: object, **__: object) -> None:
    raise Killed
