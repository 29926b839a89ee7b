"""What only sentence-transformers promises: the library's own vectors and prompts, and that no code of a model is run."""

import json
from pathlib import Path

import numpy as np
import pytest

from evervec.domain.encoders import EncoderOptions
from evervec.embedders.catalog import open_embedder
from evervec.embedders.sentence_transformers.embedder import SentenceTransformersEmbedder
from evervec.errors import ConfigError
from tests.embedders.model_folders import bert_folder
from tests.fakes.hub import FakeHub

SENTENCE = "The worker crashed while a job was stuck; Задача зависла, 作業 done"
TEXTS = (SENTENCE, "x", "We go on vacation in July.")
PROMPTS = {"query": "query: ", "passage": "passage: "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bert_folder(tmp_path, prompts=PROMPTS)


def of(folder: Path, model: str | None = None, **given: object) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder(model, options=EncoderOptions(folder=str(folder), **given), name="mine")  # type: ignore[arg-type]


async def embedded(embedder: SentenceTransformersEmbedder, *texts: str) -> np.ndarray:
    try:
        return await embedder.embed(list(texts) or [SENTENCE])
    finally:
        await embedder.aclose()


async def test_it_has_the_vectors_of_the_library_with_the_prompts_of_the_model(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(folder))
    mine = of(folder)
    probe = await mine.probe()
    assert (probe.dimensions, probe.text_tokens) == (48, 128)
    name, _, digest = mine.model.partition("@")
    assert (name, len(digest)) == (folder.name, 12)
    (question,) = await mine.embed_query(SENTENCE)
    assert np.allclose(question, library.encode_query(SENTENCE, normalize_embeddings=True), atol=1e-6)
    expected = library.encode([f"passage: {text}" for text in TEXTS], prompt="", normalize_embeddings=True)
    assert mine.count_tokens(["x"]) == [2 + len(library.tokenizer.tokenize("passage: x"))]
    assert np.allclose(await embedded(mine, *TEXTS), expected, atol=1e-6)


async def test_what_is_given_comes_before_the_prompts_of_the_model_and_changes_its_name(folder: Path) -> None:
    plain = of(folder, query_prefix="", document_prefix="")
    as_read = await plain.embed([f"query: {SENTENCE}", f"passage: {SENTENCE}"])
    told = of(folder)
    assert np.allclose(await told.embed_query(SENTENCE), as_read[:1], atol=1e-6)
    assert np.allclose(await told.embed([SENTENCE]), as_read[1:], atol=1e-6)
    assert told.model != plain.model
    await plain.aclose()
    await told.aclose()


async def test_a_text_longer_than_the_window_is_embedded_whole_in_windows(folder: Path) -> None:
    start, end = " ".join(["start"] * 30), " ".join(["finish"] * 30)
    given = {"text_tokens": 32, "query_prefix": "", "document_prefix": ""}
    whole, first, second = await embedded(of(folder, **given), f"{start}\n{end}", start, end)
    pooled = (first + second) / np.linalg.norm(first + second)
    assert float(whole @ pooled) > 0.999
    assert float(whole @ first) < 0.999


async def test_a_model_that_was_changed_behind_its_name_is_refused(folder: Path) -> None:
    before = of(folder)
    await before.probe()
    await before.aclose()
    configuration = folder / "config_sentence_transformers.json"
    told = json.loads(configuration.read_text())
    configuration.write_text(json.dumps(told | {"prompts": {"query": "question: "}}))
    with pytest.raises(ConfigError, match=r"another one than its space was made with .*providers add"):
        await embedded(of(folder, before.model))


async def test_weights_that_are_a_pickle_are_not_read(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="can not be run"):
        await embedded(of(folder))


async def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Theirs: pass\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "theirs.Theirs"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match="can not be run"):
        await embedded(of(folder))
    assert not ran.exists()


async def test_a_model_of_the_hub_is_fetched_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    async with FakeHub({"somebody/bert": folder}) as hub:
        first = SentenceTransformersEmbedder("somebody/bert", name="mine", hub_url=hub.url)
        await first.probe()
        vectors = await embedded(first, *TEXTS)
        assert not any(request.endswith("/README.md") for request in hub.requests)
    again = SentenceTransformersEmbedder(first.model, name="mine", hub_url="http://127.0.0.1:9")
    assert np.allclose(await embedded(again, *TEXTS), vectors, atol=1e-6)


def test_what_the_folder_says_itself_can_not_be_given(folder: Path) -> None:
    with pytest.raises(ConfigError, match="leave --file and --pooling out"):
        open_embedder("sentence-transformers", name="mine", encoder=EncoderOptions(folder=str(folder), pooling="mean"))
