"""Texts to measure with: distinct, as long as chat messages are, in the words of the chat that ships with Evervec."""

import random
import statistics
from collections.abc import Sequence

from evervec.domain.extraction.message import IncomingMessage
from evervec.sources.telegram.demo import demo_chat_path
from evervec.sources.telegram.reader import read_export

SHORTEST, MEDIAN, LONGEST = 15, 60, 120
"""Words of a text."""


def chat() -> list[str]:
    """Return the messages of the demo chat."""
    return [entry.text for entry in read_export(demo_chat_path()) if isinstance(entry, IncomingMessage) and entry.text]


def messages(count: int, *, seed: int = 1) -> list[str]:
    """`count` distinct texts of 15 to 120 words, half of them longer than 60, words as frequent as in the chat."""
    chance = random.Random(seed)
    words = " ".join(chat()).split()
    return [f"{' '.join(chance.choices(words, k=_length(chance) - 1))} {number}" for number in range(count)]


def _length(chance: random.Random) -> int:
    return min(LONGEST, max(SHORTEST, round(chance.lognormvariate(0, 0.5) * MEDIAN)))


def described(texts: Sequence[str]) -> str:
    """Describe the texts for the report."""
    words = [len(text.split()) for text in texts]
    return f"{len(texts):,} texts of {min(words)} to {max(words)} words, median {statistics.median(words):.0f}"
