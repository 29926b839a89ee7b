"""Where the blocks of a text begin, and the blocks between; each format's module finds the places."""

from collections.abc import Iterable
from operator import itemgetter

from evervec.domain.documents.document import Block, Cut

BlockStart = tuple[int, str, Cut]
"""Where a block begins (in characters), its heading, and how good this place is for a cut."""

SECTION, PART, PARAGRAPH, LINE, SENTENCE, WORD = Cut.SECTION, Cut.PART, Cut.PARAGRAPH, Cut.LINE, Cut.SENTENCE, Cut.WORD

LARGE_TEXT = 1_000
"""Characters up to which a text is better not cut: about the 256 tokens of a chunk."""


def blocks_between(text: str, marks: Iterable[BlockStart]) -> list[Block]:
    """Return the blocks between the starts, which may come in any order.

    Of two starts at one place the stronger cut counts. A section begins wherever the heading changes. Blanks before the
    first start belong to the first block.
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
    inside = (mark for mark in marks if mark[0] < len(text))  # a parser may report an empty node at the end
    for mark in sorted(inside, key=itemgetter(0)):
        if not kept or mark[0] != kept[-1][0]:
            kept.append(mark)
        elif mark[2] > kept[-1][2]:
            kept[-1] = mark
    if not kept or text[: kept[0][0]].strip():
        return [(0, "", SECTION), *(mark for mark in kept if mark[0])]
    return [(0, *kept[0][1:]), *kept[1:]]
