"""Marks, the places where blocks begin, and the blocks that they make; where to put them is each format's own file."""

from collections.abc import Iterable
from operator import itemgetter

from evervec.domain.document import Block, Cut

BlockStart = tuple[int, str, Cut]
"""Where a block begins (in characters), its heading, and how good a place that is for a cut."""

SECTION, PART, PARAGRAPH, LINE, SENTENCE, WORD = Cut.SECTION, Cut.PART, Cut.PARAGRAPH, Cut.LINE, Cut.SENTENCE, Cut.WORD

LARGE_TEXT = 1_000
"""Characters of what is better not cut, until it is larger than that: about the 256 tokens of a chunk."""


def blocks_between(text: str, marks: Iterable[BlockStart]) -> list[Block]:
    """The blocks between the marks, which may come in any order; of two at one place the stronger holds.

    A section begins wherever the heading changes. Blanks before the first mark are its own.
    """
    if not text:
        return []
    ordered = _ordered(text, marks)
    ends = [start for start, _, _ in ordered[1:]] + [len(text)]
    blocks, before = list[Block](), None
    for end, (_, heading, cut) in zip(ends, ordered, strict=True):
        blocks.append(Block(end, heading, cut if heading == before else SECTION))
        before = heading
    return blocks


def _ordered(text: str, marks: Iterable[BlockStart]) -> list[BlockStart]:
    kept: list[BlockStart] = []
    inside = (mark for mark in marks if mark[0] < len(text))  # a parser may see something of no length at the end
    for mark in sorted(inside, key=itemgetter(0)):
        if not kept or mark[0] != kept[-1][0]:
            kept.append(mark)
        elif mark[2] > kept[-1][2]:
            kept[-1] = mark
    if not kept or text[: kept[0][0]].strip():
        return [(0, "", SECTION), *(mark for mark in kept if mark[0])]
    return [(0, *kept[0][1:]), *kept[1:]]
