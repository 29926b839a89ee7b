"""An encoder whose library takes texts, and not tokens: it is given windows of text that fit, those of one length together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.protocols import Vectors
from evervec.domain.vectors import WeightedSums
from evervec.embedders.in_process.encoder import StoppedError
from evervec.embedders.in_process.runs import runs
from evervec.embedders.pieces import encoded, split_at_best, split_at_words


@dataclass(frozen=True)
class PartOfText:
    """A part of a text that fits the model, and its tokens, special ones included."""

    row: int
    text: str
    tokens: int


class TextEncoder(ABC):
    """An encoder by a library that tokenizes by itself; a subclass runs texts of one length.

    `tokenizer` is one of the package tokenizers: a copy of it counts, and neither pads nor cuts.
    """

    def __init__(self, tokenizer: Any, text_tokens: int | None, run_tokens: int) -> None:
        self._tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._text_tokens, self._run_tokens = text_tokens, run_tokens

    @property
    def text_tokens(self) -> int | None:
        """Return the most tokens of one window, None for any number."""
        return self._text_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, with the special ones of one window."""
        counts = [self._special] * len(texts)
        for row, encoding in encoded(self._tokenizer, texts):
            counts[row] += len(encoding)
        return counts

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32` of length one, and the tokens. Raise `StoppedError`, `TypeError` for what is not Unicode."""
        sums, counts = WeightedSums(len(texts)), self.count(texts)
        for run in runs(list(self._parts(texts, counts, stopped)), self._run_tokens):
            if stopped():
                raise StoppedError
            for part, vector in zip(run, _units(self._run([part.text for part in run])), strict=True):
                sums.add(part.row, vector, part.tokens)
        return sums.vectors(), sum(counts)

    def _parts(self, texts: Sequence[str], counts: Sequence[int], stopped: Callable[[], bool]) -> Iterator[PartOfText]:
        for row, (text, tokens) in enumerate(zip(texts, counts, strict=True)):
            if self._text_tokens is None or tokens <= self._text_tokens:
                yield PartOfText(row, text, tokens)
                continue
            for piece in split_at_words(text):
                if stopped():
                    raise StoppedError
                windows = split_at_best(piece, self._text_tokens, lambda part: self.count([part])[0])
                yield from (
                    PartOfText(row, window, tokens) for window, tokens in zip(windows, self.count(windows), strict=True)
                )

    @abstractmethod
    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        """Return `(n, dim)` of texts that have the same number of tokens and fit the model."""


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length one; a vector of zeros is NaN on purpose, and the engine's check refuses it."""
    with np.errstate(invalid="ignore"):
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
