"""What only Gemini's batch API does: uploads in pieces, two spellings, its refusals, and lines as Google writes them."""

import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from evervec.domain.batch import Line, MediaLine, RemoteState, remote_name
from evervec.embedders.gemini import lines
from evervec.embedders.gemini.batch import GeminiBatchClient
from evervec.embedders.gemini.jobs import file_of, job_of, moment
from evervec.embedders.jsonl import ResultGroup
from evervec.errors import BadResponseError, ConfigError, TransientError
from evervec.vendors.gemini.client import GeminiClient
from evervec.vendors.gemini.refusals import GeminiRefusal, refusal_error
from evervec.vendors.http import Deadlines
from tests.embedders.batch_settings import KEY, MODEL, Setting, open_client, problem_of, right, setting
from tests.fakes import FakeProvider, Fault

TEXTS = ["one", "two", "three"]
BYTES = "POST /upload/v1beta/files/bytes"


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Setting]:
    async with setting("gemini", tmp_path) as opened:
        yield opened


async def test_a_file_goes_up_in_pieces_and_never_whole_into_memory(s: Setting) -> None:
    path, intent = s.folder / "large.jsonl", uuid4()
    block = b"x" * (1 << 20)
    with path.open("wb") as file:
        for _ in range(34):
            file.write(block)
    tracemalloc.start()
    try:
        name = await s.client.upload(intent, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert name == f"files/{remote_name(intent)}"
    assert s.fake.calls(BYTES) == 5
    assert len(s.fake.requests) == 6
    assert s.fake.batches.files[remote_name(intent)].size == 34 << 20
    assert peak < 16 << 20


async def test_a_file_of_the_same_name_and_size_is_told_apart_by_its_digest(s: Setting) -> None:
    intent = uuid4()
    await s.upload(["abc"], intent)
    await s.upload(["abd"], intent)
    assert s.fake.batches.deleted_files == [remote_name(intent)]
    job = await s.finish(await s.client.create_embedding_job(intent, f"files/{remote_name(intent)}"))
    assert right(await s.gather(job), ["abd"])


@pytest.mark.parametrize(("fault", "code"), [(Fault.RESET, "transient"), (Fault.BUSY_503, "transient")])
@pytest.mark.parametrize("endpoint", ["POST /upload/v1beta/files", BYTES])
async def test_an_upload_that_breaks_is_told_and_tried_once(s: Setting, endpoint: str, fault: Fault, code: str) -> None:
    s.fake.fail_next(1, fault, endpoint=endpoint)
    assert (await problem_of(s.upload(TEXTS))).code == code
    assert s.fake.calls(endpoint) == 1
    assert not s.fake.batches.files


async def test_an_upload_whose_end_is_no_json_is_a_bad_response(s: Setting) -> None:
    s.fake.fail_next(1, Fault.HTML_200, endpoint=BYTES)
    assert (await problem_of(s.upload(TEXTS))).code == "bad_response"


@pytest.mark.parametrize("given", ["https://elsewhere.example", "http://localhost:1/base", "http://127.0.0.1:1/base"])
async def test_an_upload_goes_to_no_other_host_than_the_key(given: str) -> None:
    client = GeminiClient("http://127.0.0.1:1/base", provider="gemini", api_key=KEY)
    assert client.path_of(f"{given}/upload/v1beta/files?upload_id=7") == "/upload/v1beta/files?upload_id=7"
    await client.aclose()


@pytest.mark.parametrize("spelling", ["BATCH_STATE", "JOB_STATE"])
@pytest.mark.parametrize("results_in", ["response", "metadata"])
async def test_both_spellings_and_both_places_of_the_results_are_understood(
    s: Setting, spelling: Any, results_in: Any
) -> None:
    s.fake.batches.spelling, s.fake.batches.results_in = spelling, results_in
    job = await s.finish(await s.create(TEXTS))
    assert job.said == f"{spelling}_SUCCEEDED"
    assert right(await s.gather(job), TEXTS)


async def test_the_second_address_of_the_results_is_asked_when_the_first_is_not_there(s: Setting) -> None:
    job = await s.finish(await s.create(TEXTS))
    s.fake.fail_next(1, Fault.NO_MODEL_404, endpoint="GET /download/*")
    assert right(await s.gather(job), TEXTS)
    assert s.fake.calls(":download") == 2


async def test_a_job_that_does_not_fit_any_more_is_refused_and_not_made(s: Setting) -> None:
    s.fake.batches.most_jobs = 1
    await s.create(TEXTS)
    file = await s.upload(TEXTS)
    assert (await problem_of(s.client.create_embedding_job(uuid4(), file))).code == "rate_limited"
    assert len(s.fake.batches.jobs) == 1


async def test_a_model_without_batches_is_a_config_error_that_names_it(s: Setting) -> None:
    s.fake.unbatched.add(MODEL)
    problem = await problem_of(s.create(TEXTS))
    assert isinstance(problem, ConfigError)
    assert MODEL in problem.detail


async def test_an_answer_to_create_that_does_not_come_in_time_leaves_it_open(s: Setting) -> None:
    deadlines = Deadlines(connect=1, silence=0.3, total=0.3)
    hasty = GeminiBatchClient(MODEL, api_key=KEY, base_url=s.fake.url, deadlines=deadlines)
    s.fake.fail_next(1, Fault.STALL, endpoint=s.wire.create)
    problem = await problem_of(hasty.create_embedding_job(uuid4(), await s.upload(TEXTS)))
    assert type(problem) is TransientError
    assert s.fake.calls(s.wire.create) == 1
    await hasty.aclose()


def test_who_only_batches_does_not_wait_for_googles_library() -> None:
    code = "import sys, evervec.embedders.gemini.batch; sys.exit('google.genai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with FakeProvider(api_key=KEY) as fake:
        stranger = open_client("gemini", fake.url, key="another")
        assert (await problem_of(stranger.get_job_status("batches/1"))).code == "auth"
        await stranger.aclose()


def test_a_line_asks_for_the_width_that_is_wanted() -> None:
    client = GeminiBatchClient(MODEL, api_key=KEY, dimensions=768)
    assert orjson.loads(client.line(Line("k", "text"))) == {
        "key": "k",
        "request": {"content": {"parts": [{"text": "text"}]}, "output_dimensionality": 768},
    }


def test_a_media_line_holds_the_media_and_the_kind_of_it() -> None:
    asked = orjson.loads(lines.media_line("gemini", MediaLine("k", "Image/PNG; q=1", b"abc")))
    (content,) = asked["request"]["contents"]
    assert content["parts"][0]["inline_data"] == {"mime_type": "image/png", "data": "YWJj"}
    assert "search" in content["parts"][1]["text"]


ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "grpc bad input": ({"error": {"code": 3, "message": "no"}}, "bad_input"),
    "http bad input": ({"error": {"code": 400, "message": "no"}}, "bad_input"),
    "grpc limit": ({"error": {"code": 8}}, "rate_limited"),
    "http limit": ({"error": {"code": 429}}, "rate_limited"),
    "grpc internal": ({"error": {"code": 13}}, "transient"),
    "http unavailable": ({"error": {"code": 503}}, "transient"),
    "an error inside": ({"response": {"error": {"code": 14, "message": "later"}}}, "transient"),
    "an unknown number": ({"error": {"code": 77}}, "bad_response"),
    "no number": ({"error": "just a word"}, "bad_response"),
    "nothing": ({}, "bad_response"),
    "no values": ({"response": {"embedding": {}}}, "bad_response"),
    "no object": ({"response": {"embedding": 7}}, "bad_response"),
    "nested": ({"response": {"embedding": {"values": [[1.0], [2.0]]}}}, "bad_response"),
    "ragged": ({"response": {"embedding": {"values": [[1.0], 2.0]}}}, "bad_response"),
    "a text": ({"response": {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}}, "bad_response"),
}


