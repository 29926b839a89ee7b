"""What the OpenAI embedder sends, and on which rung of the ladder every answer of a server lands."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import web

from evervec.embedders.openai.embedder import OpenAIEmbedder
from evervec.errors import ConfigError, ProviderError, RateLimitedError
from evervec.vendors.http import Deadlines
from evervec.vendors.openai.client import address
from evervec.vendors.openai.refusals import refusal_error
from tests.fakes import FakeProvider, Fault, expected_vectors

MODEL = "text-embedding-3-small"
KEY = "sk-canary-5d1f"
IMPATIENT = Deadlines(connect=0.3, silence=0.3, total=0.3)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32, api_key=KEY) as running:
        yield running


@pytest.fixture
async def embedder(fake: FakeProvider) -> AsyncIterator[OpenAIEmbedder]:
    opened = OpenAIEmbedder(MODEL, api_key=KEY, base_url=fake.url, max_bytes=8 << 20)
    yield opened
    await opened.aclose()


@asynccontextmanager
async def scripted(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], **how: Any) -> AsyncIterator[Any]:
    """Yield an embedder whose server answers as no healthy one does."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    embedder = OpenAIEmbedder(MODEL, api_key=KEY, base_url=f"http://127.0.0.1:{runner.addresses[0][1]}", **how)
    try:
        yield embedder
    finally:
        await embedder.aclose()
        await runner.cleanup()


def saying(document: Any, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Run a server that always answers the same."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")

    return answer


async def refused(embedder: OpenAIEmbedder, *texts: str) -> ProviderError:
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(list(texts) or ["one", "two", "three"])
    assert KEY not in f"{problem.value} {problem.value.detail} {problem.value.__cause__}"
    return problem.value


async def test_a_batch_is_one_request_for_plain_numbers(fake: FakeProvider, embedder: OpenAIEmbedder) -> None:
    texts = [f"text {number}" for number in range(64)]
    vectors = await embedder.embed(texts)
    assert np.array_equal(vectors, expected_vectors(MODEL, texts, 32))
    assert [request.texts for request in fake.requests] == [tuple(texts)]
    assert orjson.loads(fake.requests[0].body) == {"model": MODEL, "input": texts, "encoding_format": "float"}


async def test_dimensions_are_asked_for(fake: FakeProvider) -> None:
    embedder = OpenAIEmbedder(MODEL, api_key=KEY, base_url=fake.url, dimensions=8)
    assert (await embedder.probe()).dimensions == 8
    assert np.array_equal(await embedder.embed(["x"]), expected_vectors(MODEL, ["x"], 8))
    await embedder.aclose()


async def test_a_server_that_ignores_dimensions_gives_the_width_that_came() -> None:
    async with scripted(saying({"data": [{"embedding": [0.5] * 7}]}), dimensions=3) as embedder:
        assert (await embedder.embed(["x"])).shape == (1, 7)


RUNGS = {
    Fault.BUSY_503: "transient",
    Fault.ERROR_500: "transient",
    Fault.BAD_GATEWAY_502: "transient",
    Fault.TIMEOUT_504: "transient",
    Fault.RESET: "transient",
    Fault.RESET_MID_BODY: "transient",
    Fault.LOST_ANSWER: "transient",
    Fault.DONE_BUT_500: "transient",
    Fault.RATE_LIMITED_429: "rate_limited",
    Fault.QUOTA_429: "quota_exhausted",
    Fault.UNAUTHORIZED_401: "auth",
    Fault.FORBIDDEN_403: "auth",
    Fault.NO_MODEL_404: "config",
    Fault.REDIRECT_302: "config",
    Fault.BAD_REQUEST_400: "bad_input",
    Fault.TOO_LONG_400: "too_large",
    Fault.TOO_LARGE_413: "too_large",
    Fault.HTML_200: "bad_response",
    Fault.EMPTY_200: "bad_response",
    Fault.TRUNCATED_JSON: "bad_response",
    Fault.NOT_AN_OBJECT: "bad_response",
    Fault.NOT_A_LIST: "bad_response",
    Fault.HUGE_BODY: "bad_response",
    Fault.SHORT_LIST: "bad_response",
    Fault.EXTRA: "bad_response",
    Fault.RAGGED: "bad_response",
    Fault.NULL: "bad_response",
    Fault.STRINGS: "bad_response",
}


@pytest.mark.parametrize(("fault", "code"), RUNGS.items(), ids=RUNGS)
async def test_every_failure_has_its_rung_is_not_repeated_and_the_next_call_works(
    fake: FakeProvider, embedder: OpenAIEmbedder, fault: Fault, code: str
) -> None:
    fake.fail_next(1, fault)
    problem = await refused(embedder)
    assert problem.code == code
    assert "openai" in str(problem)
    assert len(fake.requests) == 1
    assert len(await embedder.embed(["after the storm"])) == 1
    assert len(fake.requests) == 2


