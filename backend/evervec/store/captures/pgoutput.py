"""Reads the keys of written rows out of messages of pgoutput, PostgreSQL's own output of logical decoding, version 1.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from collections.abc import Iterator, Sequence
from struct import unpack_from

TextKey = tuple[str, ...]
"""The values of a row's key columns as PostgreSQL writes them."""


class Everything:
    """What a TRUNCATE stands for: all rows."""


EVERYTHING = Everything()


class Messages:
    """Reads the messages of one call for changes; the columns of each table come before its first row."""

    def __init__(self, key: Sequence[str]) -> None:
        self._key = key
        self._places: dict[int, list[int]] = {}
        self.end = 0
        """The position in the log after the last transaction that was read whole."""

    def read(self, message: bytes) -> Iterator[TextKey | Everything]:
        """Yield the keys that a message names: of an update that changes the key, the old one and the new one."""
        kind = message[:1]
        if kind == b"C":
            (self.end,) = unpack_from("!q", message, 10)
        elif kind == b"R":
            self._learn(message)
        elif kind == b"T":
            yield EVERYTHING
        elif kind in (b"I", b"U", b"D"):
            (relation,) = unpack_from("!i", message, 1)
            yield from self._keys(self._places[relation], message)

    def _learn(self, message: bytes) -> None:
        (relation,) = unpack_from("!i", message, 1)
        at = message.index(b"\0", message.index(b"\0", 5) + 1) + 2  # namespace, name, replica identity
        (count,) = unpack_from("!h", message, at)
        at, names = at + 2, list[str]()
        for _ in range(count):
            end = message.index(b"\0", at + 1)
            names.append(message[at + 1 : end].decode())
            at = end + 9
        self._places[relation] = [names.index(name) for name in self._key]

    def _keys(self, places: Sequence[int], message: bytes) -> Iterator[TextKey]:
        at = 5
        while at < len(message):
            values, at = _row(message, at + 1)
            key = [values[place] for place in places]
            # an old row has only what identifies it
            if None not in key:
                yield tuple(value for value in key if value is not None)


def _row(message: bytes, at: int) -> tuple[list[str | None], int]:
    """Return the values of a row, None for one that is NULL or was not sent, and where it ends."""
    (count,) = unpack_from("!h", message, at)
    at, values = at + 2, list[str | None]()
    for _ in range(count):
        kind = message[at : at + 1]
        at += 1
        if kind != b"t":
            values.append(None)
            continue
        (length,) = unpack_from("!i", message, at)
        values.append(message[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return values, at
