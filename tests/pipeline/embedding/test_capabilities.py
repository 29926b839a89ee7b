"""What is learned of a server is learned once, kept in the database, and used by every worker."""

from typing import Any

import pytest

from evervec.errors import AuthError, ConfigError, Refused
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import coverage, save


def draft(fake: FakeProvider, path: str, key: str | None = None, **how: Any) -> ProviderDraft:
    return ProviderDraft("mine", "openai", base_url=fake.url + path, model="m", api_key=key, no_key=key is None, **how)


@pytest.mark.parametrize(("path", "key", "most"), [("/tei/v1", None, 32), ("/dashscope/compatible-mode/v1", "k", 10)])
async def test_how_many_texts_a_server_takes_is_learned_by_one_refusal(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any, path: str, key: str | None, most: int
) -> None:
    await providers.add(keyed, draft(fake, path, key))
    await save(keyed, dataset, [f"text {i}" for i in range(64)])
    before = len(fake.requests)
    # one claim at a time, so that two do not learn it at the same moment
    await embed_dataset(keyed, dataset.id, batch=64)
    assert await psql.fetchval("SELECT request_texts FROM llm_providers") == most
    assert (await coverage(keyed, dataset)).embedded == 64
    assert sum(request.status != 200 for request in fake.requests[before:]) == 1
    assert max(len(request.texts) for request in fake.requests[before + 1 :]) == most

    await save(keyed, dataset, [f"another text {i}" for i in range(64)], first=1000)
    before = len(fake.requests)
    await embed_dataset(keyed, dataset.id, batch=64)
    assert [request.status for request in fake.requests[before:]] == [200] * -(-64 // most)
    assert (await coverage(keyed, dataset)).embedded == 128


async def test_what_a_server_refuses_is_kept_with_its_record(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await providers.add(keyed, draft(fake, "/litellm/v1", "a-key"))
    assert await psql.fetchval("SELECT refused_options FROM llm_providers") == ["encoding_format"]
    await save(keyed, dataset, ["one", "two"])
    before = len(fake.requests)
    assert (await embed_dataset(keyed, dataset.id)).success == 2
    assert [request.status for request in fake.requests[before:]] == [200]


async def test_a_server_of_ones_own_needs_no_key_when_that_is_said(keyed: Resources, fake: FakeProvider) -> None:
    with pytest.raises(ConfigError, match="--no-key"):
        await providers.add(keyed, ProviderDraft("mine", "openai", base_url=f"{fake.url}/vllm/v1", model="m"))
    with pytest.raises(Refused, match="--base-url"):
        await providers.add(keyed, ProviderDraft("mine", "openai", model="m", no_key=True))
    added = await providers.add(keyed, draft(fake, "/vllm/v1"))
    assert added.api_key_encrypted is None
    assert (await providers.test(keyed, "mine")).dimensions == 32
    with pytest.raises(AuthError):
        await providers.add(keyed, draft(fake, "/dashscope/compatible-mode/v1"))


async def test_only_a_compatible_server_can_do_without_a_key(keyed: Resources, fake: FakeProvider) -> None:
    with pytest.raises(ConfigError, match="API key"):
        await providers.add(keyed, ProviderDraft("mine", "gemini", base_url=fake.url, model="m", no_key=True))


async def test_vectors_that_no_index_can_hold_are_refused_with_the_next_step(keyed: Resources, psql: Any) -> None:
    async with FakeProvider(dims=4096) as wide:
        with pytest.raises(ConfigError, match=r"4,096 dimensions, and an index holds 4,000 at most\. Choose"):
            await providers.add(keyed, ProviderDraft("wide", "ollama", base_url=wide.url, model="m"))
        with pytest.raises(ConfigError, match="--dimensions"):
            await providers.add(keyed, draft(wide, "/v1", "a-key"))
        narrow = await providers.add(keyed, draft(wide, "/v1", "a-key", dimensions=1024))
        assert narrow.space.dimensions == 1024


async def test_one_vector_for_every_text_is_no_model(keyed: Resources, fake: FakeProvider, psql: Any) -> None:
    fake.always(None, Fault.IDENTICAL)
    with pytest.raises(ConfigError, match="one and the same vector"):
        await providers.add(keyed, ProviderDraft("same", "ollama", base_url=fake.url, model="m"))
    assert await psql.fetchval("SELECT count(*) FROM llm_providers") == 0
