"""OpenAI-compatible servers as they are: what each refuses is left out, what it ignores or caps is noticed and named."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from evervec.embedders.openai.embedder import OpenAIEmbedder
from evervec.errors import ConfigError, ProviderError, TooLargeError
from tests.fakes import FakeProvider, expected_vectors

KEY = "sk-of-mine"
AZURE = "/openai/deployments/embed?api-version=2024-10-21"


@dataclass(frozen=True)
class Case:
    """What a server does, seen from outside: `narrow` is what a request for 4 dimensions comes to."""

    path: str = "/v1"
    key: str | None = None
    refused: tuple[str, ...] = ()
    narrow: int | str = "4 dimensions were asked for, and its vectors have 32"
    most: int | None = None
    long: str = "too_large"


CASES = {
    "azure": Case(AZURE, KEY, narrow=4),
    "vllm": Case(),
    "tei": Case(most=32),
    "lmstudio": Case(),
    "llamacpp": Case(),
    "dashscope": Case("/compatible-mode/v1", KEY, narrow=4, most=10),
    "litellm": Case(key=KEY, refused=("encoding_format",)),
    "siliconflow": Case(key=KEY, refused=("encoding_format",), most=32, long="bad_input"),
    "infinity": Case("/embeddings"),
}
every_server = pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32, api_key=KEY) as running:
        yield running


@asynccontextmanager
async def opened(fake: FakeProvider, name: str, case: Case, **how: Any) -> AsyncIterator[OpenAIEmbedder]:
    embedder = OpenAIEmbedder("m", api_key=case.key, base_url=f"{fake.url}/{name}{case.path}", name=name, **how)
    try:
        yield embedder
    finally:
        await embedder.aclose()


async def refused(embedder: OpenAIEmbedder, texts: list[str]) -> ProviderError:
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(texts)
    return problem.value


@every_server
async def test_a_probe_learns_what_is_refused_and_the_vectors_are_right(
    fake: FakeProvider, name: str, case: Case
) -> None:
    async with opened(fake, name, case) as embedder:
        found = await embedder.probe()
        assert (found.dimensions, found.refused_options) == (32, case.refused)
        texts = ["one", "два", "three"]
        assert np.allclose(await embedder.embed(texts), expected_vectors("m", texts, 32))
    async with opened(fake, name, case, refused_options=found.refused_options) as embedder:
        before = len(fake.requests)
        await embedder.embed(["again"])
        assert [request.status for request in fake.requests[before:]] == [200], "what was learned is not asked again"


@every_server
async def test_another_width_is_given_or_refused_and_never_taken_for_what_was_asked(
    fake: FakeProvider, name: str, case: Case
) -> None:
    async with opened(fake, name, case, dimensions=4) as embedder:
        if isinstance(case.narrow, int):
            assert (await embedder.probe()).dimensions == case.narrow
        else:
            with pytest.raises(ConfigError, match=case.narrow):
                await embedder.probe()


@every_server
async def test_a_width_that_the_model_has_by_itself_is_taken_without_the_option(
    fake: FakeProvider, name: str, case: Case
) -> None:
    async with opened(fake, name, case, dimensions=32) as embedder:
        assert (await embedder.probe()).dimensions == 32
        assert len(await embedder.embed(["x"])) == 1


@every_server
async def test_more_texts_than_a_server_takes_are_refused_with_its_number(
    fake: FakeProvider, name: str, case: Case
) -> None:
    async with opened(fake, name, case, refused_options=case.refused) as embedder:
        texts = [f"text {number}" for number in range(40)]
        if case.most is None:
            assert len(await embedder.embed(texts)) == 40
        else:
            problem = await refused(embedder, texts)
            assert isinstance(problem, TooLargeError)
            assert problem.texts == case.most
    async with opened(fake, name, case, request_texts=case.most) as embedder:
        assert embedder.limits.texts == (case.most or 2048)


@every_server
async def test_a_text_that_is_too_long_is_not_embedded_and_has_its_class(
    fake: FakeProvider, name: str, case: Case
) -> None:
    async with opened(fake, name, case, refused_options=case.refused) as embedder:
        assert (await refused(embedder, ["x" * 2001])).code == case.long


@every_server
async def test_a_key_is_sent_where_the_server_looks_for_it_and_nowhere_else(
    fake: FakeProvider, name: str, case: Case
) -> None:
    keyless = Case(case.path, None, case.refused)
    async with opened(fake, name, keyless, refused_options=case.refused) as embedder:
        if case.key is None:
            assert len(await embedder.embed(["x"])) == 1
        else:
            assert (await refused(embedder, ["x"])).code == "auth"


async def test_azure_without_its_version_is_a_wrong_address(fake: FakeProvider) -> None:
    async with opened(fake, "azure", Case("/openai/deployments/embed", KEY)) as embedder:
        problem = await refused(embedder, ["x"])
        assert problem.code in ("config", "auth")


async def test_a_model_that_is_not_there_costs_one_request(fake: FakeProvider) -> None:
    fake.missing.add("m")
    embedder = OpenAIEmbedder("m", api_key=KEY, base_url=fake.url)
    with pytest.raises(ConfigError, match="is not there"):
        await embedder.probe()
    assert len(fake.requests) == 1
    await embedder.aclose()


async def test_only_what_was_asked_for_is_sent(fake: FakeProvider) -> None:
    async with opened(fake, "litellm", CASES["litellm"]) as embedder:
        await embedder.probe()
    sent = [set(orjson.loads(request.body)) for request in fake.requests]
    assert sent == [{"model", "input", "encoding_format"}, {"model", "input"}]