SUSPECT = {
    Fault.WRONG_DIMS: lambda v: v.shape == (3, 31),
    Fault.NAN: lambda v: np.isnan(v[0, 0]),
    Fault.INFINITY: lambda v: np.isinf(v[0, 0]),
    Fault.OVERFLOW: lambda v: np.isinf(v[0, 0]),
    Fault.ZERO_VECTOR: lambda v: not v[0].any(),
    Fault.IDENTICAL: lambda v: np.array_equal(v[0], v[2]),
}


@pytest.mark.parametrize(("fault", "seen"), SUSPECT.items(), ids=SUSPECT)
async def test_numbers_that_can_not_be_right_reach_the_gate_as_they_came(
    fake: FakeProvider, embedder: OpenAIEmbedder, fault: Fault, seen: Any
) -> None:
    fake.fail_next(1, fault)
    vectors = await embedder.embed(["one", "two", "three"])
    assert vectors.dtype == np.float32
    assert seen(vectors)


@pytest.mark.parametrize("places", [(2, 0, 1), (None, None, None)])
async def test_vectors_are_ordered_by_their_places_where_they_have_them(places: tuple[int | None, ...]) -> None:
    rows = [{"embedding": [float(at if at is not None else n)], "index": at} for n, at in enumerate(places)]
    async with scripted(saying({"data": rows})) as embedder:
        assert (await embedder.embed(["a", "b", "c"])).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("places", [(0, 0, 1), (1, 2, 3), (0, 2, None), (-1, 0, 1), ("0", "1", "2"), (0, 1), ()])
async def test_places_that_leave_a_text_without_its_vector_are_no_answer(places: tuple[Any, ...]) -> None:
    async with scripted(saying({"data": [{"embedding": [1.0], "index": at} for at in places]})) as embedder:
        assert (await refused(embedder)).code == "bad_response"


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_MID_BODY])
async def test_a_server_that_stalls_is_left_at_the_deadline(fake: FakeProvider, fault: Fault) -> None:
    embedder = OpenAIEmbedder(MODEL, api_key=KEY, base_url=fake.url, deadlines=IMPATIENT)
    fake.fail_next(1, fault)
    async with asyncio.timeout(60):
        assert (await refused(embedder)).code == "transient"
    await embedder.aclose()


async def test_an_answer_that_trickles_is_left_at_the_deadline_of_the_whole() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    async with asyncio.timeout(60), scripted(trickle, deadlines=Deadlines(total=0.3)) as embedder:
        assert "0.3 s" in (await refused(embedder)).detail


async def test_a_refusal_without_end_is_read_only_as_far_as_it_says_something() -> None:
    async def rant(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"no " * 10_000)

    async with asyncio.timeout(60), scripted(rant) as embedder:
        problem = await refused(embedder)
        assert problem.code == "transient"
        assert "no no" in problem.detail


async def test_an_answer_without_end_is_left_at_the_cap(fake: FakeProvider, embedder: OpenAIEmbedder) -> None:
    fake.fail_next(1, Fault.HUGE_BODY)
    assert "longer than 8,388,608 bytes" in (await refused(embedder)).detail


@pytest.mark.parametrize("word", ["Incorrect API key provided: {}.", "<html>{}</html>"])
async def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(word: str) -> None:
    said = word.format(KEY)
    async with scripted(saying({"error": {"message": said}} if "API" in word else said, 401)) as embedder:
        problem = await refused(embedder)
        assert problem.code == "auth"
        assert "***" in problem.detail


async def test_nothing_of_the_environment_is_sent_or_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Ours: from-the-environment\nAuthorization: from-the-environment")
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(dict(request.headers))
        return await saying({"data": [{"embedding": [1.0]}]})(request)

    async with scripted(answer) as embedder:
        assert len(await embedder.embed(["x"])) == 1
    assert seen[0]["Authorization"] == f"Bearer {KEY}"
    assert "from-the-environment" not in str(seen)


async def test_a_wrong_key_is_an_auth_error(fake: FakeProvider) -> None:
    stranger = OpenAIEmbedder(MODEL, api_key="wrong", base_url=fake.url)
    problem = await refused(stranger)
    assert problem.code == "auth"
    assert "providers add" in problem.detail
    await stranger.aclose()


async def test_a_lone_surrogate_is_refused_before_anything_is_sent(
    fake: FakeProvider, embedder: OpenAIEmbedder
) -> None:
    assert (await refused(embedder, "good", "bad \ud800")).code == "bad_input"
    assert fake.requests == []


async def test_a_missing_model_is_named(fake: FakeProvider, embedder: OpenAIEmbedder) -> None:
    fake.missing.add(MODEL)
    with pytest.raises(ConfigError, match=MODEL):
        await embedder.probe()


async def test_one_bad_text_fails_its_batch_and_only_its_batch(fake: FakeProvider, embedder: OpenAIEmbedder) -> None:
    assert (await refused(embedder, "good", "x" * 40_000)).code == "too_large"
    assert len(await embedder.embed(["good"])) == 1


