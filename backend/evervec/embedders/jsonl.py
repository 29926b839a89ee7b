"""The lines of a result file, read in groups, never more than one group in memory; knows no provider."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import numpy as np
import orjson

from evervec.domain.batch import Results
from evervec.domain.text import clean
from evervec.errors import BadResponseError, ProviderError

MOST_LINE: Final = 8 << 20
"""Bytes of the longest line that is read: a vector of 3,072 numbers takes 70 kB, a description some kB."""

MOST_MESSAGE: Final = 500
"""The longest message of a provider about one line that is kept, in characters."""


class ResultGroup:
    """Up to `size` answered lines of a result file, filled in by a provider's client.

    `dimensions` is the width that vectors must have, None where texts were asked for.
    """

    def __init__(self, size: int, dimensions: int | None) -> None:
        self._size, self._dimensions = size, dimensions
        self._clear()

    def vector(self, key: str, values: object) -> None:
        """Add the numbers of one line; what is no list of numbers of our width becomes an error of its key."""
        if self._dimensions is None:
            return self.error(key, "bad_response", "the answer is a vector, and a text was asked for")
        try:
            # Without a dtype: numpy would read "1.5" as a number and null as NaN.
            row = np.asarray(values) if isinstance(values, list) else None
        except (ValueError, OverflowError):
            row = None
        if row is None or row.ndim != 1 or row.dtype.kind not in "fiu":
            return self.error(key, "bad_response", "the answer is not a list of numbers")
        if len(row) != self._dimensions:
            return self.error(key, "bad_response", f"the vector is {len(row)} wide, not {self._dimensions}")
        with np.errstate(over="ignore"):  # 1e39 becomes infinity, which the engine's gate refuses
            self._vectors[len(self._keys)] = row
        self._keys.append(key)
        return None

    def text(self, key: str, text: object) -> None:
        """Add the text of one line."""
        if self._dimensions is not None:
            return self.error(key, "bad_response", "the answer is a text, and a vector was asked for")
        if not isinstance(text, str) or not text.strip():
            return self.error(key, "bad_response", "the answer holds no text")
        self._texts.append(clean(text))
        self._keys.append(key)
        return None

    def error(self, key: str, code: str, message: str) -> None:
        """Add a line that failed; `code` is the code of a `ProviderError`."""
        said = "".join(c if c.isprintable() else " " for c in message[:MOST_MESSAGE]).strip()
        self._errors.append((key, code, said or "no reason given"))

    def garbled(self) -> None:
        """Count a line that has no key to be found by."""
        self._garbled += 1

    def __len__(self) -> int:
        return len(self._keys) + len(self._errors) + self._garbled

    @property
    def full(self) -> bool:
        """Return whether it is time to `take`."""
        return len(self) >= self._size

    def take(self) -> Results:
        """Return what was added, and empty the group."""
        results = Results(
            keys=self._keys,
            vectors=None if self._dimensions is None else self._vectors[: len(self._keys)],
            texts=self._texts if self._dimensions is None else None,
            errors=self._errors,
            garbled=self._garbled,
        )
        self._clear()
        return results

    def _clear(self) -> None:
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._errors: list[tuple[str, str, str]] = []
        self._garbled = 0
        self._vectors = np.empty((self._size, self._dimensions or 0), dtype=np.float32)


LineReader = Callable[[dict[str, Any], ResultGroup], None]
"""A function that adds one parsed line to a group, by exactly one of `vector`, `text`, `error` and `garbled`."""


async def lines(
    pieces: AsyncIterator[bytes], *, most_line: int = MOST_LINE, provider: str
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream of bytes without their breaks, but not blank ones.

    The last line may have no break. Raise `BadResponseError` at a line of more than `most_line` bytes, and whatever
    `pieces` raises: the part of a line before that is not yielded.
    """
    started: list[bytes] = []
    length = 0
    async for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            line = b"".join([*started, part]) if started else part
            if len(line) > most_line:
                raise _too_long(provider, most_line)
            started, length = [], 0
            if line and not line.isspace():
                yield line
        started.append(rest)
        length += len(rest)
        if length > most_line:
            raise _too_long(provider, most_line)
    last = b"".join(started)
    if last and not last.isspace():
        yield last


async def groups(
    source: AsyncGenerator[bytes, None], read: LineReader, *, size: int, dimensions: int | None
) -> AsyncGenerator[Results, None]:
    """Yield the lines of `source`, read by `read`, `size` at a time.

    A `ProviderError` of the source is raised after everything that came before it was yielded.
    """
    group, problem = ResultGroup(size, dimensions), None
    async with aclosing(source):
        try:
            async for line in source:
                document = parse(line)
                if document is None:
                    group.garbled()
                else:
                    read(document, group)
                if group.full:
                    yield group.take()
        except ProviderError as broken:
            problem = broken
    if len(group):
        yield group.take()
    if problem is not None:
        raise problem


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the object in a line, or None. NaN and lone surrogates are not JSON, but servers write them."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) else None


def _too_long(provider: str, most_line: int) -> ProviderError:
    return BadResponseError(provider, f"a line of the results is longer than {most_line:,} bytes")
