"""Made-up vectors of length 1 that are about as hard to search as real embeddings: in clusters, or one smooth cloud."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Shape = Literal["clustered", "smooth"]

LATENT, CLUSTERS, DIMENSIONS, QUERIES = 64, 1000, 384, 1000
SPECTRUM = 0.4  # how fast the latent directions lose weight
SPREAD = 0.55  # how wide a cluster is, beside how wide all of them lie
NOISE = {"clustered": 0.25, "smooth": 0.3}
SLICE = 50_000


@dataclass(frozen=True)
class Made:
    """Vectors for a benchmark.

    `rows (n, dim)` are stored, `queries (1000, dim)` are of the same kind but not among them, and a cluster `(n,)` is given
    for each row.
    """

    shape: Shape
    rows: Rows
    queries: Rows
    clusters: NDArray[np.int64]


def make(shape: Shape, n: int, *, seed: int = 11) -> Made:
    """n vectors and 1,000 queries. "clustered": 1,000 clusters of uneven size; "smooth": a single one, which is harder."""
    chance = np.random.default_rng(seed)
    weights = ((1 + np.arange(LATENT)) ** -SPECTRUM).astype(np.float32)
    weights /= np.linalg.norm(weights)
    turn = chance.standard_normal((LATENT, DIMENSIONS), np.float32) / np.float32(DIMENSIONS**0.5)
    centres = chance.standard_normal((CLUSTERS, LATENT), np.float32) * weights
    shares = np.arange(1, CLUSTERS + 1) ** -0.7
    clusters = chance.choice(CLUSTERS, n + QUERIES, p=shares / shares.sum())
    rows = np.empty((n + QUERIES, DIMENSIONS), np.float32)
    for start in range(0, len(rows), SLICE):
        part = clusters[start : start + SLICE]
        latent = chance.standard_normal((len(part), LATENT), np.float32) * weights
        if shape == "clustered":
            latent = centres[part] + np.float32(SPREAD) * latent
        noise = chance.standard_normal((len(part), DIMENSIONS), np.float32) * np.float32(NOISE[shape] / DIMENSIONS**0.5)
        rows[start : start + len(part)] = latent @ turn + noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Made(shape, rows[QUERIES:], rows[:QUERIES], clusters[QUERIES:])
