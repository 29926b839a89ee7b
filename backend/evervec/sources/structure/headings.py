"""What formats with headings share: the heading path of each part of a text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from evervec.domain.documents.document import Cut
from evervec.domain.text import snippet
from evervec.sources.structure.block_starts import PART, SECTION, BlockStart
from evervec.sources.structure.plain_text import block_starts_within

HEADING_SEPARATOR = " › "
LONGEST_HEADING = 200
"""Characters of a heading or a name that are kept: a longer one is not a real heading."""

TITLE_WITHIN = 20_000
"""Characters at the top of a document in which its title is searched."""


@dataclass(frozen=True)
class Heading:
    """A heading that begins at `start`; level 1 is the highest."""

    start: int
    level: int
    text: str


@dataclass(frozen=True)
class Passage:
    """A part of a text that is better not cut: a paragraph, a list item, a table."""

    start: int
    end: int
    cut: Cut


OutlinePart = Heading | Passage


def top(text: str) -> str:
    """Return whole lines from the top of the document, enough to find its title."""
    return text if len(text) <= TITLE_WITHIN else text[: text.rfind("\n", 0, TITLE_WITHIN) + 1]


def first_title(parts: Iterable[OutlinePart]) -> str:
    """Return the first heading, if it is of the highest level."""
    first = next((part for part in parts if isinstance(part, Heading)), None)
    return first.text if first and first.level == 1 else ""


def block_starts(text: str, parts: Iterable[OutlinePart], title: str) -> Iterator[BlockStart]:
    """Yield a section for each heading that has text below it; consecutive headings begin one section together.

    The first heading is in no path if it is the title.
    """
    path, waiting, first = dict[int, str](), list[int](), True
    for part in parts:
        if isinstance(part, Passage):
            heading = _joined(path)
            yield from _opened(waiting, heading) if waiting else [(part.start, heading, part.cut)]
            yield from block_starts_within(text, part.start, part.end, heading)
            waiting.clear()
            continue
        path = {level: words for level, words in path.items() if level < part.level}
        path[part.level] = "" if first and part.text == title else part.text
        waiting.append(part.start)
        first = False
    yield from _opened(waiting, _joined(path))


def _opened(starts: list[int], heading: str) -> list[BlockStart]:
    return [(start, heading, PART if at else SECTION) for at, start in enumerate(starts)]


def _joined(path: dict[int, str]) -> str:
    return HEADING_SEPARATOR.join(snippet(words, LONGEST_HEADING) for words in path.values() if words)
