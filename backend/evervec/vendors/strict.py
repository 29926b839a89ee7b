"""What a strict reader makes of an answer: an array of its vectors, or the reason why it has not the promised form."""

from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from evervec.domain.protocols import Vectors
from evervec.errors import BadResponseError


def first_reason(problem: ValidationError) -> str:
    """The first thing wrong, with its place, and never the answer itself."""
    error = problem.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in error["loc"])
    return f"{error['msg']}{f' at {place}' if place else ''}"


def as_array(rows: Sequence[Sequence[float] | None], provider: str) -> Vectors:
    """`(n, dim) float32` of n lists of one width, NaN included; `(0, 0)` of none. Raises `BadResponseError`."""
    try:
        with np.errstate(over="ignore"):  # 1e39 becomes infinity, which the engine's gate refuses
            vectors = np.asarray(rows, dtype=np.float32)
    except ValueError:
        raise BadResponseError(provider, "the vectors of one answer have different widths") from None
    return vectors if len(rows) else np.empty((0, 0), dtype=np.float32)
