"""Texts and vectors that are made up as they are needed."""

import random

import numpy as np
from numpy.typing import NDArray

SENTENCES = (
    "the queue is full of jobs and nobody reads them because a worker was stopped last night before it could answer "
    "we deploy on friday after lunch if every test is green search became slow when vectors moved to another disk "
    "please restart postgres index memory snapshot watermark customer invoice payment refund login password email"
)
WORDS = SENTENCES.split()

CENTRES, SPREAD = 100, np.float32(0.7)


def text(chance: random.Random) -> str:
    """Make a sentence of 4 to 20 words; hardly ever the same twice."""
    return f"{' '.join(chance.choices(WORDS, k=chance.randint(4, 20)))} {chance.randint(0, 10**9)}"


def vectors(chance: random.Random, count: int, dimensions: int) -> NDArray[np.float32]:
    """Make `(count, dimensions)` of length 1 around a hundred centres: without any, no index would be better than a scan."""
    centres = np.random.default_rng(1).standard_normal((CENTRES, dimensions), np.float32)
    drawn = np.random.default_rng(chance.getrandbits(32))
    made = centres[drawn.integers(CENTRES, size=count)] + SPREAD * drawn.standard_normal(
        (count, dimensions), np.float32
    )
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)
