"""reStructuredText: titles by their adornment and the blocks between them; directives and roles are not evaluated."""

import re
from collections.abc import Iterator
from typing import Final

from evervec.sources.structure import headings
from evervec.sources.structure.block_starts import LINE, PARAGRAPH, BlockStart
from evervec.sources.structure.headings import LONGEST_HEADING, Heading, OutlinePart, Passage
from evervec.sources.structure.plain_text import paragraphs

_TITLE: Final = re.compile(
    r"""(?:(?P<over>(?P<sign>[!-/:-@\[-`{-~])(?P=sign)+)[ \t]*\r?\n)?   # a line above, of the same sign
        (?P<indent>[ \t]*)(?P<text>\S[^\n]*)\n
        (?P<under>(?P<mark>[!-/:-@\[-`{-~])(?P=mark)+)[ \t]*\r?(?:\n|\Z)""",
    re.VERBOSE,
)
_TARGET: Final = re.compile(r"(?:\.\.[ \t]+_[^\n]*:[ \t]*\r?(?:\n|\Z))+")
_ROLE: Final = re.compile(r":[\w.:+-]+:(?=`)|(?<=\w)_\b|[`*|]|\s*<[^<>`]*>(?=`)")
_SHORTEST_LINE: Final = 4


def block_starts(text: str) -> Iterator[BlockStart]:
    """Yield a section for each title."""
    parts = list(_parts(text))
    yield from headings.block_starts(text, parts, headings.first_title(parts))


def title(text: str) -> str:
    """Return the first title, without markup."""
    return headings.first_title(_parts(headings.top(text)))


def _parts(text: str) -> Iterator[OutlinePart]:
    """Yield the titles and paragraphs. A link target (`.. _name:`) belongs to the title below it."""
    levels = dict[tuple[str, bool], int]()
    targets = list[Passage]()
    for start, end in paragraphs(text, 0, len(text)):
        found = _title(text, start, end)
        stretch = Passage(start, end, LINE if text[start] in " \t" else PARAGRAPH)
        if not found and _TARGET.fullmatch(text, start, end):
            targets.append(stretch)
            continue
        if found:
            style = (found["mark"], found["over"] is not None)
            level = levels.setdefault(style, len(levels) + 1)
            yield Heading(targets[0].start if targets else start, level, _plain(found["text"]))
            targets.clear()
            stretch = Passage(found.end(), end, LINE)
        yield from targets
        targets.clear()
        if stretch.start < end:
            yield stretch
    yield from targets


def _title(text: str, start: int, end: int) -> re.Match[str] | None:
    found = _TITLE.match(text, start, end)
    if not found:
        return None
    over, under, words = found["over"], found["under"], found["text"].rstrip()
    alike = not found["indent"] if over is None else over == under
    named = any(sign.isalnum() for sign in words)
    return found if alike and named and len(under) >= min(len(words), _SHORTEST_LINE) else None


def _plain(words: str) -> str:
    return " ".join(_ROLE.sub("", words[: 4 * LONGEST_HEADING]).split())
