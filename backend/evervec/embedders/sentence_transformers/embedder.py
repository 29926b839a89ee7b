"""The embedder by sentence-transformers: any of its models on the hub, fetched once, or one of a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from evervec.domain.vendors import SENTENCE_TRANSFORMERS
from evervec.embedders.in_process.embedder import LoadedEncoder
from evervec.embedders.in_process.hub import HubFiles
from evervec.embedders.in_process.hub_embedder import HubEmbedder

WANTED: Final = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configuration, vocabularies and weights. Weights as pickles are left out: whoever wrote one could run code here."""

UNWANTED: Final = ("onnx/*", "openvino/*", ".*")


class SentenceTransformersEmbedder(HubEmbedder):
    """An embedder by sentence-transformers and torch, which reads from a model's files how it is run.

    Code that comes with a model is never run.
    """

    vendor = SENTENCE_TRANSFORMERS
    library = "sentence_transformers"

    def _import(self) -> None:
        with _no_progress_bars():
            super()._import()

    def _files(self) -> HubFiles:
        return HubFiles(self._repo, WANTED, UNWANTED)

    def _digest(self, folder: Path) -> str:
        given = self._options
        return self._files().digest(folder, given.query_prefix, given.document_prefix, given.text_tokens)

    def _open_in(self, folder: Path, named: str) -> LoadedEncoder:
        from evervec.embedders.sentence_transformers.encoder import opened

        return opened(self._name, folder, named, self._options)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers, which looks when it is imported, from drawing how far weights are loaded: a worker's output is a log."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
