"""The width of a model's vectors, found by embedding two texts and never assumed."""

import numpy as np

from evervec.domain.protocols import Embedder
from evervec.errors import ConfigError

TEXTS = ("What is stored here?", "Two texts tell the width of a vector.")


async def width(embedder: Embedder) -> int:
    """How wide the vectors are. Raises `ConfigError` when what comes back can not fill a space, else the
    `ProviderError` of the answer."""
    vectors = await embedder.embed(list(TEXTS))
    if vectors.ndim != 2 or len(vectors) != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
        raise ConfigError(
            embedder.name,
            f"model {embedder.model!r} gives no usable vectors. Choose another with `evervec providers add`.",
        )
    return int(vectors.shape[1])
