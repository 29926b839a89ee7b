"""Typed statements out of a message's sentences: which ones are kept, their type, confidence and title."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from evervec.domain.extraction.knowledge import AtomType
from evervec.extractors.local.cues import token_starts
from evervec.extractors.local.reading import ReadMessage, ReadSentence
from evervec.extractors.local.sentences import SentencePlace

SHORTEST, LONGEST = 20, 500
"""Characters of an atom."""

_KEEP_FROM = dict.fromkeys(AtomType, 1.0) | {AtomType.REQUIREMENT: 1.5, AtomType.RISK: 1.5}
_LEAST_WORDS = 4  # words that carry meaning
_LONG = 32  # tokens
_TITLE, _TITLE_LEAST = 72, 28
_EMPHASIS = re.compile(r"(?<![\w`])([*_]{1,3})(?=\S)([^*_`]+)\1(?![\w`])")
_REFERENCE = re.compile(r"\s?\[\d+\](?=\W|$)|\s?\(#\d+\)")
_CLAUSE_START = re.compile(r"[,;:]\s|\s[–—-]\s|\s\(")
_MARK_TOKENS = frozenset(",;:.")
_CLAUSE = re.compile(r"[,;:](?=\s)|\s[–—-](?=\s)|\s\(|\s(?=(?:so|because|which|since|although|while|but|when|if)\s)")
_WORD = re.compile(r"[^\W\d_]{2,}")

# Where two types are equally sure, the earlier one says more.
_BY_RANK = (
    AtomType.BLOCKER,
    AtomType.DECISION,
    AtomType.QUESTION,
    AtomType.RISK,
    AtomType.PROBLEM,
    AtomType.REQUIREMENT,
    AtomType.SOLUTION,
    AtomType.INSIGHT,
    AtomType.IDEA,
)


@dataclass(frozen=True)
class Statement:
    """A sentence that is kept as an atom. `read` is where it came from; links look at its cues."""

    type: AtomType
    title: str
    content: str
    confidence: float
    read: ReadSentence


def statements(reading: ReadMessage) -> list[Statement]:
    """Return the best statements of a message, in their order there; a long message may have more of them."""
    words = sum(len(read.tokens) for read in reading.sentences)
    room = min(4, 1 + words // 30)
    has_problem = any(read.weight(AtomType.PROBLEM) >= 1 for read in reading.sentences)
    found = [statement for read in reading.sentences if (statement := classify(read, has_problem=has_problem))]
    unique = list({same_key(statement.content): statement for statement in reversed(found)}.values())
    best = sorted(unique, key=lambda statement: (-statement.confidence, statement.read.sentence.position))[:room]
    return sorted(best, key=lambda statement: statement.read.sentence.position)


def classify(read: ReadSentence, *, has_problem: bool = True) -> Statement | None:
    """Return the statement of a sentence; None where its cues are too weak or it says too little by itself.

    `has_problem`: whether its message speaks of a problem at all. A change is a solution of something, or just a change.
    """
    content = read.sentence.text
    if not SHORTEST <= len(content) <= LONGEST or read.has("routine") or not _stands_alone(read):
        return None
    weights = {kind: read.weight(kind) for kind in _BY_RANK}
    kind = max(_BY_RANK, key=lambda kind: (weights[kind], -_BY_RANK.index(kind)))
    unasked = 0.5 if kind is AtomType.SOLUTION and not has_problem else 0.0
    plain = read.says_plainly(kind) or (kind is AtomType.SOLUTION and has_problem)
    if not plain or weights[kind] < _KEEP_FROM[kind] + unasked + _extra_threshold(read):
        return None
    others = sorted(weights.values())[-2]
    return Statement(kind, title(read, kind), content, _confidence(read, weights[kind], others), read)


def same_key(content: str) -> str:
    """Return a key that is equal for contents that differ only in case, marks, white space and their ticket."""
    return " ".join(re.findall(r"\w+", _REFERENCE.sub("", content).casefold()))


def title(read: ReadSentence, kind: AtomType) -> str:
    """Return a short heading: the clause that makes the sentence a `kind`, without its lead-in, at most 72 characters."""
    text = read.sentence.text[_title_start(read, kind) :]
    text = _REFERENCE.sub("", _EMPHASIS.sub(r"\2", text)).strip(" .,;:–—-()")
    if len(text) > _TITLE:
        text = _cut(text)
    words = text.split()
    while len(words) > 4 and words[-1].strip("…,").casefold() in read.lexicon.function_words:
        words.pop()
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _extra_threshold(read: ReadSentence) -> float:
    """Return what is added to the threshold for a sentence that is a title, points elsewhere, or is long.

    A long sentence meets a cue by chance; one that opens with "this" needs its neighbour to be understood.
    """
    title_alone = 0.5 if read.sentence.place is SentencePlace.TITLE else 0.0
    return title_alone + (0.5 if _points_elsewhere(read) else 0.0) + (0.5 if len(read.tokens) > _LONG else 0.0)


def _points_elsewhere(read: ReadSentence) -> bool:
    """Return whether it opens with "this" or the like; "it turns out that" is only a lead-in."""
    return read.has("vague") and not any(hit.label == "lead_in" and hit.start == 0 for hit in read.hits)


def _stands_alone(read: ReadSentence) -> bool:
    meaning = [word for word in read.tokens if word not in read.lexicon.function_words and _WORD.match(word)]
    if read.sentence.text.endswith((":", "i.e.", "e.g.")) or read.sentence.text.startswith("("):
        return False
    letters = sum(character.isalpha() or character.isspace() for character in read.sentence.text)
    return len(set(meaning)) >= _LEAST_WORDS and letters >= 0.7 * len(read.sentence.text)


def _confidence(read: ReadSentence, weight: float, runner_up: float) -> float:
    length = len(read.tokens)
    sure = 0.40 + 0.12 * min(weight, 3.0) + 0.10 * min(max(weight - runner_up, 0.0), 1.5)
    sure -= 0.10 * _points_elsewhere(read) + 0.05 * (length < 8 or length > 45) + 0.10 * read.has("chatter")
    return round(min(0.95, max(0.2, sure)), 2)


def _title_start(read: ReadSentence, kind: AtomType) -> int:
    """Return where the heading begins: at the clause of the first strong cue of `kind`, but after a lead-in."""
    text, starts = read.sentence.text, token_starts(read.sentence.text)
    lead_in = max((hit.end for hit in read.hits if hit.label == "lead_in"), default=0)
    strong = next((hit for hit in read.hits if hit.label == kind and hit.weight >= 1), None)
    last = starts[strong.start] if strong else 0
    labelled = text.find(": ", 0, 80) + 2 if strong and strong.start <= 2 else 0
    if labelled > 2 and len(text) - labelled >= _TITLE_LEAST:
        return labelled
    clause = max(begin for begin in (0, *(match.end() for match in _CLAUSE_START.finditer(text))) if begin <= last)
    places = [lead_in, bisect_left(starts, clause), 0]
    place = next(place for place in sorted(places, reverse=True) if not place or _enough(text, starts, place))
    while place < len(starts) - 5 and read.tokens[place] in (read.lexicon.openers | _MARK_TOKENS):
        place += 1
    return _whole_word(text, starts[place]) if place else 0


def _enough(text: str, starts: Sequence[int], place: int) -> bool:
    return place < len(starts) - 3 and len(text) - starts[place] >= _TITLE_LEAST


def _whole_word(text: str, start: int) -> int:
    """Return the place of the opening bracket, quote or emphasis that belongs to the word at `start`."""
    while start and not text[start - 1].isspace():
        start -= 1
    return start


def _cut(text: str) -> str:
    clauses: Sequence[int] = [match.start() for match in _CLAUSE.finditer(text[: _TITLE + 1]) if match.start() >= 24]
    if clauses:
        return text[: clauses[-1]].rstrip(" ,;:–—-")
    return text[: _TITLE - 1].rsplit(" ", 1)[0].rstrip(" ,;:–—-") + "…"
