"""The check of vectors: nothing that a provider answers reaches the database unless it passes here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evervec.errors import BadResponseError, ConfigError

WIDEST = 4000
"""Dimensions of the widest vector that can be indexed: pgvector's halfvec has no more."""


def check_vectors(vectors: NDArray[np.float32], *, count: int, dimensions: int, provider: str) -> NDArray[np.bool_]:
    """Check an answer to `count` texts; return `(count,) bool`: which rows are finite and not zero.

    Both are checked in half precision, as the search index stores them: it rejects a number above 65,504, and a
    vector that rounds to zero would never be found.

    Raises `BadResponseError` if rows and texts can not be matched, `ConfigError` if the width is another
    space's: no vector is ever padded or cut.
    """
    if vectors.ndim != 2 or vectors.shape[0] != count:
        raise BadResponseError(provider, f"{count} texts were sent, the answer has the shape {vectors.shape}")
    if vectors.shape[1] != dimensions:
        raise ConfigError(
            provider,
            f"its vectors have {vectors.shape[1]} dimensions, the space has {dimensions}. Bring the former model back, or "
            "add the new one with `evervec providers add` and switch with `evervec providers use NAME --reembed`.",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        halves = vectors.astype(np.float16)
    return np.asarray(np.isfinite(halves).all(axis=1) & (halves != 0).any(axis=1), dtype=np.bool_)


def check_distinct(vectors: NDArray[np.float32], *, provider: str) -> None:
    """Raise `BadResponseError` if two or more different texts all got one and the same vector."""
    if len(vectors) > 1 and (vectors == vectors[0]).all():
        raise BadResponseError(provider, f"{len(vectors)} different texts got one and the same vector")


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine between two vectors of one width, in double precision; 0 where one is zero, -1 for other widths."""
    if len(one) != len(other):
        return -1.0
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


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

    def vectors(self) -> NDArray[np.float32]:
        """Return `(n, dim) float32`; a vector of zeros is NaN on purpose, and the engine's check refuses it."""
        if self._sums is None:
            return np.empty((0, 0), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            unit: NDArray[np.float32] = self._sums / np.linalg.norm(self._sums, axis=1, keepdims=True)
        return unit
