"""A set of message ids that stays small: bits in blocks, because the ids of a chat are close together."""

from typing import Final

_BLOCK: Final = 1024


class IdSet:
    """A set of integers of any sign; a million neighbouring ids take about 200 kB."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Add a number; return False when it was there already."""
        block, bit = divmod(number, _BLOCK)
        bits = self._blocks.get(block, 0)
        if bits >> bit & 1:
            return False
        self._blocks[block] = bits | 1 << bit
        return True
