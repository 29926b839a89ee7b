"""The fake speaks OpenAI: the real SDK and a plain HTTP client are served, and every wish of a test is granted."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import numpy as np
import openai
import orjson
import pytest

from tests.fakes import FakeProvider, Fault, expected_description, expected_vector

MODEL = "text-embedding-3-small"
TEXTS = [f"text {number}" for number in range(6)]
EMBEDDINGS: Final = "/v1/embeddings"
CHAT: Final = "/v1/chat/completions"


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32, api_key="right") as provider:
        yield provider


@pytest.fixture
async def http(fake: FakeProvider) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(fake.url, headers={"Authorization": "Bearer right"}) as session:
        yield session


@pytest.fixture
async def sdk(fake: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="right", base_url=f"{fake.url}/v1", max_retries=0) as client:
        yield client


def line(key: str, body: dict[str, Any], url: str = EMBEDDINGS) -> bytes:
    return orjson.dumps({"custom_id": key, "method": "POST", "url": url, "body": {"model": MODEL} | body}) + b"\n"


def lines(texts: list[str]) -> bytes:
    return b"".join(line(f"k{n}", {"input": text, "dimensions": 8}) for n, text in enumerate(texts))


async def upload(sdk: openai.AsyncOpenAI, data: bytes) -> str:
    return (await sdk.files.create(file=("texts.jsonl", data), purpose="batch")).id


async def create(sdk: openai.AsyncOpenAI, data: bytes, endpoint: Any = EMBEDDINGS, intent: str = "1") -> Any:
    file = await upload(sdk, data)
    return await sdk.batches.create(
        input_file_id=file, endpoint=endpoint, completion_window="24h", metadata={"intent_id": intent}
    )


async def read(sdk: openai.AsyncOpenAI, file: str) -> dict[str, Any]:
    body = (await sdk.files.content(file)).content
    return {found["custom_id"]: found for found in map(orjson.loads, body.splitlines())}


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_sdk_embeds_online_and_the_texts_are_counted(
    fake: FakeProvider, sdk: openai.AsyncOpenAI, encoding: Any
) -> None:
    answer = await sdk.embeddings.create(model=MODEL, input=["a", "b"], dimensions=16, encoding_format=encoding)
    assert [one.index for one in answer.data] == [0, 1]
    for text, one in zip(["a", "b"], answer.data, strict=True):
        given: Any = one.embedding
        vector = np.frombuffer(b64decode(given), np.float32) if encoding == "base64" else given
        assert np.array_equal(np.float32(vector), expected_vector(MODEL, text, 16))
    assert answer.usage.total_tokens == 2
    assert fake.texts_embedded() == {"a": 1, "b": 1}
    assert (await sdk.models.retrieve("some/model:v1")).id == "some/model:v1"


async def test_what_openai_refuses_is_refused(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    for wrong, word in (
        (["x"] * 2049, "array too long"),
        (["x", ""], "input' is invalid"),
        (["x", "y" * 40_000], r"input\[1\]"),
        (["x" * 30_000] * 41, "max 300000 tokens"),
    ):
        with pytest.raises(openai.BadRequestError, match=word):
            await sdk.embeddings.create(model=MODEL, input=wrong)
    fake.missing.add(MODEL)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await sdk.models.retrieve(MODEL)
    with pytest.raises(openai.AuthenticationError) as raised:
        await sdk.with_options(api_key="wrong").embeddings.create(model=MODEL, input="x")
    assert raised.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("fault", "problem", "code"),
    [
        (Fault.BUSY_503, openai.InternalServerError, None),
        (Fault.RATE_LIMITED_429, openai.RateLimitError, "rate_limit_exceeded"),
        (Fault.QUOTA_429, openai.RateLimitError, "insufficient_quota"),
        (Fault.LOST_ANSWER, openai.APIConnectionError, None),
        (Fault.RESET, openai.APIConnectionError, None),
        (Fault.RESET_MID_BODY, openai.APIConnectionError, None),
    ],
)
async def test_faults_look_like_openais(
    fake: FakeProvider, sdk: openai.AsyncOpenAI, fault: Fault, problem: Any, code: str | None
) -> None:
    fake.fail_next(1, fault)
    with pytest.raises(problem) as raised:
        await sdk.embeddings.create(model=MODEL, input="x")
    assert getattr(raised.value, "code", None) == code
    assert fake.requests[-1].fault is fault
    assert (await sdk.embeddings.create(model=MODEL, input="x")).data
    assert fake.texts_sent() == {"x": 2}
    assert fake.texts_embedded() == {"x": 1}


async def test_vectors_are_spoiled_in_either_encoding(fake: FakeProvider, http: aiohttp.ClientSession) -> None:
    for encoding in ("float", "base64"):
        fake.fail_next(1, Fault.NAN)
        asked = {"model": MODEL, "input": ["x", "y"], "encoding_format": encoding}
        async with http.post(EMBEDDINGS, json=asked) as answer:
            first = (await answer.json())["data"][0]["embedding"]
        if encoding == "base64":
            first = np.frombuffer(b64decode(first), np.float32)
        assert np.isnan(first[0])
        assert not np.isnan(first[1])


async def test_the_sdk_takes_a_batch_from_upload_to_cleaning_up(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    created = await create(sdk, lines(TEXTS), intent="emb:7")
    assert (created.status, created.metadata) == ("validating", {"intent_id": "emb:7"})
    assert (await sdk.batches.retrieve(created.id)).status == "in_progress"
    job: Any = await sdk.batches.retrieve(created.id)
    assert (job.status, job.request_counts.completed, job.error_file_id) == ("completed", 6, None)
    found = await read(sdk, job.output_file_id)
    for number, text in enumerate(TEXTS):
        vector = found[f"k{number}"]["response"]["body"]["data"][0]["embedding"]
        assert np.array_equal(np.float32(vector), expected_vector(MODEL, text, 8))
    assert [file.purpose async for file in sdk.files.list()] == ["batch_output", "batch"]
    for file in (job.input_file_id, job.output_file_id):
        assert (await sdk.files.delete(file)).deleted
    assert not fake.batches.files
    assert fake.batches.texts_paid() == dict.fromkeys(TEXTS, 1)
    with pytest.raises(openai.NotFoundError):
        await sdk.files.content(job.output_file_id)


async def test_media_are_described_by_what_is_in_them(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    fake.batches.polls = 0
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(b'png').decode()}"}}
    sound = {"type": "input_audio", "input_audio": {"data": b64encode(b"wav").decode(), "format": "wav"}}
    data = b"".join(
        line(key, {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, part]}]}, CHAT)
        for key, part in (("p", picture), ("s", sound))
    )
    found = await read(sdk, (await create(sdk, data, CHAT)).output_file_id)
    for key, media in (("p", b"png"), ("s", b"wav")):
        message = found[key]["response"]["body"]["choices"][0]["message"]
        assert message["content"] == expected_description(media)


async def test_lines_that_fail_are_in_the_error_file(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    fake.batches.polls = 0
    fake.batches.fail_lines(lambda text: text == "text 1", "no luck")
    fake.batches.spoil_lines(lambda text: text == "text 2", "strings")
    fake.batches.spoil_lines(lambda text: text == "text 3", "zero")
    job = await create(sdk, lines([*TEXTS, "x" * 40_000]))
    assert (job.request_counts.completed, job.request_counts.failed) == (5, 2)
    wrong, right = await read(sdk, job.error_file_id), await read(sdk, job.output_file_id)
    assert wrong["k1"]["response"]["body"]["error"]["message"] == "no luck"
    assert "maximum input length" in wrong["k6"]["response"]["body"]["error"]["message"]
    assert [*right] == ["k0", "k2", "k3", "k4", "k5"]
    assert right["k2"]["response"]["body"]["data"][0]["embedding"][0] == "0.5"
    assert not any(right["k3"]["response"]["body"]["data"][0]["embedding"])


async def test_an_expired_job_has_finished_half_of_its_lines(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    fake.batches.wish(polls=0, outcome="expire")
    job = await create(sdk, lines(TEXTS))
    assert (job.status, job.request_counts.completed) == ("expired", 3)
    assert [*await read(sdk, job.output_file_id)] == ["k0", "k1", "k2"]
    wrong = await read(sdk, job.error_file_id)
    assert {key: one["error"]["code"] for key, one in wrong.items()} == dict.fromkeys(
        ["k3", "k4", "k5"], "batch_expired"
    )


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no line"),
        (b"{not json}\n", "Line 1"),
        (lines(["a"]) * 2, "repeats the key 'k0'"),
        (line("k", {"input": "a"}, CHAT), "the batch is for /v1/embeddings"),
    ],
)
async def test_a_file_that_is_wrong_makes_the_job_fail_and_costs_nothing(
    fake: FakeProvider, sdk: openai.AsyncOpenAI, data: bytes, word: str
) -> None:
    fake.batches.polls = 0
    job = await create(sdk, data)
    assert job.status == "failed"
    assert word in job.errors.data[0].message
    assert not fake.batches.texts_paid()


async def test_a_job_is_cancelled_in_two_steps(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    job = await create(sdk, lines(TEXTS))
    assert (await sdk.batches.cancel(job.id)).status == "cancelling"
    assert (await sdk.batches.retrieve(job.id)).status == "cancelled"
    assert not fake.batches.texts_paid()
    with pytest.raises(openai.ConflictError):
        await sdk.batches.cancel(job.id)


async def test_too_many_tokens_are_refused_at_once_or_by_the_job(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    fake.batches.most_tokens = 5
    with pytest.raises(openai.RateLimitError) as raised:
        await create(sdk, lines(TEXTS))
    assert raised.value.code == "token_limit_exceeded"
    fake.batches.wish(late_limits=True, polls=0)
    job = await create(sdk, lines(TEXTS))
    assert (job.status, job.errors.data[0].code) == ("failed", "token_limit_exceeded")
    assert not fake.batches.texts_paid()


async def test_jobs_and_files_are_listed_newest_first_page_by_page(fake: FakeProvider, sdk: openai.AsyncOpenAI) -> None:
    for number in range(5):
        await create(sdk, lines(TEXTS), intent=str(number))
    page = await sdk.batches.list(limit=2)
    assert page.has_more
    assert [job.metadata["intent_id"] async for job in page if job.metadata] == ["4", "3", "2", "1", "0"]
    assert len([file async for file in sdk.files.list(limit=2, purpose="batch")]) == 5
    assert fake.calls("GET /v1/batches") == 3
    assert fake.calls("POST /v1/batches") == 5
    assert fake.calls("/v1/batches") == 8


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.DONE_BUT_500])
async def test_a_job_and_a_file_are_there_although_nobody_hears_of_it(
    fake: FakeProvider, sdk: openai.AsyncOpenAI, fault: Fault
) -> None:
    fake.fail_next(1, fault, endpoint="POST /v1/files")
    with pytest.raises(openai.APIError):
        await upload(sdk, lines(TEXTS))
    assert len(fake.batches.files) == 1
    fake.fail_next(1, fault, endpoint="POST /v1/batches")
    with pytest.raises(openai.APIError):
        await create(sdk, lines(TEXTS), intent="lost")
    assert [job.metadata async for job in sdk.batches.list()] == [{"intent_id": "lost"}]


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.BUSY_503, Fault.HTML_200, Fault.REDIRECT_302])
async def test_nothing_is_done_for_a_fault_that_comes_before(
    fake: FakeProvider, sdk: openai.AsyncOpenAI, fault: Fault
) -> None:
    file = await upload(sdk, lines(TEXTS))
    fake.always(None, fault, endpoint="POST /v1/batches")
    try:
        await sdk.with_options(timeout=5).batches.create(
            input_file_id=file, endpoint=EMBEDDINGS, completion_window="24h"
        )
    except openai.APIError:
        assert fault is not Fault.HTML_200
    assert not fake.batches.jobs
