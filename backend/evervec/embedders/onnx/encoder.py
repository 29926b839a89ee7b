"""A sentence encoder run by onnxruntime: tokens, windows, one vector a text; knows no thread and no loop."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from evervec.domain.protocols import Vectors
from evervec.domain.vectors import WeightedSums
from evervec.embedders.in_process.encoder import StoppedError
from evervec.embedders.in_process.folder import EncoderRecipe
from evervec.embedders.in_process.runs import THREADS, runs, tokens_of_run
from evervec.embedders.pieces import encoded
from evervec.errors import ConfigError


@dataclass(frozen=True)
class WindowOfTokens:
    """A part of a text that fits the model, special tokens included."""

    row: int
    ids: list[int]

    @property
    def tokens(self) -> int:
        """Return how many there are."""
        return len(self.ids)


class OnnxEncoder:
    """An ONNX sentence encoder and its tokenizer.

    Windows of the same number of tokens are run together, so that nothing is padded: a text's vector does not depend on its
    neighbours. A model that quantizes while it runs takes its scale from all of a run, so it is given one window at a time.
    The vectors of a text's windows are added, weighted by their tokens.
    """

    def __init__(self, provider: str, recipe: EncoderRecipe) -> None:
        self._recipe = recipe
        self._tokenizer = _tokenizer(provider, recipe)
        self._session = _session(provider, recipe)
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._output, self._pooled = _output(provider, self._session)
        self._start, self._end = _special_tokens(self._tokenizer)
        self._run_tokens = tokens_of_run(recipe.model)

    @property
    def text_tokens(self) -> int | None:
        """Return the most tokens of one window."""
        return self._recipe.text_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, with the special ones of one window."""
        counts = [len(self._start) + len(self._end)] * len(texts)
        for row, encoding in encoded(self._tokenizer, texts):
            counts[row] += len(encoding)
        return counts

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32` of length one, and the tokens. Raise `StoppedError`, `TypeError` for what is not Unicode."""
        sums = WeightedSums(len(texts))
        tokens = self._tokens(texts)
        for run in runs(self._windows(tokens), self._run_tokens):
            if stopped():
                raise StoppedError
            for window, vector in zip(run, self._run(run), strict=True):
                sums.add(window.row, vector, window.tokens)
        special = len(self._start) + len(self._end)
        return sums.vectors(), sum(special + len(ids) for ids in tokens)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        tokens: list[list[int]] = [[] for _ in texts]
        for row, encoding in encoded(self._tokenizer, texts):
            tokens[row] += encoding.ids
        return tokens

    def _windows(self, tokens: Sequence[Sequence[int]]) -> list[WindowOfTokens]:
        size = self._recipe.text_tokens - len(self._start) - len(self._end)
        return [
            WindowOfTokens(row, [*self._start, *ids[at : at + size], *self._end])
            for row, ids in enumerate(tokens)
            for at in range(0, max(len(ids), 1), size)
        ]

    def _run(self, run: Sequence[WindowOfTokens]) -> NDArray[np.float32]:
        ids = np.asarray([window.ids for window in run], dtype=np.int64)
        every = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        feed = {name: every[name] for name in self._inputs}
        answer: NDArray[np.float32] = np.asarray(self._session.run([self._output], feed)[0], dtype=np.float32)
        if self._pooled:
            return answer
        return answer[:, 0] if self._recipe.pooling == "cls" else answer.mean(axis=1)


def _session(provider: str, recipe: EncoderRecipe) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # an arena keeps the memory of the largest run
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(recipe.model), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime has a class for each kind of damage, and none above them
        raise ConfigError(provider, f"{recipe.model} can not be run: {str(problem)[:300]}") from None


def _tokenizer(provider: str, recipe: EncoderRecipe) -> Tokenizer:
    # Without it the tokenizer starts a thread pool of its own, which warns after a fork and gains nothing measurable.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        tokenizer = Tokenizer.from_file(str(recipe.tokenizer))
    except Exception as problem:  # the library raises plain `Exception`
        raise ConfigError(provider, f"{recipe.tokenizer} is not a tokenizer: {str(problem)[:300]}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _output(provider: str, session: Any) -> tuple[str, bool]:
    """Return the output to take, and whether it is one vector a text already."""
    outputs = session.get_outputs()
    strange = {one.name for one in session.get_inputs()} - {"input_ids", "attention_mask", "token_type_ids"}
    if strange:
        raise ConfigError(provider, f"the model asks for {', '.join(sorted(strange))}: it is no encoder of sentences.")
    by_name = {one.name: len(one.shape) for one in outputs}
    if by_name.get("sentence_embedding") == 2:
        return "sentence_embedding", True
    found = next((name for name, rank in by_name.items() if rank == 3), None)
    pooled = next((name for name, rank in by_name.items() if rank == 2), None)
    if found is None and pooled is None:
        raise ConfigError(provider, f"no output of the model is a vector of a text: {', '.join(by_name)}.")
    return (found, False) if found is not None else (str(pooled), True)


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the tokens that the model wants before and after a text."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    return whole[:at], whole[at + len(plain) :]
