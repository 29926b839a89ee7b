"""A model that is run by fastembed: one encoder of documents and one of questions, which share its weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from numpy.typing import NDArray

from evervec.embedders.in_process.folder import EncoderRecipe
from evervec.embedders.in_process.runs import RUN_TOKENS, THREADS, tokens_of_run
from evervec.embedders.in_process.texts import TextEncoder
from evervec.errors import ConfigError

Embed = Callable[..., Iterable[Any]]
POOLING_TYPES = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS}


class FastembedEncoder(TextEncoder):
    """One of the ways in which a model of fastembed embeds texts."""

    def __init__(self, embed: Embed, tokenizer: Any, text_tokens: int | None, run_tokens: int) -> None:
        super().__init__(tokenizer, text_tokens, run_tokens)
        self._embed = embed

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(list(self._embed(texts, batch_size=len(texts))), dtype=np.float32)


@dataclass(frozen=True)
class EncoderPair:
    """The encoders of documents and of questions of one model: some are told which of the two a text is."""

    documents: FastembedEncoder
    questions: FastembedEncoder


def register(name: str, folder: Path, recipe: EncoderRecipe) -> None:
    """Tell fastembed how the model of a folder is run, once in a process."""
    if any(one["model"].lower() == name.lower() for one in TextEmbedding.list_supported_models()):
        return
    TextEmbedding.add_custom_model(
        model=name,
        pooling=POOLING_TYPES[recipe.pooling],
        normalization=True,
        sources=ModelSource(hf=name),  # it wants one, and asks none of a model that is in a folder
        dim=0,
        model_file=recipe.model.relative_to(folder).as_posix(),
    )


def opened(provider: str, model: str, folder: Path, file: Path, most: int | None = None) -> EncoderPair:
    """Load the model of a folder, whose weights are in `file`. Raise `ConfigError` for one that can not be run."""
    static = file.suffix != ".onnx"
    options: dict[str, Any] = {} if static else {"threads": THREADS, "enable_cpu_mem_arena": False}
    try:
        embedding = TextEmbedding(model, cache_dir=str(folder), specific_model_path=str(folder), **options)
    except Exception as problem:  # fastembed and onnxruntime have a class for each kind of damage, and none above them
        raise ConfigError(provider, f"the model in {folder} can not be run: {str(problem)[:300]}") from None
    inner: Any = embedding.model
    if most is not None and len(inner.model.get_outputs()[0].shape) != 3:
        raise ConfigError(
            provider, f"the first output of {file} is not a vector of each token. `--type onnx` may be able to run it."
        )
    cut = (inner.tokenizer.truncation or {}).get("max_length")
    fitting = min((size for size in (most, cut) if size is not None), default=None)
    run_tokens = RUN_TOKENS if static else tokens_of_run(file)
    return EncoderPair(
        FastembedEncoder(embedding.passage_embed, inner.tokenizer, fitting, run_tokens),
        FastembedEncoder(embedding.query_embed, inner.tokenizer, fitting, run_tokens),
    )
