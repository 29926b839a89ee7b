"""What a fault makes of good vectors, as rows that JSON can carry; where the rows stand in an answer is the protocol's."""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tests.fakes.faults import Fault

# JSON has no words for these, and orjson writes none: a mark stands for them until the bytes are there
MARKS = {Fault.NAN: ("*NaN*", b"NaN"), Fault.INFINITY: ("*Infinity*", b"Infinity")}


def rows(fault: Fault | None, vectors: NDArray[np.float32]) -> Any:
    """Return the rows of `(n, dims) float32` under this fault: lists of numbers, or of something else.

    A fault that leaves vectors alone gives the array itself; NOT_A_LIST gives a string.
    """
    spoil = SPOILERS.get(fault) if fault else None
    return spoil(vectors.tolist()) if spoil and len(vectors) else vectors


def dump(document: Any) -> bytes:
    """Return the bytes of a document whose rows may be arrays or carry marks."""
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    for mark, word in MARKS.values():
        body = body.replace(f'"{mark}"'.encode(), word)
    return body


def _with_first(value: Any) -> Any:
    return lambda rows: [[value, *rows[0][1:]], *rows[1:]]


SPOILERS: dict[Fault, Any] = {
    Fault.NOT_A_LIST: lambda rows: "nothing",
    Fault.SHORT_LIST: lambda rows: rows[:-1],
    Fault.EXTRA: lambda rows: [*rows, rows[0]],
    Fault.WRONG_DIMS: lambda rows: [row[:-1] for row in rows],
    Fault.RAGGED: lambda rows: [*rows[:-1], rows[-1][:-1]],
    Fault.NULL: _with_first(None),
    Fault.STRINGS: _with_first("0.5"),
    Fault.OVERFLOW: _with_first(1e39),
    Fault.ZERO_VECTOR: lambda rows: [[0.0] * len(rows[0]), *rows[1:]],
    Fault.IDENTICAL: lambda rows: [rows[0]] * len(rows),
    Fault.CONSTANT: lambda rows: [[0.5] * len(rows[0])] * len(rows),
    Fault.NAN: _with_first(MARKS[Fault.NAN][0]),
    Fault.INFINITY: _with_first(MARKS[Fault.INFINITY][0]),
}
