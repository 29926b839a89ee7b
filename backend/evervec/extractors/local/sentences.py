"""The sentences of a message's raw text: markup is read, hard wraps are undone, code and traces left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

READ_AT_MOST = 32_768
"""Characters of one message that are read: what is worth keeping stands near the top, and time stays bounded."""

_WRAP = 58  # a line that had room for the next line's first word was ended on purpose
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s{0,6}(?:[-*+•–]|\d{1,2}[.)])\s+(?=\S)")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s|[=\-*_~]{3,}\s*$")
_LEFT_OUT = re.compile(
    r"""\s*(?:
      >                                                                 # somebody else's words
    | \|.*\|\s*$                                                        # a table
    | \[\d+\]:?\s | \[[\w\ -]{1,20}\]\s*$                               # a footnote, [skip ci]
    | (?:fix(?:es|ed)?|close[sd]?|resolve[sd]?|refs?|see|related\ to|part\ of)[:\s]+(?:[\w/-]*\#\d+|https?://\S+)
      (?:[,;\s]+(?:and\s+)?(?:[\w/-]*\#\d+|https?://\S+))*\.?\s*$       # a trailer: Fixes #12, #13.
    | [A-Z][a-z]+(?:-[a-z]+)+-by:\s                                     # Co-authored-by:
    | <?https?://\S+>?\s*$                                              # an address alone
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_TRACE = re.compile(
    r"""\s*(?:
      Traceback\ \(most | File\ ".*",\ line\ \d | at\ [\w.$<>/]+\s?\(.* | goroutine\ \d+ | panic:\s | exit\ status\ \d
    | (?:[\w-]+\.)*\w*(?:Error|Exception|Panic)(?::\s|\s*$) | Caused\ by:\s | \.{3}\ \d+\ more
    | \S+\.(?:go|py|rs|js|ts|java|rb|c|cpp):\d+ | [\w./*()-]+\([^ ]*\)\s*$
    | \d{4}[-/]\d\d[-/]\d\d[T\ ]\d\d:\d\d | \[?(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL|TRACE)\]?[\s:]
    | [$%]\s\S | (?:---|\+\+\+)\ \S | @@\ -\d | (?:SELECT|INSERT|UPDATE|DELETE|ALTER|CREATE|DROP)\ .*;\s*$
    )"""  # traces, log lines, shell, diffs, SQL
    + r"| .*(?:[{;]|\)\s*=>|:=.*)\s*$ | \s*[}\])]+[,;)]*\s*$",
    re.VERBOSE,
)
_END = re.compile(r"""[.!?…]+["'”’»)\]*_`]*\s+""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.?g|i\.?e|etc|vs|cf|approx|resp|fig|mr|mrs|dr|sr|st|z\.\s?B|d\.\s?h|bzw|usw|ca|ggf|inkl|evtl"
    r"|т\.\s?[екпдо]|и\.?\s?т\.?\s?[дп]|см|др|пр|напр|рис|стр|p\.\s?ej|ej|ud|uds|[^\W\d_])\.$",
    re.IGNORECASE,
)


class SentencePlace(StrEnum):
    """The part of a message that a sentence is in."""

    TITLE = "title"
    PROSE = "prose"
    ITEM = "item"


@dataclass(frozen=True)
class Sentence:
    """One sentence, verbatim but for white space. `position` counts sentences from the top of the message."""

    text: str
    place: SentencePlace
    position: int


@dataclass
class _Paragraph:
    place: SentencePlace
    lines: list[str] = field(default_factory=list)


def collapse(text: str) -> str:
    """Return the text with single blanks for white space of any kind and length."""
    return " ".join(text.split())


def sentences(text: str) -> list[Sentence]:
    """Return the sentences of a message in order. Every one of them is a substring of `collapse(text)`."""
    found: list[Sentence] = []
    for paragraph in _paragraphs(text[:READ_AT_MOST]):
        for sentence in _split(collapse(" ".join(paragraph.lines))):
            found.append(Sentence(sentence, paragraph.place, len(found)))
    return found


def has_code(text: str) -> bool:
    """Return whether a message shows code: a fence, an inline span or a trace."""
    head = text[:READ_AT_MOST]
    return "`" in head or any(_TRACE.match(line[:500]) or line.startswith(("    ", "\t")) for line in head.splitlines())


def _paragraphs(text: str) -> list[_Paragraph]:
    done: list[_Paragraph] = []
    current: _Paragraph | None = None
    for line in _prose_lines(text):
        if line is None:
            current = None
            continue
        item = _ITEM.match(line)
        if current is None or item or not _continues(current.lines[-1], line):
            current = _Paragraph(SentencePlace.ITEM if item else SentencePlace.PROSE)
            done.append(current)
        current.lines.append(line[item.end() :].strip() if item else line.strip())
    _mark_title(done, text)
    return done


def _prose_lines(text: str) -> Iterator[str | None]:
    """Yield lines of prose; None where a paragraph ends (a blank line, code, a quote, a heading)."""
    fence = ""
    after_break = True
    for line in text.splitlines():
        opened = _FENCE.match(line)
        if fence:
            if opened and opened[1] == fence:
                fence = ""
            continue
        if opened and line.count(opened[1]) == 1:
            fence = opened[1]
        out = bool(opened) or not line.strip() or _left_out(line, after_break)
        after_break = out
        yield None if out else line


def _left_out(line: str, after_break: bool) -> bool:
    indented = after_break and line.startswith(("    ", "\t")) and not _ITEM.match(line)
    head = line[:500]
    return indented or any(pattern.match(head) for pattern in (_HEADING, _LEFT_OUT, _TRACE))


def _continues(before: str, line: str) -> bool:
    """Return whether `line` goes on with the sentence of `before`: a hard wrap, not a line ended on purpose."""
    before, line = before.strip(), line.strip()
    if before.endswith((".", "!", "?", "…", ":")):
        return True
    first_word = line.split(maxsplit=1)[0]
    return len(before) + 1 + len(first_word) > _WRAP or not (first_word[0].isupper() or first_word[0] in "`*_[(\"'#@")


def _mark_title(paragraphs: list[_Paragraph], text: str) -> None:
    """Mark a short first line without a full stop, alone in its paragraph, as the message's title."""
    if not paragraphs or paragraphs[0].place is not SentencePlace.PROSE or len(paragraphs[0].lines) != 1:
        return
    first = paragraphs[0].lines[0]
    opens = text.lstrip().startswith(first)
    if opens and len(first) <= 120 and not first.endswith((".", "!", "?", ":")) and len(paragraphs) > 1:
        paragraphs[0].place = SentencePlace.TITLE


def _split(paragraph: str) -> list[str]:
    """Cut at full stops, except after abbreviations and inside inline code."""
    found: list[str] = []
    start = ticks = scanned = 0
    casual = paragraph[:1].islower()  # who begins without a capital letter goes on without one
    for end in _END.finditer(paragraph):
        ticks += paragraph.count("`", scanned, end.end())
        scanned = end.end()
        following = paragraph[end.end() : end.end() + 1]
        stop = paragraph[max(start, end.start() - 12) : end.start() + 1]
        goes_on = following.islower() and not casual and "?" not in end[0]
        if ticks % 2 or goes_on or _ABBREVIATION.search(stop):
            continue
        found.append(paragraph[start : end.end()].strip())
        start = end.end()
    rest = paragraph[start:].strip()
    return [*found, rest] if rest else found
