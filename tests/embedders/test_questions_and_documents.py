"""Models that take a question differently from a document: by a prefix, or by a task type; at once and by batch jobs."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
import pytest

from evervec.domain.batch import Line
from evervec.domain.encoders import EncoderOptions
from evervec.embedders.catalog import open_batch_client, open_embedder
from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.store.providers import ProviderDraft
from tests.fakes import FakeProvider
from tests.fakes.vectors import expected_vector

PREFIXES = EncoderOptions(query_prefix="query: ", document_prefix="passage: ")


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=48) as running:
        yield running


def opened(type_: str, fake: FakeProvider, options: EncoderOptions) -> Any:
    return open_embedder(type_, base_url=fake.url, model="m", api_key="key", name=type_, encoder=options)


@pytest.mark.parametrize("type_", ["ollama", "openai", "gemini"])
async def test_prefixes_stand_before_questions_and_texts(fake: FakeProvider, type_: str) -> None:
    embedder = opened(type_, fake, PREFIXES)
    (document,), (question,) = await embedder.embed(["a text"]), await embedder.embed_query("what?")
    assert np.allclose(document, expected_vector("m", "passage: a text", 48), atol=1e-6)
    assert np.allclose(question, expected_vector("m", "query: what?", 48), atol=1e-6)
    assert embedder.count_tokens(["a text"]) == opened(type_, fake, EncoderOptions()).count_tokens(["passage: a text"])
    assert (await embedder.probe()).variant == "query 'query: ', document 'passage: '"
    await embedder.aclose()


@pytest.mark.parametrize(
    ("options", "document", "question"),
    [
        (EncoderOptions(), None, None),
        (EncoderOptions(task_types=True), "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"),
    ],
)
async def test_gemini_is_told_what_a_text_is_if_that_is_wanted(
    fake: FakeProvider, options: EncoderOptions, document: str | None, question: str | None
) -> None:
    embedder = opened("gemini", fake, options)
    await embedder.embed(["a text", "another"])
    await embedder.embed_query("what?")
    sent = [orjson.loads(request.body)["requests"] for request in fake.requests]
    assert [{one.get("taskType") for one in requests} for requests in sent] == [{document}, {question}]
    assert (await embedder.probe()).variant == ("retrieval task types" if document else "")
    await embedder.aclose()


async def test_a_batch_job_is_given_its_texts_as_they_are_given_at_once() -> None:
    line = Line(str(uuid4()), "a text")
    gemini = open_batch_client(
        "gemini",
        model="m",
        api_key="key",
        name="g",
        encoder=EncoderOptions(document_prefix="passage: ", task_types=True),
    )
    request = orjson.loads(gemini.line(line))["request"]
    assert (request["content"]["parts"], request["task_type"]) == ([{"text": "passage: a text"}], "RETRIEVAL_DOCUMENT")
    openai = open_batch_client("openai", model="m", api_key="key", name="o", encoder=PREFIXES)
    assert orjson.loads(openai.line(line))["body"]["input"] == ["passage: a text"]
    for client in (gemini, openai):
        await client.aclose()


async def test_another_prefix_is_another_space_and_the_same_one_is_the_same(
    bare: Resources, fake: FakeProvider
) -> None:
    drafts = [EncoderOptions(), PREFIXES, PREFIXES, EncoderOptions(query_prefix="q: ")]
    added = [
        await providers.add(
            bare, ProviderDraft(f"p{at}", "ollama", base_url=fake.url, model="m", encoder=given), activate=False
        )
        for at, given in enumerate(drafts)
    ]
    plain, first, again, other = (one.space.id for one in added)
    assert first == again
    assert len({plain, first, other}) == 3
    assert [one.model for one in added] == ["m"] * 4
    assert added[1].space.model == "m [query 'query: ', document 'passage: ']"
