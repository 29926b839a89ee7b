"""Scores are bounded, and their factors explain them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evervec.domain.extraction.knowledge import MessageText, Score, Signal
from evervec.extractors.local.lexicons import lexicons, technical_words
from evervec.extractors.local.reading import read
from evervec.extractors.local.scoring import SIGNAL_FROM, WEAK_SIGNAL_FROM, score, signal_of

phrases = st.sampled_from(
    [
        "the problem is that",
        "we decided to",
        "must",
        "thanks",
        "https://example.com",
        "`code`",
        "?",
        "#12",
        "\n\n",
        "Danke",
    ]
)


def scored(text: str, reply_to: int | None = None) -> Score:
    message = MessageText(1, text, "dev", datetime(2026, 1, 1, tzinfo=UTC), reply_to)
    return score(read(message, lexicons()), technical_words())


@settings(max_examples=150)
@given(st.lists(st.one_of(phrases, st.text(max_size=20)), max_size=40).map(" ".join))
def test_factors_add_up_to_the_value_before_clipping(text: str) -> None:
    found = scored(text)
    assert 0 <= found.value <= 1
    assert found.value == pytest.approx(min(1, max(0, sum(found.factors.values()))), abs=1e-9)
    assert found.signal is signal_of(found.value)
    assert all(found.factors.values())


def test_the_classes_begin_at_their_thresholds() -> None:
    assert signal_of(SIGNAL_FROM) is Signal.SIGNAL
    assert signal_of(WEAK_SIGNAL_FROM) is Signal.WEAK_SIGNAL
    assert signal_of(WEAK_SIGNAL_FROM - 0.001) is Signal.NOISE


def test_a_report_with_a_cause_and_a_fix_is_a_signal_and_says_why() -> None:
    found = scored(
        "The rescuer deadlocks when two clients start at once. The root cause is that both take the advisory lock"
        " in a different order. I fixed it by sorting the queue names before `LockMany` is called."
    )
    assert found.signal is Signal.SIGNAL
    assert {"length", "technical_terms", "statement_cues", "code"} <= set(found.factors)


def test_thanks_are_noise() -> None:
    found = scored("Thanks a lot, have a nice weekend!")
    assert found.signal is Signal.NOISE
    assert found.factors["chatter"] < 0


def test_a_reply_counts_a_little() -> None:
    text = "The index is used since the last deploy of the relay."
    assert scored(text, reply_to=4).value > scored(text).value
