"""What the Ollama embedder sends, and on which rung of the ladder every answer of a server lands."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import orjson
import pytest

from evervec.embedders.ollama.embedder import OllamaEmbedder
from evervec.errors import ConfigError, ProviderError, RateLimitedError
from evervec.vendors.ollama.client import OllamaDeadlines
from tests.fakes import FakeProvider, Fault, expected_vectors

IMPATIENT = OllamaDeadlines(connect=0.3, total=0.3, load=0.3)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32) as running:
        yield running


@pytest.fixture
async def embedder(fake: FakeProvider) -> AsyncIterator[OllamaEmbedder]:
    opened = OllamaEmbedder(fake.url, "fake-embed", max_bytes=8 << 20)
    yield opened
    await opened.aclose()


async def refused(embedder: OllamaEmbedder, *texts: str) -> ProviderError:
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(list(texts) or ["one", "two", "three"])
    return problem.value


async def test_a_batch_is_one_request_that_forbids_truncation(fake: FakeProvider, embedder: OllamaEmbedder) -> None:
    texts = [f"text {number}" for number in range(32)]
    vectors = await embedder.embed(texts)
    assert np.array_equal(vectors, expected_vectors("fake-embed", texts, 32))
    assert [request.texts for request in fake.requests] == [tuple(texts)]
    assert orjson.loads(fake.requests[0].body)["truncate"] is False


RUNGS = {
    Fault.BUSY_503: "transient",
    Fault.ERROR_500: "transient",
    Fault.BAD_GATEWAY_502: "transient",
    Fault.TIMEOUT_504: "transient",
    Fault.RESET: "transient",
    Fault.RESET_MID_BODY: "transient",
    Fault.RATE_LIMITED_429: "rate_limited",
    Fault.UNAUTHORIZED_401: "auth",
    Fault.FORBIDDEN_403: "auth",
    Fault.NO_MODEL_404: "config",
    Fault.WRONG_KIND_400: "config",
    Fault.REDIRECT_302: "config",
    Fault.BAD_REQUEST_400: "bad_input",
    Fault.TOO_LONG_400: "too_large",
    Fault.TOO_LARGE_413: "too_large",
    Fault.EOF_500: "bad_response",
    Fault.EOF_400: "bad_response",
    Fault.NAN_400: "bad_response",
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
    fake: FakeProvider, embedder: OllamaEmbedder, fault: Fault, code: str
) -> None:
    fake.fail_next(1, fault)
    problem = await refused(embedder)
    assert problem.code == code
    assert "ollama" in str(problem)
    assert len(await embedder.embed(["after the storm"])) == 1
    assert fake.calls() == 2


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
    fake: FakeProvider, embedder: OllamaEmbedder, fault: Fault, seen: Any
) -> None:
    fake.fail_next(1, fault)
    vectors = await embedder.embed(["one", "two", "three"])
    assert vectors.dtype == np.float32
    assert seen(vectors)


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_MID_BODY])
async def test_a_server_that_stalls_is_left_at_the_deadline(fake: FakeProvider, fault: Fault) -> None:
    embedder = OllamaEmbedder(fake.url, "fake-embed", deadlines=IMPATIENT)
    fake.fail_next(1, fault)
    async with asyncio.timeout(60):
        assert (await refused(embedder)).code == "transient"
    await embedder.aclose()


async def test_a_model_that_loads_slowly_is_waited_for_and_later_calls_are_held_to_less(fake: FakeProvider) -> None:
    embedder = OllamaEmbedder(fake.url, "fake-embed", deadlines=OllamaDeadlines(total=0.2, load=60))
    fake.fail_next(2, Fault.SLOW_LOAD, seconds=0.6)
    assert len(await embedder.embed(["the first call loads the model"])) == 1
    assert "0.2 s" in (await refused(embedder)).detail
    await embedder.aclose()


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        (None, 1, 60),
        ("soon", 1, 60),
        ("nan", 1, 60),
        ("-3", 0, 0),
        ("1e12", 60, 86_400),
    ],
)
async def test_retry_after_is_obeyed_and_nonsense_in_it_survived(
    fake: FakeProvider, embedder: OllamaEmbedder, header: str | None, least: float, most: float
) -> None:
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after=header)
    problem = await refused(embedder)
    assert isinstance(problem, RateLimitedError)
    assert least <= problem.delay <= most


async def test_retry_after_may_be_a_date(fake: FakeProvider, embedder: OllamaEmbedder) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after=date)
    problem = await refused(embedder)
    assert isinstance(problem, RateLimitedError)
    assert 80 < problem.delay <= 90


async def test_one_bad_text_fails_its_batch_and_only_its_batch(fake: FakeProvider, embedder: OllamaEmbedder) -> None:
    fake.always(lambda text: "poison" in text, Fault.BAD_REQUEST_400)
    assert (await refused(embedder, "good", "poison", "good too")).code == "bad_input"
    assert len(await embedder.embed(["good", "good too"])) == 2


async def test_a_text_longer_than_the_context_is_refused_and_not_cut(
    fake: FakeProvider, embedder: OllamaEmbedder
) -> None:
    problem = await refused(embedder, "fits", "x" * 20_000)
    assert problem.code == "too_large"
    assert "context length" in problem.detail


async def test_the_probe_tells_width_and_context(fake: FakeProvider, embedder: OllamaEmbedder) -> None:
    assert embedder.limits.text_tokens is None
    found = await embedder.probe()
    assert (found.dimensions, found.text_tokens) == (32, 2048)
    assert embedder.limits.text_tokens == 2048


async def test_a_missing_model_is_a_config_error_that_says_how_to_fetch_it(
    fake: FakeProvider, embedder: OllamaEmbedder
) -> None:
    fake.missing.add("fake-embed")
    with pytest.raises(ConfigError, match="ollama pull fake-embed"):
        await embedder.probe()
    assert "ollama pull fake-embed" in (await refused(embedder)).detail


async def test_a_server_that_is_not_there_is_transient_and_named() -> None:
    with socket.socket() as taken:  # bound and not listening: refuses connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        embedder = OllamaEmbedder(url, "fake-embed", deadlines=IMPATIENT)
        problem = await refused(embedder)
        assert problem.code == "transient"
        assert url in problem.detail
    await embedder.aclose()


async def test_a_host_name_that_does_not_exist_is_transient() -> None:
    embedder = OllamaEmbedder("http://no-such-host.invalid:11434", "fake-embed")
    assert (await refused(embedder)).code == "transient"
    await embedder.aclose()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host", "http://", "host:11434", "http://u:p@host", "http://h\r\nX: y", "http://h:x"],
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ConfigError):
        OllamaEmbedder(url, "fake-embed")


@pytest.mark.parametrize("key", ["two\nlines", "ключ", " blank", "\x00"])
def test_a_key_that_could_smuggle_a_header_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        OllamaEmbedder("http://127.0.0.1:1", "fake-embed", api_key=key)


async def test_the_key_is_sent_where_it_was_stored_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "from-the-environment")
    async with FakeProvider(dims=8, api_key="right") as fake:
        good = OllamaEmbedder(fake.url, "fake-embed", api_key="right")
        assert len(await good.embed(["x"])) == 1
        for key in ("wrong", None):
            other = OllamaEmbedder(fake.url, "fake-embed", api_key=key)
            assert (await refused(other)).code == "auth"
            await other.aclose()
        await good.aclose()
    async with FakeProvider(dims=8, api_key="from-the-environment") as fake:
        stranger = OllamaEmbedder(fake.url, "fake-embed")
        assert (await refused(stranger)).code == "auth"
        await stranger.aclose()


async def test_an_answer_without_end_is_left_at_the_cap(fake: FakeProvider, embedder: OllamaEmbedder) -> None:
    fake.fail_next(1, Fault.HUGE_BODY)
    assert "longer than 8,388,608 bytes" in (await refused(embedder)).detail


async def test_a_proxy_of_the_environment_is_not_asked(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    embedder = OllamaEmbedder(fake.url, "fake-embed")
    assert len(await embedder.embed(["x"])) == 1
    await embedder.aclose()
