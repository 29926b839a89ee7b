"""The one behaviour suite that every embedder passes, whatever stands behind it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from evervec.domain import usage
from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import Embedder, Vectors
from evervec.domain.vendors import API_KEY_TYPES, FASTEMBED, LOCAL, ONNX, SENTENCE_TRANSFORMERS, TYPES
from evervec.embedders.catalog import open_embedder
from evervec.errors import ProviderError
from tests.embedders.model_folders import bert_folder, minilm_folder
from tests.fakes import FakeProvider

TEXTS = ["The job is stuck.", "Задача зависла после сбоя.", "x", "🎉🎉", "a  b\n\nc", "long " * 400, "'; DROP TABLE--"]


IN_FOLDERS = {FASTEMBED.type: minilm_folder, SENTENCE_TRANSFORMERS.type: bert_folder}
IN_THIS_PROCESS = {LOCAL.type: (LOCAL.model,), ONNX.type: ("minilm", "multilingual")} | dict.fromkeys(
    IN_FOLDERS, ("folder",)
)
MODELS = [(type_, model) for type_ in TYPES for model in IN_THIS_PROCESS.get(type_, ("fake-embed",))]


@pytest.fixture(params=MODELS, ids="/".join)
async def embedder(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Embedder]:
    type_, model = request.param
    folder = str(IN_FOLDERS[type_](tmp_path)) if type_ in IN_FOLDERS else None
    async with FakeProvider(dims=48) as fake:
        opened = open_embedder(
            type_,
            base_url=None if type_ in IN_THIS_PROCESS else fake.url,
            model=model,
            api_key="key" if type_ in API_KEY_TYPES else None,
            name=type_,
            encoder=EncoderOptions(folder=folder),
        )
        yield opened
        await opened.aclose()


def same(embedder: Embedder, one: Vectors, other: Vectors) -> bool:
    """Return whether two vectors are equal; torch computes the last bits otherwise, as more texts of one length are run."""
    return (
        np.allclose(one, other, atol=1e-6)
        if embedder.name == SENTENCE_TRANSFORMERS.type
        else np.array_equal(one, other)
    )


async def test_one_finite_unit_vector_per_text_in_order(embedder: Embedder) -> None:
    together = await embedder.embed(TEXTS)
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), (await embedder.probe()).dimensions)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        assert same(embedder, (await embedder.embed([text]))[0], vector)


async def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    alone = (await embedder.embed(["a short one"]))[0]
    crowded = await embedder.embed(["word " * 900, "a short one", "x" * 3000])
    assert same(embedder, crowded[1], alone)


async def test_the_same_text_twice_in_one_batch_gives_the_same_vector(embedder: Embedder) -> None:
    first, _, second = await embedder.embed(["again", "other", "again"])
    assert np.array_equal(first, second)


async def test_a_question_is_one_vector_of_the_same_space(embedder: Embedder) -> None:
    asked = await embedder.embed_query("which job is stuck?")
    assert asked.dtype == np.float32
    assert asked.shape == (1, (await embedder.probe()).dimensions)
    assert np.allclose(np.linalg.norm(asked), 1, atol=1e-5)


async def test_a_full_batch_is_one_request(embedder: Embedder) -> None:
    texts = [f"text number {number}" for number in range(embedder.limits.texts)]
    vectors = await embedder.embed(texts)
    assert len(vectors) == len(texts)
    assert np.isfinite(vectors).all()


async def test_many_requests_at_once_do_not_mix(embedder: Embedder) -> None:
    batches = [[f"{batch}-{row}" for row in range(20)] for batch in range(12)]
    answers = await asyncio.gather(*(embedder.embed(batch) for batch in batches))
    again = await embedder.embed(batches[7])
    assert same(embedder, answers[7], again)


async def test_the_event_loop_lives_while_texts_are_embedded(embedder: Embedder) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    pulse, most = asyncio.create_task(beat()), 0
    for _ in range(20):  # a busy machine may keep the loop from turning now and then
        before = beats
        await embedder.embed(["a sentence of some length, again and again " * 20] * 32)
        most = max(most, beats - before)
        if most > 10:
            break
    pulse.cancel()
    assert most > 10


async def test_token_counts_are_one_positive_number_per_text(embedder: Embedder) -> None:
    counts = embedder.count_tokens(TEXTS)
    assert len(counts) == len(TEXTS)
    assert all(count > 0 for count in counts)
    assert counts[5] > counts[0]


async def test_a_model_of_this_process_tells_the_tokens_that_it_counted(embedder: Embedder) -> None:
    with usage.measured() as used:
        await embedder.embed(TEXTS)
    if embedder.name in IN_THIS_PROCESS:
        assert used.tokens == sum(embedder.count_tokens(TEXTS))
    assert used.tokens is not None


async def test_a_lone_surrogate_is_refused_as_bad_input(embedder: Embedder) -> None:
    with pytest.raises(ProviderError) as refused:
        await embedder.embed(["good", "bad \ud800"])
    assert refused.value.code == "bad_input"


async def test_closing_twice_does_no_harm(embedder: Embedder) -> None:
    await embedder.embed(["before"])
    await embedder.aclose()
    await embedder.aclose()


async def test_it_says_who_it_is(embedder: Embedder) -> None:
    assert embedder.name in TYPES
    assert embedder.model
    assert embedder.limits.texts >= 32
