"""Text without markup: its paragraphs, and the lines and sentences of a large one."""

import re
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from evervec.domain.document import Cut
from evervec.sources.structure.block_starts import LARGE_TEXT, LINE, PARAGRAPH, PART, SECTION, SENTENCE, BlockStart

SHORT_LINE: Final = 40
"""Characters that a line or sentence has at least to be a block: a file of numbers is no million blocks."""

_GAP: Final = re.compile(r"\n\s*\n|\f\s*")
_SENTENCE_END: Final = re.compile(r"""[.!?…]["'”’»)\]]*\s+|[。！？]+\s*""")
_ENDING: Final = frozenset(".!?…。！？")
"""What a sentence ends with: a line that ends so is a better place for a cut than one that was wrapped."""


def block_starts(text: str) -> Iterator[BlockStart]:
    """A mark for each paragraph, stronger where a page begins (form feed), weaker ones inside a large paragraph."""
    before = 0
    for start, end in paragraphs(text, 0, len(text)):
        cut = PART if "\f" in text[before:start] else PARAGRAPH
        yield start, "", cut if start else SECTION
        yield from block_starts_within(text, start, end, "")
        before = end


def paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of what blank lines or form feeds keep apart, without them."""
    for gap in _GAP.finditer(text, start, end):
        if gap.start() > start:
            yield start, gap.start()
        start = gap.end()
    if start < end:
        yield start, end


def block_starts_within(text: str, start: int, end: int, heading: str, after_blank: Cut = LINE) -> Iterator[BlockStart]:
    """Marks inside `text[start:end]` if that is large: its paragraphs, the lines of a large one, their sentences."""
    if end - start <= LARGE_TEXT:
        return
    for begin, stop in paragraphs(text, start, end):
        if begin > start:
            yield begin, heading, after_blank
        if stop - begin > LARGE_TEXT:
            yield from _lines(text, begin, stop, heading)


def follows_blank(text: str, start: int) -> bool:
    """Whether the line that begins at `start` has a blank one above it."""
    return text[text.rfind("\n", 0, max(start - 1, 0)) + 1 : start].isspace()


def _lines(text: str, start: int, end: int, heading: str) -> Iterator[BlockStart]:
    """Where lines begin. Of short ones some are chosen by what they say, so that an edit moves only its neighbours."""
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
