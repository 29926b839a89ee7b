"""What the Gemini embedder sends, and on which rung of the ladder every answer of a server lands."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest

from evervec.embedders.gemini.embedder import GeminiEmbedder
from evervec.errors import AuthError, ConfigError, ProviderError, QuotaExhaustedError, RateLimitedError
from evervec.vendors.gemini.refusals import next_reset
from evervec.vendors.http import Deadlines
from tests.fakes import FakeProvider, Fault, expected_vectors

IMPATIENT = Deadlines(connect=0.3, silence=0.3, total=0.3)
KEY = "the-key-that-is-a-secret"
EMBED = "/v1beta/models/fake-embed:batchEmbedContents"


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32) as running:
        yield running


@pytest.fixture
async def embedder(fake: FakeProvider) -> AsyncIterator[GeminiEmbedder]:
    opened = GeminiEmbedder("fake-embed", api_key=KEY, base_url=fake.url, max_bytes=8 << 20)
    yield opened
    await opened.aclose()


async def refused(embedder: GeminiEmbedder, *texts: str) -> ProviderError:
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(list(texts) or ["one", "two", "three"])
    assert KEY not in str(problem.value)
    return problem.value


@pytest.mark.parametrize("model", ["fake-embed", "models/fake-embed", "gemini-embedding-2"])
async def test_a_batch_is_one_request_in_which_each_text_has_a_content_of_its_own(
    fake: FakeProvider, model: str
) -> None:
    embedder = GeminiEmbedder(model, api_key=KEY, base_url=f"{fake.url}/v1beta/")
    texts = [f"text {number}" for number in range(100)]
    vectors = await embedder.embed(texts)
    bare = model.removeprefix("models/")
    assert np.array_equal(vectors, expected_vectors(bare, texts, 32))
    (request,) = fake.requests
    assert request.endpoint == f"/v1beta/models/{bare}:batchEmbedContents"
    asked = orjson.loads(request.body)["requests"]
    assert [part["content"]["parts"] for part in asked] == [[{"text": text}] for text in texts]
    assert not any("outputDimensionality" in part for part in asked)
    await embedder.aclose()


async def test_a_width_that_is_asked_for_is_sent_and_comes(fake: FakeProvider) -> None:
    embedder = GeminiEmbedder("fake-embed", api_key=KEY, base_url=fake.url, dimensions=12)
    assert (await embedder.probe()).dimensions == 12
    assert orjson.loads(fake.requests[-1].body)["requests"][0]["outputDimensionality"] == 12
    await embedder.aclose()


RUNGS = {
    Fault.BUSY_503: "transient",
    Fault.ERROR_500: "transient",
    Fault.BAD_GATEWAY_502: "transient",
    Fault.TIMEOUT_504: "transient",
    Fault.RESET: "transient",
    Fault.LOST_ANSWER: "transient",
    Fault.DONE_BUT_500: "transient",
    Fault.RESET_MID_BODY: "transient",
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
    Fault.RAGGED: "bad_response",
    Fault.NULL: "bad_response",
    Fault.STRINGS: "bad_response",
}


@pytest.mark.parametrize(("fault", "code"), RUNGS.items(), ids=RUNGS)
async def test_every_failure_has_its_rung_and_the_next_call_works(
    fake: FakeProvider, embedder: GeminiEmbedder, fault: Fault, code: str
) -> None:
    fake.fail_next(1, fault)
    problem = await refused(embedder)
    assert problem.code == code
    assert "gemini" in str(problem)
    assert len(fake.requests) == 1
    assert len(await embedder.embed(["after the storm"])) == 1
    assert fake.calls(EMBED) == 2


SUSPECT = {
    Fault.SHORT_LIST: lambda v: len(v) == 2,
    Fault.EXTRA: lambda v: len(v) == 4,
    Fault.WRONG_DIMS: lambda v: v.shape == (3, 31),
    Fault.NAN: lambda v: np.isnan(v[0, 0]),
    Fault.INFINITY: lambda v: np.isinf(v[0, 0]),
    Fault.OVERFLOW: lambda v: np.isinf(v[0, 0]),
    Fault.ZERO_VECTOR: lambda v: not v[0].any(),
    Fault.IDENTICAL: lambda v: np.array_equal(v[0], v[2]),
}


@pytest.mark.parametrize(("fault", "seen"), SUSPECT.items(), ids=SUSPECT)
async def test_numbers_that_can_not_be_right_reach_the_gate_as_they_came(
    fake: FakeProvider, embedder: GeminiEmbedder, fault: Fault, seen: Any
) -> None:
    fake.fail_next(1, fault)
    vectors = await embedder.embed(["one", "two", "three"])
    assert vectors.dtype == np.float32
    assert seen(vectors)


@pytest.mark.parametrize("deadlines", [Deadlines(silence=0.3), Deadlines(total=0.3)], ids=["piece", "total"])
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_MID_BODY])
async def test_a_server_that_stalls_is_left_at_the_deadline(
    fake: FakeProvider, fault: Fault, deadlines: Deadlines
) -> None:
    embedder = GeminiEmbedder("fake-embed", api_key=KEY, base_url=fake.url, deadlines=deadlines)
    fake.fail_next(1, fault)
    async with asyncio.timeout(60):
        assert (await refused(embedder)).code == "transient"
    await embedder.aclose()


@pytest.mark.parametrize(
    ("delay", "least", "most"), [("34", 34, 34), ("18.41", 18.41, 18.41), (None, 5, 5), ("1e12", 5, 86_400)]
)
async def test_the_delay_that_is_asked_for_is_obeyed(
    fake: FakeProvider, embedder: GeminiEmbedder, delay: str | None, least: float, most: float
) -> None:
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after=delay)
    problem = await refused(embedder)
    assert isinstance(problem, RateLimitedError)
    assert least <= problem.delay <= most


async def test_the_quota_of_a_day_lasts_until_the_next_midnight_in_california(
    fake: FakeProvider, embedder: GeminiEmbedder
) -> None:
    fake.fail_next(1, Fault.QUOTA_429)
    problem = await refused(embedder)
    assert isinstance(problem, QuotaExhaustedError)
    assert problem.until is not None
    assert problem.until > datetime.now(UTC)
    assert problem.until.minute == 0


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-15T07:59:00+00:00", "2026-01-15T08:00:00+00:00"),
        ("2026-01-15T08:00:00+00:00", "2026-01-16T08:00:00+00:00"),
        ("2026-07-15T12:00:00+00:00", "2026-07-16T07:00:00+00:00"),
        ("2026-03-08T09:00:00+00:00", "2026-03-09T07:00:00+00:00"),
    ],
)
def test_midnight_in_california_knows_summer_and_winter(now: str, until: str) -> None:
    assert next_reset(datetime.fromisoformat(now)) == datetime.fromisoformat(until)


async def test_the_probe_tells_width_and_longest_text(embedder: GeminiEmbedder) -> None:
    assert embedder.limits.text_tokens is None
    found = await embedder.probe()
    assert (found.dimensions, found.text_tokens) == (32, 2048)
    assert embedder.limits.text_tokens == 2048


async def test_a_server_that_does_not_show_its_models_is_probed_all_the_same(
    fake: FakeProvider, embedder: GeminiEmbedder
) -> None:
    fake.fail_next(1, Fault.NO_MODEL_404, endpoint="/v1beta/models/fake-embed")
    found = await embedder.probe()
    assert (found.dimensions, found.text_tokens) == (32, None)


async def test_a_model_that_is_not_there_is_named(fake: FakeProvider, embedder: GeminiEmbedder) -> None:
    fake.missing.add("fake-embed")
    assert "fake-embed" in (await refused(embedder)).detail
    with pytest.raises(ConfigError, match="'fake-embed' can not do this"):
        await embedder.probe()


async def test_a_probe_of_a_server_that_is_out_is_transient(fake: FakeProvider, embedder: GeminiEmbedder) -> None:
    fake.fail_next(1, Fault.BUSY_503, endpoint="/v1beta/models/fake-embed")
    with pytest.raises(ProviderError) as problem:
        await embedder.probe()
    assert problem.value.code == "transient"


async def test_a_server_that_is_not_there_is_transient_and_named() -> None:
    with socket.socket() as taken:  # bound and not listening: refuses connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        embedder = GeminiEmbedder("fake-embed", api_key=KEY, base_url=url, deadlines=IMPATIENT)
        problem = await refused(embedder)
        assert problem.code == "transient"
        assert url in problem.detail
    await embedder.aclose()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://", "host:11434", "http://u:p@host", "http://h:x"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ConfigError):
        GeminiEmbedder("fake-embed", api_key=KEY, base_url=url)


@pytest.mark.parametrize("key", ["two\nlines", "ключ", " blank", "\x00", ""])
def test_a_key_that_could_smuggle_a_header_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        GeminiEmbedder("fake-embed", api_key=key)


@pytest.mark.parametrize("model", ["", "a b", "../files", "m:embed", "m?key=1", "tunedModels/m", "models/"])
def test_a_model_that_could_change_the_address_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="is not a model's name"):
        GeminiEmbedder(model, api_key=KEY)


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    for name in ("HTTP_PROXY", "ALL_PROXY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    monkeypatch.setenv("GOOGLE_GENAI_CLIENT_MODE", "replay")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "somebody")
    async with FakeProvider(dims=8, api_key="right") as fake:
        good = GeminiEmbedder("fake-embed", api_key="right", base_url=fake.url)
        assert len(await good.embed(["x"])) == 1
        assert (await good.probe()).dimensions == 8
        wrong = GeminiEmbedder("fake-embed", api_key="wrong-secret", base_url=fake.url)
        problem = await refused(wrong)
        assert isinstance(problem, AuthError)
        assert "wrong-secret" not in str(problem)
        for embedder in (good, wrong):
            await embedder.aclose()


async def test_a_text_longer_than_the_model_takes_is_refused_by_the_server(
    fake: FakeProvider, embedder: GeminiEmbedder
) -> None:
    fake.always(lambda text: len(text) > 9000, Fault.TOO_LONG_400)
    assert (await refused(embedder, "fits", "x" * 20_000)).code == "too_large"
    assert len(await embedder.embed(["fits"])) == 1


async def test_an_answer_without_end_is_left_at_the_cap(fake: FakeProvider, embedder: GeminiEmbedder) -> None:
    fake.fail_next(1, Fault.HUGE_BODY)
    assert "longer than 8,388,608 bytes" in (await refused(embedder)).detail
