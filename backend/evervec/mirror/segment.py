"""An immutable segment: a FAISS index over positions 0..n-1, the arrays that say what is where, and how to search it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Ids, Life, Watermark


@dataclass(frozen=True)
class Tuning:
    """How a segment is searched: found when it was built, against exact answers on a sample of `sampled` queries.

    `target` is the recall@10 that was asked for, `recall` what the sample then reached. `nprobe` and `k_factor` are for
    IVF, `ef` for HNSW; a flat scan has none of them.
    """

    target: float
    recall: float
    sampled: int
    nprobe: int | None = None
    k_factor: float | None = None
    ef: int | None = None


@dataclass(frozen=True)
class Segment:
    """n vectors of one dataset as they were at a watermark. Never changed: what changes is kept beside it.

    `index` is the FAISS index, which numbers its vectors 0..n-1; `factory` is how FAISS spells it. At position i is the
    vector `ids[i]` in version `versions[i]` of kind `kinds[i]`: int64, int64, int16, each `(n,)`, ids unique, in any
    order. `life` and `watermark` say of which database, and at which moment of it, this is true.
    """

    index: Any
    factory: str
    tuning: Tuning
    ids: Ids
    versions: Ids
    kinds: NDArray[np.int16]
    life: Life
    watermark: Watermark

    def __len__(self) -> int:
        return len(self.ids)
