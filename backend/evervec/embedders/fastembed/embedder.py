"""The embedder by fastembed: a model that it knows by name, fetched from the hub once, or one of a folder."""

from pathlib import Path
from typing import Any, Final

from evervec.domain.vendors import FASTEMBED
from evervec.embedders.in_process import folder as folders
from evervec.embedders.in_process.embedder import LoadedEncoder
from evervec.embedders.in_process.hub import HubFiles
from evervec.embedders.in_process.hub_embedder import HubEmbedder
from evervec.errors import ConfigError

CONFIGURATION: Final = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
)
"""What fastembed reads beside the weights."""


class FastembedEmbedder(HubEmbedder):
    """An embedder by fastembed, which knows how each of its models makes one vector of a text."""

    vendor = FASTEMBED
    library = "fastembed"

    def _files(self) -> HubFiles:
        known = self._known()
        return HubFiles(known["sources"]["hf"], (known["model_file"], *known["additional_files"], *CONFIGURATION))

    def _known(self) -> dict[str, Any]:
        """Return what fastembed knows of the model."""
        from fastembed import TextEmbedding

        listed = [one for one in TextEmbedding.list_supported_models() if one["sources"]["hf"]]
        found = next((one for one in listed if one["model"].lower() == self._repo.lower()), None)
        if found is None:
            raise ConfigError(
                self._name,
                f"fastembed knows no model {self._repo!r}. It knows, for example, {FASTEMBED.model}; "
                "`--type sentence-transformers` takes any of the hub, and `--folder PATH` one that you have as ONNX.",
            )
        return found

    def _digest(self, folder: Path) -> str:
        options = self._options
        if options.folder is not None:
            return folders.read(self._name, options).digest()
        return self._files().digest(folder, options.query_prefix or "", options.document_prefix or "")

    def _open_in(self, folder: Path, named: str) -> LoadedEncoder:
        from evervec.embedders.fastembed.encoder import opened, register

        if self._options.folder is None:
            known = self._known()
            pair = opened(self._name, known["model"], folder, folder / known["model_file"])
            query, document = self._options.query_prefix or "", self._options.document_prefix or ""
        else:
            recipe = folders.read(self._name, self._options)
            register(named, folder, recipe)
            pair = opened(self._name, named, folder, recipe.model, recipe.text_tokens)
            query, document = recipe.query_prefix, recipe.document_prefix
        return LoadedEncoder(pair.documents, named, query, document, pair.questions)
