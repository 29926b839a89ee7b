"""What is OpenAI's own about its batch API: lines, files by name, states, two result files, and nothing sent twice."""

import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from evervec.domain.batch import Line, MediaLine, RemoteJob, RemoteState, remote_name
from evervec.embedders.jsonl import ResultGroup, parse
from evervec.embedders.media_prompt import PROMPT
from evervec.embedders.openai.batch import OpenAIBatchClient
from evervec.embedders.openai.lines import reader
from evervec.errors import (
    AuthError,
    BadInputError,
    BadResponseError,
    ConfigError,
    ProviderError,
    RateLimitedError,
    TransientError,
)
from evervec.vendors.http import Deadlines
from tests.fakes import FakeProvider, Fault

MODEL, KEY, DIMS = "text-embedding-3-small", "sk-canary-77aa", 24
CREATE = "POST /v1/batches"


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=DIMS, api_key=KEY) as running:
        yield running


@pytest.fixture
async def client(fake: FakeProvider) -> AsyncIterator[OpenAIBatchClient]:
    opened = OpenAIBatchClient(MODEL, api_key=KEY, base_url=fake.url, chat_model="looker")
    yield opened
    await opened.aclose()


def written(client: OpenAIBatchClient, folder: Path, *texts: str) -> Path:
    path = folder / f"{uuid4()}.jsonl"
    path.write_bytes(b"".join(client.line(Line(f"key-{text}", text)) for text in texts or ("one", "two")))
    return path


async def created(client: OpenAIBatchClient, folder: Path, *texts: str) -> RemoteJob:
    intent = uuid4()
    return await client.create_embedding_job(intent, await client.upload(intent, written(client, folder, *texts)))


async def settled(client: OpenAIBatchClient, job: RemoteJob, polls: int = 3) -> RemoteJob:
    for _ in range(polls):
        job = await client.get_job_status(job.external_id)
    return job


