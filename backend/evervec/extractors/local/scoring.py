"""The score of a message: a sum of named factors, each with its own limit; nothing is learned."""

import re
from collections.abc import Mapping

from evervec.domain.extraction.knowledge import AtomType, Score, Signal
from evervec.extractors.local.reading import ReadMessage
from evervec.extractors.local.sentences import READ_AT_MOST, has_code

SIGNAL_FROM = 0.45
WEAK_SIGNAL_FROM = 0.20

_IDENTIFIER = re.compile(
    r"`[^`\n]+`|\b[a-z]+[A-Z]\w*|\b[A-Z][a-z0-9]+[A-Z]\w*|\b\w+_\w+|\b[A-Z]{2,6}\b|\b\w+\.(?:py|go|rs|js|ts|sql|ya?ml|toml)\b"
    r"|\bv?\d+\.\d+(?:\.\d+)?\b|\b\d+\s?(?:ms|s|MB|GB|KB|%|k|rps)(?!\w)"
)
_LINK = re.compile(r"https?://\S")
_TYPES = tuple(AtomType)


def score(reading: ReadMessage, technical: frozenset[str]) -> Score:
    """Return the score of a message. `factors` hold what is not zero, rounded to 3 digits; they add up to `value`."""
    factors = {name: round(share, 3) for name, share in _factors(reading, technical).items()}
    factors = {name: share for name, share in factors.items() if share}
    value = round(min(1.0, max(0.0, sum(factors.values()))), 3)
    return Score(reading.message.message_id, value, signal_of(value), factors)


def signal_of(value: float) -> Signal:
    """Return the class of a score in [0, 1]."""
    if value >= SIGNAL_FROM:
        return Signal.SIGNAL
    return Signal.WEAK_SIGNAL if value >= WEAK_SIGNAL_FROM else Signal.NOISE


def _factors(reading: ReadMessage, technical: frozenset[str]) -> Mapping[str, float]:
    text = reading.message.text[:READ_AT_MOST]
    words = [token for read in reading.sentences for token in read.tokens if token[0].isalnum()]
    terms = len(_IDENTIFIER.findall(text)) + sum(word in technical for word in words)
    return {
        "length": 0.20 * min(1.0, len(words) / 60),
        "technical_terms": 0.20 * min(1.0, terms / 5),
        "statement_cues": 0.35 * min(1.0, _statements(reading) / 3),
        "question": 0.15 if any(read.weight("question") >= 1 for read in reading.sentences) else 0.0,
        "code": 0.05 if has_code(text) else 0.0,
        "link": 0.05 if reading.tickets or _LINK.search(text) else 0.0,
        "reply": 0.05 if reading.message.reply_to is not None and len(words) >= 5 else 0.0,
        "chatter": -0.25 * _share(reading, "chatter"),
        "routine": -0.25 * _share(reading, "routine"),
    }


def _statements(reading: ReadMessage) -> float:
    """Return the sum of every sentence's strongest statement: two sentences that state something count double."""
    return sum(max(0.0, min(1.5, max(read.weight(kind) for kind in _TYPES))) for read in reading.sentences)


def _share(reading: ReadMessage, label: str) -> float:
    """Return the share of the sentences that have a cue of `label`, by words."""
    total = sum(len(read.tokens) for read in reading.sentences)
    return sum(len(read.tokens) for read in reading.sentences if read.has(label)) / total if total else 0.0
