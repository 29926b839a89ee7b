"""The vectors of an answer: as an array, and how wide a model's are."""

from collections.abc import Sequence

import numpy as np

from evervec.domain.protocols import Embedder, Vectors
from evervec.errors import BadResponseError, ConfigError

PROBE_TEXTS = ("What is stored here?", "Two texts tell the width of a vector.")


def as_array(rows: Sequence[Sequence[float] | None], provider: str) -> Vectors:
    """Return n lists of one width as `(n, dim) float32`, NaN included; `(0, 0)` of none. Raise `BadResponseError`."""
    try:
        with np.errstate(over="ignore"):  # 1e39 becomes infinity, which the engine's check of vectors refuses
            vectors = np.asarray(rows, dtype=np.float32)
    except ValueError:
        raise BadResponseError(provider, "the vectors of one answer have different widths") from None
    return vectors if len(rows) else np.empty((0, 0), dtype=np.float32)


async def width_of(embedder: Embedder) -> int:
    """Return how wide the model's vectors are, found by embedding two texts and never assumed.

    Raise `ConfigError` when what comes back can not fill a space, else the `ProviderError` of the answer.
    """
    vectors = await embedder.embed(list(PROBE_TEXTS))
    if vectors.ndim != 2 or len(vectors) != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
        raise ConfigError(
            embedder.name,
            f"model {embedder.model!r} gives no usable vectors. Choose another with `evervec providers add`.",
        )
    if (vectors[0] == vectors[1]).all():
        raise ConfigError(
            embedder.name,
            f"model {embedder.model!r} gives two different texts one and the same vector. Choose another with "
            "`evervec providers add`.",
        )
    return int(vectors.shape[1])