@asynccontextmanager
async def scripted(*routes: tuple[str, str, int, Any]) -> AsyncIterator[OpenAIBatchClient]:
    """Yield a client whose server answers (method, path, status, document) always the same."""

    def saying(status: int, document: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(document, status=status)

        return answer

    application = web.Application()
    for method, path, status, document in routes:
        application.router.add_route(method, path, saying(status, document))
    async with TestServer(application) as server:
        client = OpenAIBatchClient(MODEL, api_key=KEY, base_url=str(server.make_url("/")))
        yield client
        await client.aclose()


# --- lines --------------------------------------------------------------------------------------------------------


def test_a_line_asks_for_one_vector() -> None:
    client = OpenAIBatchClient(MODEL, api_key=KEY, dimensions=8)
    line = client.line(Line("k1", "naïve\ntext"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    body = {"model": MODEL, "input": ["naïve\ntext"], "encoding_format": "float", "dimensions": 8}
    assert orjson.loads(line) == {"custom_id": "k1", "method": "POST", "url": "/v1/embeddings", "body": body}


def test_a_line_without_dimensions_names_none(client: OpenAIBatchClient) -> None:
    assert "dimensions" not in orjson.loads(client.line(Line("k", "x")))["body"]


def test_a_lone_surrogate_is_bad_input(client: OpenAIBatchClient) -> None:
    with pytest.raises(BadInputError, match="surrogate"):
        client.line(Line("k", "bad \ud800"))


@pytest.mark.parametrize("media_type", ["image/png", "IMAGE/JPEG; q=1"])
def test_a_picture_travels_as_a_data_uri(client: OpenAIBatchClient, media_type: str) -> None:
    line = orjson.loads(client.media_line(MediaLine("k", media_type, b"PNG!")))
    [message] = line["body"]["messages"]
    kind = media_type.partition(";")[0].lower()
    url = f"data:{kind};base64,{b64encode(b'PNG!').decode()}"
    assert line["url"] == "/v1/chat/completions"
    assert line["body"]["model"] == "looker"
    assert message["content"] == [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(("media_type", "word"), [("audio/x-wav", "wav"), ("audio/mpeg", "mp3")])
def test_a_sound_travels_as_input_audio(client: OpenAIBatchClient, media_type: str, word: str) -> None:
    [message] = orjson.loads(client.media_line(MediaLine("k", media_type, b"RIFF")))["body"]["messages"]
    sound = {"data": b64encode(b"RIFF").decode(), "format": word}
    assert message["content"][1] == {"type": "input_audio", "input_audio": sound}


@pytest.mark.parametrize("media_type", ["video/mp4", "audio/ogg", "image/svg+xml", "", "png"])
def test_other_media_are_bad_input(client: OpenAIBatchClient, media_type: str) -> None:
    with pytest.raises(BadInputError, match="image/png"):
        client.media_line(MediaLine("k", media_type, b"x"))


def test_media_without_a_chat_model_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="chat model"):
        OpenAIBatchClient(MODEL, api_key=KEY).media_line(MediaLine("k", "image/png", b"x"))


OK = {"status_code": 200, "body": {"data": [{"embedding": [1.0, 2.0]}]}}
TWO = {"status_code": 200, "body": {"data": [{"embedding": [1.0, 2.0]}] * 2}}
ANSWERS: list[tuple[Any, Any, str | None]] = [
    (OK, None, None),
    (None, {"code": "batch_expired", "message": "too late"}, "expired"),
    (None, {"code": "batch_cancelled", "message": "stopped"}, "transient"),
    (None, {"code": "request_timeout"}, "transient"),
    (None, {"code": "something_new"}, "bad_response"),
    (None, None, "bad_response"),
    ("text", None, "bad_response"),
    ({"status_code": "200", "body": {}}, None, "bad_response"),
    ({"status_code": 200, "body": None}, None, "bad_response"),
    ({"status_code": 200, "body": {"data": []}}, None, "bad_response"),
    ({"status_code": 200, "body": {"data": [None]}}, None, "bad_response"),
    (TWO, None, "bad_response"),
    ({"status_code": 400, "body": {"error": {"message": "too long"}}}, None, "bad_input"),
    ({"status_code": 422, "body": "no"}, None, "bad_input"),
    ({"status_code": 429, "body": {"error": {"code": "rate_limit_exceeded"}}}, None, "rate_limited"),
    ({"status_code": 500, "body": {"error": {"message": 10**400}}}, None, "transient"),
    ({"status_code": 503}, None, "transient"),
]


@pytest.mark.parametrize(("response", "error", "code"), ANSWERS)
def test_every_kind_of_answered_line_has_its_code(response: Any, error: Any, code: str | None) -> None:
    group = ResultGroup(9, 2)
    reader("openai", MODEL, texts=False)({"custom_id": "k", "response": response, "error": error}, group)
    found = group.take()
    assert [(key, told) for key, told, _ in found.errors] == ([("k", code)] if code else [])
    assert list(found.keys) == ([] if code else ["k"])


@pytest.mark.parametrize("line", [b"{}", b'{"custom_id": 7}', b'{"custom_id": null, "response": {}}'])
def test_a_line_without_a_key_is_garbled(line: bytes) -> None:
    group = ResultGroup(9, 2)
    reader("openai", MODEL, texts=False)(parse(line) or {}, group)
    assert group.take().garbled == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"content": "A cat."}, None),
        ({"content": None, "refusal": "I can not"}, "bad_input"),
        ({"content": None}, "bad_response"),
        ({"content": " "}, "bad_response"),
        (None, "bad_response"),
    ],
)
def test_a_description_is_the_text_of_the_first_choice(message: Any, code: str | None) -> None:
    group = ResultGroup(9, None)
    body = {"choices": [{"message": message}]}
    reader("openai", "looker", texts=True)({"custom_id": "k", "response": {"status_code": 200, "body": body}}, group)
    found = group.take()
    assert [told for _, told, _ in found.errors] == ([code] if code else [])
    assert found.texts == ([] if code else ["A cat."])


# --- files --------------------------------------------------------------------------------------------------------


