"""A model that is run by sentence-transformers: one encoder of documents and one of questions, which share its weights."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evervec.domain.encoders import EncoderOptions
from evervec.embedders.in_process.embedder import LoadedEncoder
from evervec.embedders.in_process.folder import LONGEST_WINDOW, USUAL_WINDOW
from evervec.embedders.in_process.runs import RUN_TOKENS, THREADS
from evervec.embedders.in_process.texts import TextEncoder
from evervec.errors import ConfigError


class SentenceEncoder(TextEncoder):
    """One of the ways in which a model of sentence-transformers embeds texts.

    One run at a time: a tokenizer of transformers must not be used by two threads at once.
    """

    def __init__(self, encode: Callable[..., Any], tokenizer: Any, text_tokens: int | None, turn: Lock) -> None:
        super().__init__(tokenizer, text_tokens, RUN_TOKENS)
        self._encode, self._turn = encode, turn

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        with self._turn:  # the prefix is in the texts already; an empty prompt keeps the model from adding its own
            vectors = self._encode(texts, prompt="", batch_size=len(texts), show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def opened(provider: str, folder: Path, named: str, options: EncoderOptions) -> LoadedEncoder:
    """Load the model of a folder. Raise `ConfigError` for one that can not be run, or not without code of its own."""
    torch.set_num_threads(THREADS)
    try:
        model = SentenceTransformer(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    except Exception as problem:  # torch and transformers have a class for each kind of damage, and none above
        raise ConfigError(provider, f"the model in {folder} can not be run: {str(problem)[:300]}") from None
    query = _prefix(model, options.query_prefix, "query")
    document = _prefix(model, options.document_prefix, "document", "passage", "corpus")
    if (query or document) and any(getattr(module, "include_prompt", True) is False for module in model):
        raise ConfigError(provider, f"the model in {folder} leaves prompts out of its vectors, which is not supported.")
    tokenizer, text_tokens, turn = _tokenizer(provider, folder, model), _window(model, options.text_tokens), Lock()
    return LoadedEncoder(
        SentenceEncoder(model.encode_document, tokenizer, text_tokens, turn),
        named,
        query,
        document,
        SentenceEncoder(model.encode_query, tokenizer, text_tokens, turn),
    )


def _prefix(model: SentenceTransformer, given: str | None, *names: str) -> str:
    """Return what is given, else the first prompt of the model's configuration that has one of the names."""
    if given is not None:
        return given
    return next((str(model.prompts[name]) for name in names if model.prompts.get(name)), "")


def _tokenizer(provider: str, folder: Path, model: SentenceTransformer) -> Any:
    """Return the model's tokenizer of the package tokenizers."""
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    if not hasattr(tokenizer, "encode_batch_fast"):
        raise ConfigError(provider, f"the tokenizer of the model in {folder} is none of the package tokenizers.")
    return tokenizer


def _window(model: SentenceTransformer, given: int | None) -> int | None:
    """Return the most tokens of one window, and let the model take no more; None where it takes texts of any length."""
    own = model.max_seq_length
    if own == float("inf") and given is None:
        return None
    most = min(own or USUAL_WINDOW, given or LONGEST_WINDOW, LONGEST_WINDOW)
    if own is not None and own != float("inf"):
        model.max_seq_length = most
    return int(most)