async def test_more_than_a_request_may_hold_is_too_large(fake: FakeProvider, embedder: OpenAIEmbedder) -> None:
    assert (await refused(embedder, *["x"] * 2049)).code == "too_large"
    assert (await refused(embedder, *["word " * 5000] * 60)).code == "too_large"
    assert len(await embedder.embed(["x"] * embedder.limits.texts)) == 2048


@pytest.mark.parametrize(("model", "tokens"), [(MODEL, 8192), ("text-embedding-ada-002", 8192), ("bge-m3", None)])
async def test_only_the_own_models_have_a_known_length(fake: FakeProvider, model: str, tokens: int | None) -> None:
    embedder = OpenAIEmbedder(model, api_key=KEY, base_url=fake.url)
    found = await embedder.probe()
    assert (found.dimensions, found.text_tokens, embedder.limits.text_tokens) == (32, tokens, tokens)
    await embedder.aclose()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_leave_out_v1(fake: FakeProvider, ending: str) -> None:
    embedder = OpenAIEmbedder(MODEL, api_key=KEY, base_url=fake.url + ending)
    assert len(await embedder.embed(["x"])) == 1
    assert [request.endpoint for request in fake.requests] == ["/v1/embeddings"]
    await embedder.aclose()


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (None, "https://api.openai.com/v1"),
        ("https://host/v1beta/openai/", "https://host/v1beta/openai/"),
        ("http://host:8000/?api-version=1", "http://host:8000/v1?api-version=1"),
    ],
)
def test_a_path_is_used_as_it_is_given(given: str | None, chosen: str) -> None:
    assert address("openai", given) == chosen


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://", "host:80", "http://u:p@host", "http://h\r\nX: y", "http://a\u2025b"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ConfigError):
        OpenAIEmbedder(MODEL, api_key=KEY, base_url=url)


@pytest.mark.parametrize("key", ["", "two\nlines", "ключ", " blank", "\x00"])
def test_a_key_that_could_smuggle_a_header_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        OpenAIEmbedder(MODEL, api_key=key, base_url="http://127.0.0.1:1")


async def test_a_server_that_is_not_there_is_transient_and_named() -> None:
    with socket.socket() as taken:  # bound and not listening: refuses connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        embedder = OpenAIEmbedder(MODEL, api_key=KEY, base_url=url, deadlines=IMPATIENT)
        problem = await refused(embedder)
        assert problem.code == "transient"
        assert url in problem.detail
    await embedder.aclose()


async def test_closing_twice_does_no_harm(embedder: OpenAIEmbedder) -> None:
    await embedder.embed(["before"])
    await embedder.aclose()
    await embedder.aclose()


def said(message: str, code: str | None = None, **more: Any) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code, **more}})


WORDS = [
    (429, said("Rate limit reached", "rate_limit_exceeded"), "rate_limited"),
    (429, said("You exceeded your current quota", "insufficient_quota"), "quota_exhausted"),
    (429, said("You exceeded your current quota", None, type="insufficient_quota"), "quota_exhausted"),
    (400, said("Billing hard limit has been reached", "billing_hard_limit_reached"), "quota_exhausted"),
    (400, said("Requested 306153 tokens, max 300000 tokens per request", "max_tokens_per_request"), "too_large"),
    (400, said("Invalid 'input': array too long. Expected an array with maximum length 2048"), "too_large"),
    (422, b'{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}', "too_large"),
    (400, said("Invalid 'input[0]': maximum input length is 8192 tokens."), "too_large"),
    (422, b'{"detail":[{"msg":"value is not a valid list"}]}', "bad_input"),
    (400, said("This model does not support specifying dimensions."), "config"),
    (400, said("Invalid value", param="dimensions"), "config"),
    (400, b'[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key."}}]', "auth"),
    (404, said("The model `m-1` does not exist", "model_not_found"), "config"),
    (404, b'{"object":"error","message":"The model `m-1` does not exist."}', "config"),
    (404, b"<html>nginx</html>", "config"),
    (409, said("locked"), "transient"),
    (529, b"overloaded", "transient"),
]


@pytest.mark.parametrize(("status", "body", "code"), WORDS)
def test_words_of_the_api_and_of_compatible_servers_are_understood(status: int, body: bytes, code: str) -> None:
    assert refusal_error("openai", status, body, {}, model="m-1").code == code


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, "try again in 3s", 0.25),
        ({"retry-after": "9"}, "try again in 3s", 9),
        ({"retry-after-ms": "soon", "retry-after": "later"}, "Please try again in 11.054s.", 11.054),
        ({}, "Please try again in 6m0.5s. Visit", 360.5),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "Please try again in 1h2m", 3720),
        ({}, "Slow down.", 5),
        ({"retry-after": "1e12"}, "", 86_400),
    ],
)
def test_the_wait_is_what_the_headers_or_else_the_message_say(
    headers: dict[str, str], message: str, seconds: float
) -> None:
    problem = refusal_error("openai", 429, said(message), headers, model="m")
    assert isinstance(problem, RateLimitedError)
    assert problem.delay == pytest.approx(seconds)
