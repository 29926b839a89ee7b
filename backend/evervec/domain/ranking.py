"""Rank rows by words, and by words and meaning together; pure arithmetic over arrays, where the weights are from is in

docs/decisions/0024."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FREQUENT = 0.2
"""A word that more than this share of the rows has, or more than `MOST_LED_TO`, does not lead to rows by itself."""
ALWAYS_RARE = 50
"""However small a dataset is, words of so few rows lead to them."""
MOST_LED_TO = 3_000
"""Rarest first, words lead to rows until these are so many."""
FUSED_ROWS = 50
"""So many rows of each list are ranked together."""

SATURATION, LENGTH_SHARE = 1.2, 0.4
LEAST_WEIGHT, MOST_WEIGHT = 0.2, 2.0
TURNS_AT, TURNS_WITHIN = 0.6, 0.03
"""What words weigh against meaning rises steeply where the best row has this share of the question's words, by their rarity."""

UNDERSCORE = "zqz"
"""What stands for an underscore in a word, so that a name with some is one word."""

QUOTED = re.compile(r'"([^"]*)"')

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class QuestionWords:
    """The words of a question in one language: what each weighs, by its rarity, and which of them lead to rows.

    A row has to have all words of one of `leading`. `is_rare` is whether a word of few rows, or a phrase, is among them: only
    then words tell more than meaning does.
    """

    language: str
    weights: Mapping[str, float]
    leading: Sequence[Sequence[str]]
    is_rare: bool
    average_length: float
    phrases: Sequence[str] = ()
    phrase_weight: float = 0.0

    @property
    def total(self) -> float:
        """Return what all of its words and phrases weigh."""
        return sum(self.weights.values()) + self.phrase_weight * len(self.phrases)


def weigh(
    language: str, counts: Mapping[str, int], rows: int, average_length: float, phrases: Sequence[str] = ()
) -> QuestionWords:
    """Return a question's words, of which `counts` says how many of the `rows` have each."""
    # a name that no row has whole counts by its parts
    weights = {word: rarity(count, rows) for word, count in counts.items() if count or _is_plain(word)}
    known = sorted((count, word) for word, count in counts.items() if count)
    # of many rows, a share is more than a search looks at
    rare = [one for one in known if one[0] <= max(ALWAYS_RARE, min(FREQUENT * rows, MOST_LED_TO))]
    leading = _leading(rare, known) if rare else _pairs([word for _, word in known[:3]])
    is_rare = bool(rare or phrases)
    return QuestionWords(language, weights, leading, is_rare, max(average_length, 1.0), tuple(phrases), rarity(0, rows))


def rarity(count: int, rows: int) -> float:
    """Return the inverse document frequency of a word, as BM25 has it; never below zero."""
    return math.log(1 + (max(rows - count, 0) + 0.5) / (count + 0.5))


def _leading(rare: Sequence[tuple[int, str]], known: Sequence[tuple[int, str]]) -> list[list[str]]:
    leading: list[list[str]] = []
    led_to = 0
    for count, word in rare:
        if leading and led_to + count > MOST_LED_TO:
            break
        leading.append([word])
        led_to += count
    # a row that has them all is wanted, however frequent each is
    return [*leading, [word for _, word in known]] if len(known) > 1 else leading


def _pairs(words: Sequence[str]) -> list[list[str]]:
    """Return each two of some frequent words: a row that has only one of them is not wanted."""
    return [list(pair) for pair in combinations(words, 2)] if len(words) > 1 else [[word] for word in words]


def _is_plain(word: str) -> bool:
    return word.isalnum() and UNDERSCORE not in word


def phrases_of(question: str) -> list[str]:
    """Return what stands in quotation marks in a question."""
    found = [" ".join(phrase.split()) for phrase in QUOTED.findall(question)]
    return [phrase for phrase in found if any(character.isalnum() for character in phrase)]


def coverage(matched: Scores, present: Scores, words: QuestionWords) -> Scores:
    """Return the share `(n,)` of a question that each row has, from 0 to 1, by the rarity of its words.

    `matched` is the weight of the words that it has, `present` how many of the phrases.
    """
    total = words.total
    found = (matched + words.phrase_weight * present) / total if total else matched * 0.0
    return np.clip(found, 0.0, 1.0)


def by_words(covered: Scores, lengths: Scores, average_length: float) -> Scores:
    """Return the score `(n,)` of rows by words alone, from 0 to 1: their coverage, a little less for a long text."""
    relative = lengths / average_length
    damped = (SATURATION + 1) / (1 + SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * relative))
    return np.asarray(covered * damped / _MOST_DAMPED, np.float64)


_MOST_DAMPED = (SATURATION + 1) / (1 + SATURATION * (1 - LENGTH_SHARE))


def together(cosines: Scores, nearest: Scores, words: Scores, best_coverage: float) -> Scores:
    """Return the score `(n,)` of rows by meaning and words, from 0 to 1.

    `cosines` are those of the rows (NaN without a vector), `nearest` those of the rows nearest to the question, which stand for
    the scale: the first of them is 1, the last 0. `words` are the scores by words, `best_coverage` the largest coverage.
    """
    low, high = (float(nearest.min()), float(nearest.max())) if len(nearest) else (0.0, 1.0)
    scale = high - low if high > low else 1.0
    meaning = np.nan_to_num(np.clip((cosines - low) / scale, 0.0, 1.0))
    if high <= low:
        meaning = np.where(np.isnan(cosines), 0.0, np.where(cosines >= high, 1.0, 0.0))
    steep = 1 / (1 + math.exp(min(max((TURNS_AT - best_coverage) / TURNS_WITHIN, -500.0), 500.0)))
    weight = 2 * _MOST_DAMPED * (LEAST_WEIGHT + MOST_WEIGHT * steep)
    return np.asarray((meaning + weight * words) / (1 + weight), np.float64)
