"""Vectors between numpy and PostgreSQL: the one place that knows pgvector's binary form.

Many vectors are packed and unpacked by numpy, all at once, which is faster than pgvector-python's codec, one by one
(docs/decisions/0015). That codec does single vectors. On the connections of `session.py` a vector is `bytes`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

from evervec.errors import FeedError


def fields(dimensions: int) -> list[Any]:
    """Return the numpy fields of one vector: int16 width, int16 zero, big-endian floats."""
    return [("dimensions", ">i2"), ("unused", ">i2"), ("vector", ">f4", (dimensions,))]


def pack(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return `(n, dim) float32` as n values of a `vector[]` parameter."""
    count, dimensions = vectors.shape
    rows = np.zeros(count, fields(dimensions))
    rows["dimensions"], rows["vector"] = dimensions, vectors
    blob, size = rows.tobytes(), rows.dtype.itemsize
    return [blob[start : start + size] for start in range(0, len(blob), size)]


def pack_one(vector: NDArray[np.float32]) -> bytes:
    """Return `(dim,) float32` as a `vector` parameter."""
    return Vector(vector).to_binary()


def unpack(packed: Sequence[bytes], dimensions: int) -> NDArray[np.float32]:
    """Return n values of a `vector` column as `(n, dim) float32`. Raises `FeedError` for one of another width."""
    row = np.dtype(fields(dimensions))
    if any(len(vector) != row.itemsize for vector in packed):
        raise FeedError(reason=f"a vector is not {dimensions} wide, as the space's are")
    return np.frombuffer(b"".join(packed), row)["vector"].astype(np.float32)


def unpack_one(packed: bytes) -> NDArray[np.float32]:
    """Return a value of a `vector` column as `(dim,) float32`."""
    return Vector.from_binary(packed).to_numpy()
