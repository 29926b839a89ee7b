"""A model of the hub is brought here when its provider is added, and opened from this machine alone afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from evervec.embedders import NO_HUB_REPORTS
from evervec.embedders.fastembed.embedder import FastembedEmbedder
from evervec.embedders.in_process import hub as hub_module
from evervec.embedders.in_process.hub import HubFiles
from evervec.errors import AuthError, ConfigError, ProviderError, RateLimitedError, TransientError
from tests.embedders.model_folders import minilm_folder
from tests.fakes.hub import GATED, MISSING, FakeHub

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
REPOSITORY = "Qdrant/all-MiniLM-L6-v2-onnx"
"""Where fastembed has that model from."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the hub's client keep its files in a folder of the test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[FakeHub]:
    async with FakeHub({REPOSITORY: minilm_folder(tmp_path / "model")}) as fake:
        yield fake


def opened(hub: FakeHub, model: str = MODEL) -> FastembedEmbedder:
    return FastembedEmbedder(model, name="mine", hub_url=hub.url)


async def added(hub: FakeHub) -> str:
    """Return what a provider of the model is called when it is added."""
    embedder = opened(hub)
    try:
        await embedder.probe()
        return embedder.model
    finally:
        await embedder.aclose()


async def vector(embedder: FastembedEmbedder) -> np.ndarray:
    try:
        return await embedder.embed(["The job is stuck."])
    finally:
        await embedder.aclose()


async def test_the_hub_is_asked_when_a_provider_is_added_and_never_again(hub: FakeHub) -> None:
    named = await added(hub)
    assert named.startswith(f"{MODEL}@")
    assert any(request.endswith("/model.onnx") for request in hub.requests)
    hub.requests.clear()
    assert (await vector(opened(hub, named))).shape == (1, 384)
    assert hub.requests == []
    assert await added(hub) == named, "to add it again downloads nothing that is here"
    assert not [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]


async def test_what_is_not_here_is_not_downloaded_while_rows_are_embedded(hub: FakeHub) -> None:
    with pytest.raises(ConfigError, match=rf"{MODEL} is not on this machine\. Run `evervec providers add`.*HF_HOME"):
        await vector(opened(hub))
    assert hub.requests == []


async def test_a_newer_version_on_the_hub_is_another_model_and_leaves_the_former_one(
    hub: FakeHub, tmp_path: Path
) -> None:
    former = await added(hub)
    hub.push(REPOSITORY, minilm_folder(tmp_path / "newer", window=64))
    newer = await added(hub)
    assert newer != former
    for named, window in ((former, 256), (newer, 64)):
        embedder = opened(hub, named)
        await vector(embedder)
        assert embedder.limits.text_tokens == window
    with pytest.raises(ConfigError, match="another one than its space was made with"):
        await vector(opened(hub, f"{MODEL}@{'0' * 12}"))


async def test_a_file_that_is_no_part_of_the_model_does_not_change_its_name(hub: FakeHub, tmp_path: Path) -> None:
    former = await added(hub)
    folder = minilm_folder(tmp_path / "newer")
    (folder / "README.md").write_text("Now with a picture.")
    hub.push(REPOSITORY, folder)
    assert await added(hub) == former


@pytest.mark.parametrize(
    ("refusal", "error", "advice"),
    [
        (GATED, AuthError, f"{REPOSITORY} is for those alone who accept its terms.*HF_TOKEN"),
        (MISSING, ConfigError, f"has no model {REPOSITORY}.*HF_TOKEN"),
        ((403, ""), AuthError, f"HTTP 403 for {REPOSITORY} of the hub: set HF_TOKEN"),
        ((503, "down"), TransientError, f"HTTP 503: the hub does not give {REPOSITORY}"),
        ((429, "slowly"), RateLimitedError, f"HTTP 429: the hub does not give {REPOSITORY}"),
    ],
)
async def test_a_refusal_of_the_hub_names_the_model_and_the_next_step(
    hub: FakeHub, refusal: tuple[int, str], error: type[ProviderError], advice: str
) -> None:
    hub.refusals[REPOSITORY] = refusal
    with pytest.raises(error, match=advice):
        await added(hub)


async def test_without_a_network_the_model_and_the_next_step_are_named_or_what_is_here_is_used(hub: FakeHub) -> None:
    with pytest.raises(
        TransientError, match=rf"can not be reached, and {REPOSITORY} .* give the model as --folder PATH"
    ):
        await added(FakeHub({}))
    named = await added(hub)
    nowhere = FakeHub({})
    nowhere.url = "http://127.0.0.1:9"
    assert await added(nowhere) == named


async def test_a_client_that_was_told_to_stay_offline_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=f"HF_HUB_OFFLINE is set, and {REPOSITORY} is not on this machine"):
        await added(hub)


def test_a_name_that_no_model_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="no name of a model"):
        hub_module.fetch("mine", HubFiles("one/two/three", ("*.json",)))


def test_the_digest_is_of_the_wanted_files_and_of_the_options(tmp_path: Path) -> None:
    files = HubFiles("one/two", ("*.json",), ("onnx/*",))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({}))
    first = files.digest(tmp_path, "query: ")
    (tmp_path / "onnx" / "config.json").write_text("other")
    (tmp_path / "README.md").write_text("other")
    assert files.digest(tmp_path, "query: ") == first
    assert files.digest(tmp_path, "") != first
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 1}))
    assert files.digest(tmp_path, "query: ") != first


def test_the_client_of_the_hub_reports_nothing() -> None:
    code = "import evervec.embedders.catalog, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if name != NO_HUB_REPORTS}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"
