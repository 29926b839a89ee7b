"""Texts that are longer than the model takes: in windows or refused, and listed; none is cut in silence."""

from math import log2
from typing import Any

import numpy as np
import pytest

from evervec.domain.encoders import EncoderOptions
from evervec.domain.text import estimate_tokens
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.claimed_rows import HEALTH_TEXTS
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.store.budget import ledger
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vectors
from evervec.store.monitor import LongText
from evervec.store.providers import ProviderDraft
from evervec.store.schema.embeddables import MESSAGE
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_vector
from tests.pipeline.embedding.test_embed import coverage, save

WINDOW = 256
LONG = "\n".join(" ".join(f"word{line}x{place}" for place in range(20)) for line in range(40))
SHORT = [f"short text {number}" for number in range(30)]


async def use(
    resources: Resources, fake: FakeProvider, vendor: str = "gemini", *, long_texts: str | None = None
) -> None:
    fake.context_tokens = WINDOW
    key = None if vendor == "ollama" else "a-key"
    encoder = EncoderOptions(long_texts=long_texts)
    draft = ProviderDraft(vendor, vendor, base_url=fake.url, model="embedder", api_key=key, encoder=encoder)
    await providers.add(resources, draft)


async def vector(resources: Resources, row_id: int) -> Any:
    async with resources.database.read() as tx:
        found = await vectors.vector_of(tx, MESSAGE, row_id)
    assert found is not None
    return found[1]


def windows_of(fake: FakeProvider) -> list[str]:
    """Return the parts of the long text that were embedded, in their order."""
    return [text for text in fake.texts_embedded() if text in LONG and text != LONG and "word" in text]


async def listed(resources: Resources) -> list[LongText]:
    return await overview.long_texts(resources.database)


@pytest.mark.parametrize("vendor", ["gemini", "ollama"])
async def test_a_long_text_is_embedded_in_windows_weighted_by_their_tokens(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider, vendor: str
) -> None:
    await use(keyed, fake, vendor)
    *_, long = await save(keyed, dataset, [*SHORT, LONG])
    assert (await embed_dataset(keyed, dataset.id)).success == len(SHORT) + 1
    windows = windows_of(fake)
    assert len(windows) > 5
    assert all(estimate_tokens(window) <= WINDOW for window in windows)
    assert sorted(" ".join(windows).split()) == sorted(LONG.split()), "every word is in one window"
    weights = np.array([estimate_tokens(window) for window in windows], np.float32)
    pooled = weights @ np.stack([expected_vector("embedder", window, 32) for window in windows])
    np.testing.assert_allclose(await vector(keyed, long), pooled / np.linalg.norm(pooled), rtol=1e-4, atol=1e-6)
    (found,) = await listed(keyed)
    assert (found.kind, found.id, found.windows, found.reason) == ("message", long, len(windows), None)
    async with keyed.database.read() as tx:
        (spent,) = await ledger.lines(tx, ["dataset"], dataset_ids=[dataset.id])
    assert spent.texts == len(SHORT) + 1


async def test_an_equal_long_text_gets_the_vector_and_is_listed_too(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake)
    await save(keyed, dataset, [LONG])
    await embed_dataset(keyed, dataset.id)
    before = len(fake.requests)
    await save(keyed, dataset, [LONG], first=2)
    counts = await embed_dataset(keyed, dataset.id)
    assert (counts.reused, len(fake.requests)) == (1, before)
    assert len({found.windows for found in await listed(keyed)}) == 1
    assert len(await listed(keyed)) == 2


async def test_a_text_that_became_short_is_listed_no_more(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any
) -> None:
    await use(keyed, fake)
    await save(keyed, dataset, [LONG])
    await embed_dataset(keyed, dataset.id)
    await save(keyed, dataset, ["short"])
    await embed_dataset(keyed, dataset.id)
    assert await listed(keyed) == []
    assert await psql.fetchval("SELECT windows FROM embeddings") is None


async def test_a_window_that_the_server_still_refuses_is_halved(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake, "openai")
    fake.always(lambda text: estimate_tokens(text) > WINDOW // 2, Fault.TOO_LONG_400)
    await save(keyed, dataset, [LONG, *SHORT])
    assert (await embed_dataset(keyed, dataset.id)).success == len(SHORT) + 1
    assert windows_of(fake)
    assert all(estimate_tokens(text) <= WINDOW // 2 for text in windows_of(fake))


async def test_a_text_that_is_refused_in_any_size_is_given_up_alone(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake, "openai")
    fake.always(lambda text: "word39x0" in text, Fault.TOO_LONG_400)
    await save(keyed, dataset, [LONG, *SHORT])
    await embed_dataset(keyed, dataset.id)
    covered = await coverage(keyed, dataset)
    assert (covered.failed, covered.embedded) == (1, len(SHORT))
    (found,) = await listed(keyed)
    assert found.windows is None
    assert "too large" in (found.reason or "")


async def test_a_space_that_refuses_long_texts_fails_them_without_sending(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake, long_texts="refuse")
    *_, long = await save(keyed, dataset, [*SHORT, LONG])
    await embed_dataset(keyed, dataset.id)
    assert LONG not in fake.texts_sent()
    assert windows_of(fake) == []
    (found,) = await listed(keyed)
    assert (found.id, found.windows) == (long, None)
    assert "800 tokens, the model takes 256" in (found.reason or "")
    (provider,) = [one for one in await providers.listed(keyed) if one.name == "gemini"]
    assert provider.space.model == "embedder [long texts refused]"


async def test_a_server_that_cuts_in_silence_is_found_by_its_own_count(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake, "openai")
    fake.cuts_at = 250
    *_, long = await save(keyed, dataset, [*SHORT, LONG])
    before = len(fake.requests)
    assert (await embed_dataset(keyed, dataset.id)).success == len(SHORT) + 1
    (found,) = await listed(keyed)
    assert found.id == long
    assert (found.windows or 0) >= 800 / 250
    assert all(len(window.split()) <= 250 for window in windows_of(fake)[-(found.windows or 0) :])
    assert len(fake.requests) - before <= 2 * log2(len(SHORT) + 1) + 8


async def test_a_count_that_is_wrong_for_short_texts_too_accuses_nobody(
    keyed: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await use(keyed, fake, "openai")
    fake.told_tokens = 1
    await save(keyed, dataset, [LONG, *SHORT])
    counts = await embed_dataset(keyed, dataset.id)
    assert counts.failed == 0
    assert {text for text in fake.texts_sent() if text in LONG} == {LONG}
    assert HEALTH_TEXTS[0] in fake.texts_sent()
