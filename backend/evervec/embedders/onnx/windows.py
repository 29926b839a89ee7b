"""What both encoders share: their protocol, and one vector made of the vectors of a text's windows."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evervec.domain.protocols import Vectors


class Encoder(Protocol):
    """Turns texts into vectors of length one, without a network; any number of threads may use one."""

    @property
    def text_tokens(self) -> int | None:
        """Return the longest text that is embedded at once, None for any; a longer one is embedded in windows."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        ...

    def encode(self, texts: Sequence[str], stopped: Callable[[], bool]) -> tuple[Vectors, int]:
        """Return `(n, dim) float32`, and how many tokens the texts have. Raise `StoppedError` soon after `stopped` says so."""
        ...


class StoppedError(Exception):
    """Nobody waits for these vectors any more."""


class WeightedSums:
    """The vectors of some texts, each the sum of its windows' vectors weighted by their tokens, of length one."""

    def __init__(self, texts: int) -> None:
        self._texts = texts
        self._sums: NDArray[np.float32] | None = None

    def add(self, row: int, vector: NDArray[np.float32], tokens: int) -> None:
        """Add a window of the text `row`."""
        if self._sums is None:
            self._sums = np.zeros((self._texts, len(vector)), dtype=np.float32)
        self._sums[row] += vector * np.float32(tokens)

    def vectors(self) -> Vectors:
        """Return `(n, dim) float32`; a vector of zeros is NaN on purpose, and the engine's check refuses it."""
        if self._sums is None:
            return np.empty((0, 0), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            unit: Vectors = self._sums / np.linalg.norm(self._sums, axis=1, keepdims=True)
        return unit