async def test_a_file_carries_the_intent_and_a_second_try_takes_it(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    intent, path = uuid4(), written(client, tmp_path)
    name = await client.upload(intent, path)
    assert fake.batches.files[name].filename == f"{remote_name(intent)}.jsonl"
    assert await client.upload(intent, path) == name
    assert fake.calls("POST /v1/files") == 1
    assert await client.upload(uuid4(), path) != name


async def test_a_file_of_another_size_is_replaced(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    intent = uuid4()
    old = await client.upload(intent, written(client, tmp_path, "one"))
    new = await client.upload(intent, written(client, tmp_path, "one", "two"))
    assert set(fake.batches.files) == {new}
    assert fake.batches.deleted_files == [old]


async def test_a_file_whose_answer_was_lost_is_found_behind_a_hundred_others(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    intent, path = uuid4(), written(client, tmp_path)
    fake.fail_next(1, Fault.LOST_ANSWER, endpoint="POST /v1/files")
    with pytest.raises(TransientError):
        await client.upload(intent, path)
    [lost] = fake.batches.files
    stranger = OpenAIBatchClient(MODEL, api_key=KEY, base_url=fake.url)
    for _ in range(101):
        _, incoming = fake.batches.receive({})
        fake.batches.store(incoming, None, protocol="openai", filename="theirs.jsonl")
    assert await stranger.upload(intent, path) == lost
    assert [file.name async for file in stranger.files()] == [lost]
    await stranger.aclose()


async def test_an_upload_is_streamed_from_disk(client: OpenAIBatchClient, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"x" * (64 << 20))
    tracemalloc.start()
    await client.upload(uuid4(), path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


async def test_an_upload_may_take_longer_than_an_answer(fake: FakeProvider, tmp_path: Path) -> None:
    hurried = OpenAIBatchClient(MODEL, api_key=KEY, base_url=fake.url, deadlines=Deadlines(total=0.4))
    fake.fail_next(1, Fault.SLOW_LOAD, endpoint="POST /v1/files", seconds=0.8)
    assert await hurried.upload(uuid4(), written(hurried, tmp_path)) in fake.batches.files
    fake.fail_next(1, Fault.SLOW_LOAD, endpoint="GET /v1/batches/*", seconds=0.8)
    with pytest.raises(TransientError, match=r"0\.4 s"):
        await hurried.get_job_status("batch_1")
    await hurried.aclose()


async def test_a_list_that_repeats_itself_is_no_answer() -> None:
    page = {"data": [{"id": "batch_1", "status": "completed"}], "has_more": True}
    async with scripted(("GET", "/v1/batches", 200, page)) as client:
        with pytest.raises(BadResponseError, match="repeats itself"):
            assert [job async for job in client.jobs(datetime.now(UTC))] == []


# --- jobs ---------------------------------------------------------------------------------------------------------


async def test_a_job_carries_its_intent(fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path) -> None:
    intent = uuid4()
    file = await client.upload(intent, written(client, tmp_path))
    job = await client.create_embedding_job(intent, file)
    assert (job.intent, job.input_file, job.state, job.total) == (intent, file, RemoteState.WAITING, 2)
    [request] = [r for r in fake.requests if r.endpoint == "/v1/batches"]
    assert orjson.loads(request.body) == {
        "input_file_id": file,
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "metadata": {"intent_id": str(intent)},
    }


UNSURE = {Fault.LOST_ANSWER: 1, Fault.DONE_BUT_500: 1, Fault.RESET_MID_BODY: 1, Fault.TRUNCATED_JSON: 1}
UNSURE |= {Fault.HTML_200: 0, Fault.EMPTY_200: 0, Fault.RESET: 0, Fault.STALL: 0, Fault.BUSY_503: 0}


@pytest.mark.parametrize(("fault", "jobs"), UNSURE.items(), ids=UNSURE)
async def test_a_job_that_may_exist_is_transient_sent_once_and_found_again(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path, fault: Fault, jobs: int
) -> None:
    hasty = OpenAIBatchClient(MODEL, api_key=KEY, base_url=fake.url, deadlines=Deadlines(silence=0.5))
    before, intent = datetime.now(UTC), uuid4()
    file = await client.upload(intent, written(client, tmp_path))
    fake.fail_next(1, fault, endpoint=CREATE)
    with pytest.raises(TransientError):
        await hasty.create_embedding_job(intent, file)
    assert fake.calls(CREATE) == 1
    assert [job.intent async for job in client.jobs(before)] == [intent] * jobs
    await hasty.aclose()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.RATE_LIMITED_429, RateLimitedError),
        (Fault.UNAUTHORIZED_401, AuthError),
        (Fault.REDIRECT_302, ConfigError),
        (Fault.BAD_REQUEST_400, BadInputError),
    ],
)
async def test_a_job_that_was_refused_is_not_transient(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path, fault: Fault, kind: type[ProviderError]
) -> None:
    fake.fail_next(1, fault, endpoint=CREATE)
    with pytest.raises(kind):
        await created(client, tmp_path)
    assert fake.calls(CREATE) == 1
    assert fake.batches.jobs == []


OUTCOMES = {
    "succeed": RemoteState.SUCCEEDED,
    "fail": RemoteState.FAILED,
    "expire": RemoteState.EXPIRED,
    "cancel": RemoteState.CANCELLED,
    "unknown_state": RemoteState.UNKNOWN,
    "vanish": RemoteState.GONE,
}


@pytest.mark.parametrize(("outcome", "state"), OUTCOMES.items(), ids=OUTCOMES)
async def test_every_state_has_its_word(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path, outcome: Any, state: RemoteState
) -> None:
    fake.batches.outcome = outcome
    job = await settled(client, await created(client, tmp_path))
    assert job.state is state
    assert job.said
    assert (job.error is not None) is (outcome in ("fail", "vanish"))


async def test_a_wrong_address_does_not_make_a_job_gone(fake: FakeProvider) -> None:
    lost = OpenAIBatchClient(MODEL, api_key=KEY, base_url=f"{fake.url}/elsewhere/v1")
    with pytest.raises(ConfigError):
        await lost.get_job_status("batch_1")
    await lost.aclose()


async def test_the_list_is_ours_newest_first_over_pages_and_ends_at_the_moment(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    file = await client.upload(uuid4(), written(client, tmp_path))
    intents = [uuid4() for _ in range(120)]
    for intent in intents:
        await client.create_embedding_job(intent, file)
    fake.batches.jobs[5].metadata = {"intent_id": "somebody else's"}
    fake.batches.jobs[6].metadata = {}
    fake.batches.jobs[3].created -= timedelta(hours=1)
    since = fake.batches.jobs[4].created  # with a fraction of a second, of which OpenAI tells nothing
    found = [job.intent async for job in client.jobs(since)]
    assert found == [*reversed(intents[7:]), intents[4]]
    assert fake.calls("GET /v1/batches") == 2


async def test_cancelling_is_asked_for_once_and_does_no_harm_later(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    fake.batches.polls = 5
    job = await created(client, tmp_path)
    await client.cancel(job.external_id)
    await client.cancel(job.external_id)
    assert (await settled(client, job)).state is RemoteState.CANCELLED
    await client.cancel(job.external_id)
    await client.cancel("batch_that_never_was")


@pytest.mark.parametrize("status", [400, 409])
async def test_a_job_that_is_being_cancelled_needs_no_second_word(status: int) -> None:
    refusal = ("POST", "/v1/batches/batch_1/cancel", status, {"error": {"message": "It is cancelling."}})
    async with scripted(
        refusal, ("GET", "/v1/batches/batch_1", 200, {"id": "batch_1", "status": "cancelling"})
    ) as client:
        await client.cancel("batch_1")


async def test_a_cancel_that_fails_says_so(fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path) -> None:
    fake.batches.polls = 5
    job = await created(client, tmp_path)
    fake.fail_next(1, Fault.BAD_REQUEST_400, endpoint="/v1/batches/*/cancel")
    with pytest.raises(BadInputError):
        await client.cancel(job.external_id)


async def test_a_job_can_not_be_forgotten_and_nothing_is_asked(fake: FakeProvider, client: OpenAIBatchClient) -> None:
    await client.remove_job("batch_1")
    assert fake.requests == []
