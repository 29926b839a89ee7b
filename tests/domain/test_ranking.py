"""Ranking by words and meaning: rare words lead, a whole match counts most, and every score is from 0 to 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain import ranking
from evervec.domain.ranking import ALWAYS_RARE, MOST_LED_TO


def test_a_rarer_word_weighs_more_and_an_unknown_one_most() -> None:
    weights = [ranking.rarity(count, 1_000) for count in (0, 1, 10, 500, 1_000)]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] >= 0


def test_rare_words_lead_and_all_words_together() -> None:
    words = ranking.weigh("english", {"queue": 4_000, "e0382": 2, "borrow": 30, "zzz": 0}, 10_000, 20)
    assert words.is_rare
    # a frequent word alone leads to nothing; a row that has all known words is wanted
    assert words.leading == [["e0382"], ["borrow"], ["e0382", "borrow", "queue"]]


def test_rare_words_lead_until_they_lead_to_many() -> None:
    words = ranking.weigh("english", {"a": MOST_LED_TO - 10, "b": MOST_LED_TO - 5}, 100_000, 20)
    assert words.leading == [["a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("counts", "leading"),
    [
        ({"the": 900, "queue": 800, "job": 700, "is": 950}, [["job", "queue"], ["job", "the"], ["queue", "the"]]),
        ({"queue": 900}, [["queue"]]),
        ({"unknown": 0}, []),
        ({}, []),
    ],
)
def test_without_a_rare_word_frequent_ones_lead_in_pairs(counts: dict[str, int], leading: list[list[str]]) -> None:
    words = ranking.weigh("english", counts, 1_000, 20)
    assert words.leading == leading
    assert not words.is_rare


def test_of_few_rows_every_word_is_rare() -> None:
    assert ranking.weigh("english", {"the": ALWAYS_RARE}, ALWAYS_RARE, 20).is_rare


def test_what_stands_in_quotation_marks_is_a_phrase() -> None:
    assert ranking.phrases_of('who said "out of  disk" and "" or "??" or "x"') == ["out of disk", "x"]
    words = ranking.weigh("english", {"disk": 500}, 1_000, 20, ["out of disk"])
    assert words.is_rare
    without, with_phrase = ranking.coverage(np.full(2, words.weights["disk"]), np.array([0.0, 1.0]), words)
    assert without < 0.2
    assert with_phrase == pytest.approx(1.0)


shares = st.floats(0, 1)


@given(
    st.lists(st.tuples(st.floats(-1, 1) | st.none(), shares, st.integers(0, 500)), min_size=1, max_size=20),
    st.floats(1, 300),
)
def test_scores_are_from_0_to_1_and_more_of_either_is_never_worse(
    rows: list[tuple[float | None, float, int]], average: float
) -> None:
    cosines = np.array([np.nan if cosine is None else cosine for cosine, _, _ in rows])
    covered = np.array([share for _, share, _ in rows])
    lengths = np.array([float(length) for _, _, length in rows])
    by_words = ranking.by_words(covered, lengths, average)
    assert ((by_words >= 0) & (by_words <= 1 + 1e-12)).all()
    nearest = np.sort(cosines[~np.isnan(cosines)])[::-1]
    scores = ranking.together(cosines, nearest, by_words, float(covered.max()))
    assert ((scores >= 0) & (scores <= 1 + 1e-12)).all()
    for one in range(len(rows)):
        for other in range(len(rows)):
            nearer = np.isnan(cosines[other]) or cosines[one] >= cosines[other]
            if nearer and by_words[one] >= by_words[other]:
                assert scores[one] >= scores[other] - 1e-12


def test_a_question_that_is_found_word_by_word_is_ranked_by_its_words() -> None:
    cosines, nearest = np.array([0.9, 0.5]), np.array([0.9, 0.5, 0.4])
    whole = ranking.together(cosines, nearest, np.array([0.0, 0.95]), 0.95)
    partly = ranking.together(cosines, nearest, np.array([0.0, 0.3]), 0.3)
    assert whole[1] > whole[0]
    assert partly[0] > partly[1]
