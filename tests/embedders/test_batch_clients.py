"""The one behaviour suite that every batch client passes, whatever provider stands behind it."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from evervec.domain.batch import BatchClient, Line, MediaLine, RemoteJob, RemoteState, remote_name
from evervec.domain.vendors import BATCH_TYPES
from evervec.errors import BadInputError, ConfigError, ResultsDeletedError, TransientError
from tests.embedders.batch_settings import (
    DIMS,
    KEY,
    LONG_AGO,
    MODEL,
    Call,
    Gathered,
    Setting,
    open_client,
    problem_of,
    right,
    setting,
)
from tests.fakes import Fault, expected_description, expected_vector

TEXTS = ["The job is stuck.", "Задача зависла.", "🎉🎉", "a  b\n\nc", "'; DROP TABLE--", *map(str, range(20))]


@pytest.fixture(params=BATCH_TYPES)
async def s(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setting]:
    async with setting(request.param, tmp_path) as opened:
        yield opened


async def test_a_job_goes_all_its_way_and_brings_the_right_vectors(s: Setting) -> None:
    intent = uuid4()
    created = await s.create(TEXTS, intent)
    assert (created.intent, created.state) == (intent, RemoteState.WAITING)
    running = await s.client.get_job_status(created.external_id)
    assert running.state is RemoteState.RUNNING
    assert running.intent == intent
    assert running.created_at is not None
    done = await s.finish(running)
    assert done.state is RemoteState.SUCCEEDED
    assert (done.total, done.succeeded, done.failed) == (len(TEXTS), len(TEXTS), 0)
    found = await s.gather(done)
    assert right(found, TEXTS)
    assert not found.errors
    assert s.fake.batches.texts_paid() == Counter(TEXTS)


async def test_results_are_matched_by_key_in_whatever_order_and_number_they_come(s: Setting) -> None:
    s.fake.batches.reverse = True
    s.fake.batches.duplicate_lines(lambda text: text == "7")
    s.fake.batches.drop_lines(lambda text: text == "8")
    s.fake.batches.unknown_lines(2)
    s.fake.batches.garbage_line = True
    found = await s.run(TEXTS)
    strangers = {f"nobody-sent-{number}" for number in range(2)}
    counts = Counter(found.keys)
    assert counts["k12"] == 2
    assert strangers < set(found.keys)
    assert found.garbled == 1
    for stranger in strangers:
        del found.vectors[stranger]
    assert right(found, TEXTS, [place for place in range(len(TEXTS)) if TEXTS[place] != "8"])


async def test_a_last_line_that_is_cut_is_counted_and_costs_no_other(s: Setting) -> None:
    s.fake.batches.cut_last_line = True
    found = await s.run(TEXTS)
    assert found.garbled == 1
    assert right(found, TEXTS, range(len(TEXTS) - 1))


async def test_vectors_that_are_none_are_errors_of_their_lines_and_odd_numbers_reach_the_gate(s: Setting) -> None:
    for text, how in (("1", "short"), ("2", "null"), ("3", "strings"), ("4", "nan"), ("5", "zero")):
        s.fake.batches.spoil_lines(text.__eq__, how)  # type: ignore[arg-type]  # the literals of the fake
    found = await s.run(TEXTS)
    assert {key: code for key, (code, _) in found.errors.items()} == dict.fromkeys(("k6", "k7", "k8"), "bad_response")
    assert np.isnan(found.vectors.pop("k9")).any()
    assert not found.vectors.pop("k10").any()
    assert right(found, TEXTS, [*range(6), *range(11, len(TEXTS))])


async def test_a_line_that_the_provider_refuses_is_an_error_of_its_key(s: Setting) -> None:
    s.fake.batches.fail_lines(lambda text: text == "7", "this text is too long")
    job = await s.finish(await s.create(TEXTS))
    assert (job.state, job.failed) == (RemoteState.SUCCEEDED, 1)
    found = await s.gather(job)
    assert {key: code for key, (code, _) in found.errors.items()} == {"k12": "too_large"}
    assert "this text is too long" in found.errors["k12"][1]
    assert len(found.vectors) == len(TEXTS) - 1


async def test_an_expired_job_gives_what_it_has(s: Setting) -> None:
    s.fake.batches.outcome = "expire"
    job = await s.finish(await s.create(TEXTS))
    assert job.state is RemoteState.EXPIRED
    found = await s.gather(job)
    done = {"gemini": 0, "openai": len(TEXTS) // 2}[s.type]
    assert right(found, TEXTS, range(done))
    undone = {f"k{place}" for place in range(done, len(TEXTS))}
    assert set(found.errors) == (undone if s.type == "openai" else set())
    assert {code for code, _ in found.errors.values()} <= {"expired"}


async def test_a_failed_job_says_why(s: Setting) -> None:
    s.fake.batches.outcome = "fail"
    job = await s.finish(await s.create(TEXTS))
    assert job.state is RemoteState.FAILED
    assert job.error
    assert not (await s.gather(job)).keys


async def test_a_job_is_cancelled_and_cancelling_it_again_or_a_stranger_is_no_error(s: Setting) -> None:
    job = await s.create(TEXTS)
    await s.client.cancel(job.external_id)
    over = await s.finish(job)
    assert over.state is RemoteState.CANCELLED
    await s.client.cancel(job.external_id)
    await s.client.cancel(job.external_id.replace("batch_", "batch_9"))
    await s.client.remove_job(job.external_id)
    await s.client.remove_job(job.external_id)
    assert not s.fake.batches.texts_paid()


async def test_a_state_of_tomorrow_is_unknown_and_told_in_its_own_word(s: Setting) -> None:
    s.fake.batches.outcome = "unknown_state"
    job = await s.create(TEXTS)
    for _ in range(3):
        job = await s.client.get_job_status(job.external_id)
    assert job.state is RemoteState.UNKNOWN
    assert "partially" in job.said.lower()


async def test_a_job_that_vanished_is_gone_and_results_that_vanished_say_so(s: Setting) -> None:
    s.fake.batches.next_outcomes.extend(["vanish", "results_vanish"])
    lost, emptied = await s.create(TEXTS), await s.create(TEXTS)
    assert (await s.client.get_job_status(lost.external_id)).state is RemoteState.GONE
    done = await s.finish(emptied)
    assert done.state is RemoteState.SUCCEEDED
    assert isinstance(await problem_of(s.gather(done)), ResultsDeletedError)


async def test_the_listing_finds_our_jobs_newest_first_and_none_that_is_older_or_a_strangers(s: Setting) -> None:
    file = await s.upload(TEXTS)
    intents = [uuid4() for _ in range(120)]
    for intent in intents:
        await s.client.create_embedding_job(intent, file)
    stranger, oldest = s.fake.batches.jobs[100], s.fake.batches.jobs[0]
    stranger.display_name, stranger.metadata = "somebody's own", {}
    oldest.created -= timedelta(days=1)
    since = s.fake.batches.jobs[1].created - timedelta(seconds=2)
    listed = [job.intent async for job in s.client.jobs(since)]
    assert listed == [intent for intent in reversed(intents[1:]) if intent != intents[100]]
    pages = s.fake.calls(s.wire.listed)
    assert [job async for job in s.client.jobs(since + timedelta(days=365))] == []
    assert s.fake.calls(s.wire.listed) == pages + 1


async def test_the_listing_of_files_shows_ours_until_they_are_removed(s: Setting) -> None:
    intent = uuid4()
    name = await s.upload(TEXTS, intent)
    await s.finish(await s.create(TEXTS))  # leaves a file of results, which is not ours
    listed = {file.name: file async for file in s.client.files()}
    assert listed[name].intent == intent
    assert listed[name].created_at is not None
    assert len(listed) == 2
    await s.client.remove_file(name)
    await s.client.remove_file(name)
    assert name not in [file.name async for file in s.client.files()]


async def test_a_file_that_an_earlier_try_left_is_taken_and_another_one_of_its_name_replaced(s: Setting) -> None:
    intent = uuid4()
    await s.upload(TEXTS, intent)
    await s.upload(TEXTS, intent)
    assert not s.fake.batches.deleted_files
    other = await s.upload([*TEXTS, "one more"], intent)
    assert len(s.fake.batches.deleted_files) == 1
    assert [file.intent async for file in s.client.files()] == [intent]
    job = await s.finish(await s.client.create_embedding_job(intent, other))
    assert right(await s.gather(job), [*TEXTS, "one more"])


LOST = [Fault.LOST_ANSWER, Fault.DONE_BUT_500, Fault.RESET_MID_BODY, Fault.TRUNCATED_JSON]
UNSURE = [*LOST, Fault.HTML_200, Fault.EMPTY_200, Fault.NOT_AN_OBJECT, Fault.RESET, Fault.BUSY_503, Fault.TIMEOUT_504]


@pytest.mark.parametrize("fault", UNSURE)
async def test_whether_a_job_was_made_is_never_guessed_and_never_tried_twice(s: Setting, fault: Fault) -> None:
    intent = uuid4()
    file = await s.upload(TEXTS, intent)
    s.fake.fail_next(1, fault, endpoint=s.wire.create)
    assert type(await problem_of(s.client.create_embedding_job(intent, file))) is TransientError
    assert s.fake.calls(s.wire.create) == 1
    assert len(s.fake.batches.jobs) == (fault in LOST)
    assert [job.intent async for job in s.client.jobs(LONG_AGO)] == [intent] * (fault in LOST)


async def test_whether_a_job_that_describes_was_made_is_not_guessed_either(s: Setting) -> None:
    s.fake.fail_next(1, Fault.HTML_200, endpoint=s.wire.describe)
    file = await s.upload(TEXTS)
    assert type(await problem_of(s.client.describe_media(uuid4(), file))) is TransientError


REFUSED = {
    Fault.RATE_LIMITED_429: "rate_limited",
    Fault.QUOTA_429: "quota_exhausted",
    Fault.UNAUTHORIZED_401: "auth",
    Fault.FORBIDDEN_403: "auth",
    Fault.NO_MODEL_404: "config",
    Fault.BAD_REQUEST_400: "bad_input",
    Fault.REDIRECT_302: "config",
}


@pytest.mark.parametrize(("fault", "code"), REFUSED.items(), ids=REFUSED)
async def test_a_refusal_says_that_no_job_was_made(s: Setting, fault: Fault, code: str) -> None:
    file = await s.upload(TEXTS)
    s.fake.fail_next(1, fault, endpoint=s.wire.create)
    assert (await problem_of(s.client.create_embedding_job(uuid4(), file))).code == code
    assert s.fake.calls(s.wire.create) == 1
    assert not s.fake.batches.jobs


async def test_a_model_without_batches_and_a_file_that_is_gone_are_no_maybe(s: Setting) -> None:
    file = await s.upload(TEXTS)
    await s.client.remove_file(file)
    assert (await problem_of(s.client.create_embedding_job(uuid4(), file))).code == "bad_input"
    assert not s.fake.batches.jobs


CALLS: dict[str, Call] = {
    "status": lambda client: client.get_job_status(_job(client).external_id),
    "jobs": lambda client: client.jobs(LONG_AGO),
    "results": lambda client: client.download_results(_job(client), lines=10, dimensions=DIMS),
    "cancel": lambda client: client.cancel(_job(client).external_id),
    "files": lambda client: client.files(),
    "file": lambda client: client.remove_file("files/evervec-1"),
}
FAULTS = {
    Fault.BUSY_503: "transient",
    Fault.RESET: "transient",
    Fault.RATE_LIMITED_429: "rate_limited",
    Fault.UNAUTHORIZED_401: "auth",
    Fault.REDIRECT_302: "config",
    Fault.HTML_200: "bad_response",
}


def _job(client: BatchClient) -> RemoteJob:
    known = {"gemini": ("batches/batch_1", "files/batch-1"), "openai": ("batch_1", "file-1")}[client.name]
    return RemoteJob(known[0], RemoteState.SUCCEEDED, "done", result_files=(known[1],))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("fault", "code"), FAULTS.items(), ids=FAULTS)
async def test_every_call_has_its_rungs_and_is_sent_once(s: Setting, call: Call, fault: Fault, code: str) -> None:
    s.fake.fail_next(1, fault, endpoint="v1")
    problem = await problem_of(call(s.client))
    assert problem.code == code
    assert s.client.name in str(problem)
    assert KEY not in str(problem)
    assert len(s.fake.requests) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_wrong_key_is_told_and_never_printed(s: Setting, call: Call) -> None:
    stranger = open_client(s.type, s.fake.url, key="a-wrong-secret")
    problem = await problem_of(call(stranger))
    assert problem.code == "auth"
    assert "a-wrong-secret" not in str(problem)
    await stranger.aclose()


@pytest.mark.parametrize("lines", [10, 3000])
async def test_a_download_that_breaks_gives_what_came_before(s: Setting, lines: int) -> None:
    texts = [f"text {number}" for number in range(2000)]
    job = await s.finish(await s.create(texts))
    s.fake.fail_next(1, Fault.RESET_MID_BODY, endpoint=s.wire.download)
    found = Gathered()
    assert type(await problem_of(s.gather(job, lines=lines, into=found))) is TransientError
    assert 0 < len(found.keys) < 2000
    assert right(found, texts, range(len(found.keys)))
    assert not found.garbled
    assert s.fake.calls(s.wire.download) == 1


@pytest.mark.timeout(900)  # every allocation is traced, which takes minutes where others work, too
async def test_results_stream_in_bounded_memory(s: Setting) -> None:
    texts = [f"text {number}" for number in range(20_000)]
    job = await s.finish(await s.create(texts))
    seen = 0
    tracemalloc.start()
    try:
        async for found in s.client.download_results(job, lines=500, dimensions=DIMS):
            assert found.vectors is not None
            seen += len(found.keys)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 20_000
    assert found.vectors is not None
    assert np.array_equal(found.vectors[-1], expected_vector(MODEL, texts[-1], DIMS))
    assert peak < 6_000_000


async def test_who_stops_reading_in_the_middle_leaves_nothing_open(s: Setting) -> None:
    job = await s.finish(await s.create([f"text {number}" for number in range(2000)]))
    results = s.client.download_results(job, lines=10, dimensions=DIMS)
    assert len((await anext(results)).keys) == 10
    await results.aclose()  # type: ignore[attr-defined]  # the protocol promises an iterator, these are generators
    async with asyncio.timeout(60):
        assert len((await s.gather(job)).keys) == 2000


async def test_pictures_and_sounds_are_described(s: Setting) -> None:
    media = [MediaLine("picture", "image/png", b"\x89PNG..."), MediaLine("sound", "audio/wav", b"RIFF....")]
    found = await s.gather(await s.describe(media), dimensions=None)
    assert found.texts == {line.key: expected_description(line.content) for line in media}


async def test_what_can_not_be_asked_is_refused_before_anything_is_sent(s: Setting) -> None:
    with pytest.raises(BadInputError, match="surrogate"):
        s.client.line(Line("k", "half \ud83d"))
    with pytest.raises(BadInputError, match="application/zip"):
        s.client.media_line(MediaLine("k", "application/zip", b"PK"))
    mute = open_client(s.type, s.fake.url, chat_model=None)
    with pytest.raises(ConfigError, match="model"):
        mute.media_line(MediaLine("k", "image/png", b""))
    await mute.aclose()
    assert not s.fake.requests


async def test_one_line_is_one_line_and_names_are_ours(s: Setting) -> None:
    line = s.client.line(Line("k", "two\nlines\u2028three"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert s.client.limits.rows == 50_000
    intent = uuid4()
    await s.upload(["x"], intent)
    (file,) = s.fake.batches.files.values()
    assert remote_name(intent) in (file.id, file.filename.removesuffix(".jsonl"))


async def test_closing_twice_does_no_harm(s: Setting) -> None:
    await s.upload(["before"])
    await s.client.aclose()
    await s.client.aclose()
