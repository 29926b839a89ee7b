"""What the fake provider answers: a pure function of what it was asked, so that a wrong answer is seen."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1 << 16)
def expected_vector(model: str, text: str, dims: int) -> NDArray[np.float32]:
    """Return the unit vector `(dims,) float32` that the fake answers for this text, the same in every process."""
    return fresh_vector(model, text, dims)


def fresh_vector(model: str, text: str, dims: int) -> NDArray[np.float32]:
    """Return the same vector, computed and not cached: a batch of 50,000 would fill the memory."""
    seed = int.from_bytes(sha256(f"{model}\0{dims}\0{text}".encode()).digest()[:16], "big")
    draw = np.random.Generator(np.random.Philox(key=seed)).standard_normal(dims, dtype=np.float32)
    vector: NDArray[np.float32] = draw / np.linalg.norm(draw)
    vector.setflags(write=False)
    return vector


def expected_vectors(model: str, texts: Sequence[str], dims: int) -> NDArray[np.float32]:
    """Return `(n, dims) float32`, one row per text."""
    return (
        np.stack([expected_vector(model, text, dims) for text in texts]) if texts else np.empty((0, dims), np.float32)
    )


def expected_description(media: bytes) -> str:
    """Return the fake's description of an image, an audio file or a film."""
    return describe_digest(sha256(media).hexdigest())


def describe_digest(digest: str) -> str:
    """Return the same, for a file whose SHA-256 in hex is known."""
    return f"A picture of {digest[:12]}"


def tokens(text: str) -> int:
    """Count the tokens that the fake charges for."""
    return max(1, len(text) // 4, len(text.split()))
