"""The vectors of the fake provider: a pure function of model, text and width, so that a wrong vector is seen."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1 << 16)
def expected_vector(model: str, text: str, dims: int) -> NDArray[np.float32]:
    """The unit vector `(dims,) float32` that the fake answers for this text, the same in every process."""
    seed = int.from_bytes(sha256(f"{model}\0{dims}\0{text}".encode()).digest()[:16], "big")
    draw = np.random.Generator(np.random.Philox(key=seed)).standard_normal(dims, dtype=np.float32)
    vector: NDArray[np.float32] = draw / np.linalg.norm(draw)
    vector.setflags(write=False)
    return vector


def expected_vectors(model: str, texts: Sequence[str], dims: int) -> NDArray[np.float32]:
    """`(n, dims) float32`, one row per text."""
    return (
        np.stack([expected_vector(model, text, dims) for text in texts]) if texts else np.empty((0, dims), np.float32)
    )