@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS)
def test_every_line_that_is_no_vector_is_an_error_with_a_rung(answer: dict[str, Any], code: str) -> None:
    group = ResultGroup(1, 2)
    lines.read({"key": "k"} | answer, group)
    assert group.full
    results = group.take()
    assert [(key, rung) for key, rung, _ in results.errors] == [("k", code)]
    assert results.errors[0][2]
    assert not results.keys


DESCRIPTIONS: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "parts": ({"parts": [{"text": "thinking", "thought": True}, {"text": "a "}, {"text": "cat"}]}, "STOP", None),
    "blocked": ({}, "SAFETY", "bad_input"),
    "silent": ({"parts": []}, "STOP", "bad_response"),
}


@pytest.mark.parametrize(("content", "finish", "code"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_is_what_the_model_wrote_and_not_what_it_thought(
    content: dict[str, Any], finish: str, code: str | None
) -> None:
    group = ResultGroup(1, None)
    response = {"candidates": [{"content": content, "finishReason": finish}]}
    lines.read({"key": "k", "response": response}, group)
    results = group.take()
    assert list(results.texts or []) == ([] if code else ["a cat"])
    assert [rung for _, rung, _ in results.errors] == ([code] if code else [])


def test_a_picture_that_is_blocked_before_is_bad_input() -> None:
    group = ResultGroup(1, None)
    lines.read({"key": "k", "response": {"promptFeedback": {"blockReason": "SAFETY"}}}, group)
    assert group.take().errors[0][1:] == ("bad_input", "the model does not describe this: SAFETY")


STATES = {
    "BATCH_STATE_PENDING": RemoteState.WAITING,
    "JOB_STATE_QUEUED": RemoteState.WAITING,
    "JOB_STATE_RUNNING": RemoteState.RUNNING,
    "JOB_STATE_CANCELLING": RemoteState.RUNNING,
    "BATCH_STATE_SUCCEEDED": RemoteState.SUCCEEDED,
    "JOB_STATE_FAILED": RemoteState.FAILED,
    "BATCH_STATE_CANCELLED": RemoteState.CANCELLED,
    "BATCH_STATE_EXPIRED": RemoteState.EXPIRED,
    "BATCH_STATE_PARTIALLY_SUCCEEDED": RemoteState.UNKNOWN,
    None: RemoteState.WAITING,
}


@pytest.mark.parametrize(("said", "state"), STATES.items())
def test_every_state_has_a_meaning(said: str | None, state: RemoteState) -> None:
    assert job_of("gemini", {"name": "batches/1", "metadata": {"state": said}}).state is state


def test_an_operation_that_only_has_an_error_has_failed() -> None:
    job = job_of("gemini", {"name": "batches/1", "done": True, "error": {"code": 3, "message": "why"}})
    assert (job.state, job.error) == (RemoteState.FAILED, "why")


@pytest.mark.parametrize("name", [None, 7, "batches/", "batches/../files/x", "batches/a?b", "jobs/1"])
def test_a_job_that_can_not_be_asked_for_again_is_a_bad_response(name: Any) -> None:
    with pytest.raises(BadResponseError):
        job_of("gemini", {"name": name})


def test_a_file_of_results_that_leads_astray_is_none() -> None:
    output = {"responsesFile": "files/../../secret"}
    assert not job_of("gemini", {"name": "batches/1", "response": output}).result_files
    assert file_of({"name": "//elsewhere/x"}) is None


def test_times_may_have_nine_digits_and_nonsense_is_none() -> None:
    found = moment("2026-11-21T10:00:00.123456789Z")
    assert found is not None
    assert found.microsecond == 123_456
    assert [moment(value) for value in ("soon", None, 7, "2026-11-21T10:00:00")] == [None] * 4


@pytest.mark.parametrize(
    ("status", "word", "message", "code"),
    [
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", "auth"),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "config"),
        (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.", "too_large"),
        (501, "UNIMPLEMENTED", "no", "config"),
        (409, "ABORTED", "again", "transient"),
    ],
)
def test_google_s_words_say_what_a_status_does_not(status: int, word: str, message: str, code: str) -> None:
    body = {"error": {"code": status, "status": word, "message": message, "details": ["odd", {"violations": 7}]}}
    response = httpx.Response(status, json=body, request=httpx.Request("GET", "http://h/v1beta/models/m"))
    assert refusal_error("gemini", GeminiRefusal.of(response, KEY)).code == code


@pytest.mark.parametrize(
    ("details", "headers", "message", "delay"),
    [
        ([{"@type": "RetryInfo", "retryDelay": "34.5s"}], {"retry-after": "7"}, "Please retry in 9s.", 34.5),
        ([], {"retry-after": "7"}, "Please retry in 9s.", 7),
        ([{"retryDelay": "soon"}], {}, "Please retry in 18.41s.", 18.41),
        ([], {}, "Slow down.", 5),
    ],
)
def test_the_delay_stands_in_the_details_or_the_header_or_the_words(
    details: list[Any], headers: dict[str, str], message: str, delay: float
) -> None:
    body = {"error": {"code": 429, "message": message, "details": details}}
    response = httpx.Response(429, json=body, headers=headers, request=httpx.Request("GET", "http://h/"))
    assert GeminiRefusal.of(response, KEY).delay == delay
