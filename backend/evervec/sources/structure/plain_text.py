"""Text without markup: its paragraphs, and the lines and sentences of a large paragraph."""

import re
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from evervec.domain.documents.document import Cut
from evervec.sources.structure.block_starts import LARGE_TEXT, LINE, PARAGRAPH, PART, SECTION, SENTENCE, BlockStart

SHORT_LINE: Final = 40
"""The fewest characters of a line or sentence that is a block: a file of numbers must not become a million blocks."""

_GAP: Final = re.compile(r"\n\s*\n|\f\s*")
_SENTENCE_END: Final = re.compile(r"""[.!?…]["'”’»)\]]*\s+|[。！？]+\s*""")
_ENDING: Final = frozenset(".!?…。！？")
"""The ends of a sentence: after a line that ends so, a cut is better than after a wrapped one."""


def block_starts(text: str) -> Iterator[BlockStart]:
    """Yield each paragraph, with a stronger cut where a page begins (form feed), weaker ones inside a large one."""
    before = 0
    for start, end in paragraphs(text, 0, len(text)):
        cut = PART if "\f" in text[before:start] else PARAGRAPH
        yield start, "", cut if start else SECTION
        yield from block_starts_within(text, start, end, "")
        before = end


def paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the parts that blank lines or form feeds separate, without the separators."""
    for gap in _GAP.finditer(text, start, end):
        if gap.start() > start:
            yield start, gap.start()
        start = gap.end()
    if start < end:
        yield start, end


def block_starts_within(text: str, start: int, end: int, heading: str, after_blank: Cut = LINE) -> Iterator[BlockStart]:
    """Yield the starts inside `text[start:end]` if that is large.

    They are those of its paragraphs, of the lines of a large paragraph, and of the sentences of large lines.
    """
    if end - start <= LARGE_TEXT:
        return
    for begin, stop in paragraphs(text, start, end):
        if begin > start:
            yield begin, heading, after_blank
        if stop - begin > LARGE_TEXT:
            yield from _lines(text, begin, stop, heading)


def follows_blank(text: str, start: int) -> bool:
    """Return whether the line that begins at `start` has a blank line above it."""
    return text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start].isspace()


def _lines(text: str, start: int, end: int, heading: str) -> Iterator[BlockStart]:
    """Yield where lines begin.

    Some of the short ones are chosen by their content, so that an edit moves only its neighbours.
    """
    began = at = start
    while at := text.find("\n", max(at, began + SHORT_LINE - 1), end) + 1:
        if at == end:
            break
        line_end = text.find("\n", at, end)
        line = text[at : line_end if line_end >= 0 else end]
        if len(line) >= SHORT_LINE or crc32(line.encode("utf-8", "replace")) % 4 == 0:
            yield from _sentences(text, began, at, heading)
            yield at, heading, LINE if text[max(at - SHORT_LINE, start) : at].rstrip()[-1:] in _ENDING else SENTENCE
            began = at
    yield from _sentences(text, began, end, heading)


def _sentences(text: str, start: int, end: int, heading: str) -> Iterator[BlockStart]:
    if end - start <= LARGE_TEXT:
        return
    began = start
    for found in _SENTENCE_END.finditer(text, start, end):
        if found.end() - began >= SHORT_LINE and found.end() < end:
            began = found.end()
            yield began, heading, SENTENCE
