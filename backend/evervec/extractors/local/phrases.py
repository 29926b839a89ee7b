"""Noun phrases that could name a topic, separated from ordinary words by word lists: there is no parser here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from evervec.extractors.local.cues import Lexicon

PhraseKey = tuple[str, ...]
"""The stems of a phrase: what makes "Periodic jobs" and "periodic job" one topic."""

_LONGEST = 3
_WORD = re.compile(r"https?://\S+|`([^`\n]{1,60})`|#\d+|[^\W_][\w'’]*(?:[-./][^\W_]\w*)*|[^\w\s'’`]+")
_PLAIN = re.compile(r"[^\W\d_][\w’'+-]*(?:\.(?:js|py))?")
_IDENTIFIER = re.compile(r"[a-z]+[A-Z]|[A-Z][a-z]+[A-Z]|_|[A-Z]{2}")


@dataclass(frozen=True)
class Phrase:
    """A candidate for a topic's name: as it was written, and by which stems it is compared."""

    key: PhraseKey
    text: str


def phrases(text: str, lexicon: Lexicon) -> Iterator[Phrase]:
    """Yield every sequence of one to three words that could name a topic; marks, addresses and ordinary words end it."""
    words: list[str] = []
    for match in _WORD.finditer(text):
        word = match[1] or match[0]
        if _carries_topic(word, lexicon):
            words.append(word)
        else:
            yield from _grams(words, lexicon)
            words = []
    yield from _grams(words, lexicon)


def key_of(name: str, lexicon: Lexicon) -> PhraseKey:
    """Return the stems of a name, to compare it with phrases."""
    return tuple(lexicon.stem(word) for word in name.replace("`", "").split())


def display(text: str) -> str:
    """Return a phrase as a name: with a capital first letter, identifiers as they are."""
    first, _, _ = text.partition(" ")
    return text if _IDENTIFIER.search(first) else text[:1].upper() + text[1:]


def _carries_topic(word: str, lexicon: Lexicon) -> bool:
    plain = word.casefold().replace("’", "'")
    return (
        2 < len(word) <= 32
        and bool(_PLAIN.fullmatch(word))
        and plain not in lexicon.ordinary_words
        and not plain.endswith("n't")
    )


def _grams(sequence: list[str], lexicon: Lexicon) -> Iterator[Phrase]:
    for size in range(1, _LONGEST + 1):
        for start in range(len(sequence) - size + 1):
            words = sequence[start : start + size]
            yield Phrase(tuple(lexicon.stem(word) for word in words), " ".join(words))
