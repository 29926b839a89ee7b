"""Cues: word patterns of one language that show what a sentence does, and their search; the words are data files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

GAP = ".."
_GAP_WORDS = 4
_TOKEN = re.compile(
    r"`+[^`\n]*`+|https?://\S+|#\d+|[^\W_][\w'’]*(?:[-./:][\w'’]+)*|[?!,;:]|\.(?=\s|$)|[\U0001F300-\U0001FAFF☀-➿]"
)

Tokens = Sequence[str]


@dataclass(frozen=True)
class PatternWord:
    """One place of a pattern: the whole words and the beginnings (`turn*`) that fit there; neither is a gap."""

    whole: frozenset[str]
    beginnings: tuple[str, ...]

    def fits(self, token: str) -> bool:
        """Return whether a token fits here."""
        return token in self.whole or token.startswith(self.beginnings)

    @property
    def is_gap(self) -> bool:
        """Return whether this is a gap, where up to four words of any kind fit."""
        return not self.whole and not self.beginnings


Pattern = tuple[PatternWord, ...]


@dataclass(frozen=True)
class Cue:
    """A pattern of words that speaks for `label` (against it where `weight` is negative)."""

    label: str
    weight: float
    pattern: Pattern
    at_start: bool


@dataclass(frozen=True)
class CueMatch:
    """A cue that was found; `end` is the index after its last token."""

    label: str
    weight: float
    start: int
    end: int


def tokens(text: str) -> list[str]:
    """Return lower-case words and marks; inline code, addresses and ticket numbers as `<code>`, `<url>` and `<ref>`."""
    return [_token(match[0]) for match in _TOKEN.finditer(text)]


def token_starts(text: str) -> list[int]:
    """Return where each of `tokens(text)` begins in the text."""
    return [match.start() for match in _TOKEN.finditer(text)]


def parse_cue(label: str, weight: float, line: str) -> Cue:
    """Return a line of a cue file as a Cue: words, `turn*` any ending, `a|b` either, `..` a gap of up to four words.

    `^` in front: only at the start of a sentence, or after its opener ("but", "also").
    """
    words = line.casefold().split()
    at_start = words[0] == "^"
    return Cue(label, weight, tuple(map(_word, words[at_start:])), at_start)


class Lexicon:
    """The cues of one language, with its word lists: `function`, `openers`, `technical`, `broad`, and `ordinary`.

    `ordinary` words carry no topic in any language that is read, since people mix them in one sentence.
    """

    def __init__(
        self,
        language: str,
        cues: Iterable[Cue],
        words: Mapping[str, frozenset[str]],
        endings: Sequence[str],
    ) -> None:
        self.language = language
        self.function_words = words["function"]
        self.ordinary_words = words["ordinary"]
        self.technical_words = words["technical"]
        self.broad_words = words["broad"]
        self.openers = words["openers"]
        self._endings = tuple(sorted(endings, key=lambda ending: (-len(ending), ending)))
        self._by_pair: dict[tuple[str, str], list[Cue]] = defaultdict(list)
        self._by_word: dict[str, list[Cue]] = defaultdict(list)
        self._by_prefix: dict[str, list[Cue]] = defaultdict(list)
        self.labels: set[str] = set()
        for cue in cues:
            self._index(cue)

    def find(self, sentence: Tokens) -> list[CueMatch]:
        """Return every cue of the sentence, each at its first place, in order of place."""
        found: dict[int, CueMatch] = {}
        opening = self._opening(sentence)
        for index, token in enumerate(sentence):
            for cue in self._beginning_with(token, sentence[index + 1] if index + 1 < len(sentence) else ""):
                if id(cue) in found or (cue.at_start and index not in (0, opening)):
                    continue
                end = _match(cue.pattern, sentence, index)
                if end:
                    found[id(cue)] = CueMatch(cue.label, cue.weight, index, end)
        return list(found.values())

    def share(self, sentence: Tokens) -> int:
        """Return how many tokens are function words of this language."""
        return sum(map(self.function_words.__contains__, sentence))

    def stem(self, word: str) -> str:
        """Return a word without its ending, good enough to see that two forms are one word."""
        return _stem(word, self._endings)

    def _index(self, cue: Cue) -> None:
        """Index a cue by its first two words where both are whole: many cues open with words that are in most sentences."""
        self.labels.add(cue.label)
        first, second = cue.pattern[0], cue.pattern[1] if len(cue.pattern) > 1 else _word(GAP)
        for beginning in first.beginnings:
            self._by_prefix[beginning[:3]].append(cue)
        for word in first.whole:
            if second.beginnings or second.is_gap:
                self._by_word[word].append(cue)
            for following in () if second.beginnings else second.whole:
                self._by_pair[word, following].append(cue)

    def _beginning_with(self, first: str, second: str) -> Iterator[Cue]:
        yield from self._by_pair.get((first, second), ())
        yield from self._by_word.get(first, ())
        yield from self._by_prefix.get(first[:3], ())

    def _opening(self, sentence: Tokens) -> int:
        index = 0
        while index < len(sentence) and (sentence[index] in self.openers or sentence[index] in ",:;"):
            index += 1
        return index


def choose(lexicons: Sequence[Lexicon], sentence: Tokens, fallback: Lexicon | None = None) -> Lexicon:
    """Return the lexicon whose function words the sentence uses most; `fallback` (else the first) where none is used."""
    shares = [lexicon.share(sentence) for lexicon in lexicons]
    best = max(shares, default=0)
    if best == 0 or (fallback is not None and shares[lexicons.index(fallback)] == best):
        return fallback or lexicons[0]
    return lexicons[shares.index(best)]


def _token(text: str) -> str:
    match text[0]:
        case "`":
            return "<code>"
        case "#":
            return "<ref>"
        case _:
            return "<url>" if text.startswith(("http://", "https://")) else text.replace("’", "'").casefold()


def _match(pattern: Pattern, sentence: Tokens, index: int) -> int:
    """Return the index after the match of `pattern` at `index`; 0 where it does not match."""
    for place, word in enumerate(pattern):
        if word.is_gap:
            ends = (_match(pattern[place + 1 :], sentence, at) for at in range(index, index + _GAP_WORDS + 1))
            return next((end for end in ends if end), 0)
        if index >= len(sentence) or not word.fits(sentence[index]):
            return 0
        index += 1
    return index


def _word(text: str) -> PatternWord:
    forms = [] if text == GAP else text.split("|")
    beginnings = tuple(form[:-1] for form in forms if form.endswith("*"))
    return PatternWord(frozenset(form for form in forms if not form.endswith("*")), beginnings)


@lru_cache(maxsize=1 << 16)
def _stem(word: str, endings: tuple[str, ...]) -> str:
    word = word.casefold()
    cut = next((ending for ending in endings if word.endswith(ending) and len(word) - len(ending) >= 3), "")
    return word[: len(word) - len(cut)]
