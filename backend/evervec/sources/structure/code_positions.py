"""Where in source code a block may begin, by the characters before that place."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from tree_sitter import Node

from evervec.sources.structure.grammars import ATTACHED_ABOVE

_LOOK_BACK: Final = 80
"""Bytes before a place that are checked; longer white space counts as a new line."""


def block_start(data: bytes, at: int) -> int | None:
    """Return where a block whose first byte is `at` begins: with its line, or after `;` or a brace; else None."""
    low = max(0, at - _LOOK_BACK)
    before = data[low:at].rstrip(b" \t\f")
    return low + len(before) if before[-1:] in b"\r\n;{}" else None


def follows_blank(data: bytes, start: int) -> bool:
    """Return whether the line that begins at `start` has a blank line above it."""
    before = data[max(0, start - _LOOK_BACK) : start]
    return before.endswith(b"\n") and before[:-1].rstrip(b" \t\f\r").endswith(b"\n")


def nodes_with_starts(data: bytes, nodes: Iterable[Node]) -> Iterator[tuple[int | None, Node]]:
    """Yield the nodes with their starts.

    Comments and attributes belong to the node directly below them, else to the node directly above.
    """
    above: tuple[int, Node] | None = None
    for node in nodes:
        start = block_start(data, node.start_byte)
        if above is not None and start is not None and follows_blank(data, start):
            yield from _alone(data, above)
            above = None
        if node.type not in ATTACHED_ABOVE:
            yield above[0] if above else start, node
            above = None
        elif start is not None:
            above = above or (start, node)
    if above is not None:
        yield from _alone(data, above)


def _alone(data: bytes, above: tuple[int, Node]) -> list[tuple[int, Node]]:
    return [above] if above[0] == 0 or follows_blank(data, above[0]) else []


def character_offsets(data: bytes, offsets: Sequence[int]) -> Sequence[int]:
    """Return offsets in characters for offsets in bytes of UTF-8."""
    if data.isascii():
        return offsets
    firsts = np.flatnonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)
    return [int(at) for at in np.searchsorted(firsts, offsets)]
