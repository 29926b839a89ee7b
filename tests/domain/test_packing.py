"""Texts into requests: nothing lost, nothing twice, no request larger than the provider takes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.packing import pack
from evervec.domain.protocols import EmbedLimits

TOKENS = st.lists(st.integers(0, 500), max_size=60)
LIMITS = st.builds(EmbedLimits, texts=st.integers(1, 20), tokens=st.integers(1, 600))


@given(TOKENS, LIMITS)
def test_every_text_is_in_exactly_one_batch(tokens: list[int], limits: EmbedLimits) -> None:
    assert sorted(index for batch in pack(tokens, limits) for index in batch) == list(range(len(tokens)))


@given(TOKENS, LIMITS)
def test_a_batch_stays_below_both_limits_unless_one_text_is_too_long_by_itself(
    tokens: list[int], limits: EmbedLimits
) -> None:
    for batch in pack(tokens, limits):
        assert 1 <= len(batch) <= limits.texts
        assert len(batch) == 1 or sum(tokens[index] for index in batch) <= limits.tokens


@given(TOKENS, LIMITS)
def test_texts_of_like_length_travel_together_shortest_first(tokens: list[int], limits: EmbedLimits) -> None:
    lengths = [tokens[index] for batch in pack(tokens, limits) for index in batch]
    assert lengths == sorted(lengths)


@given(TOKENS, LIMITS)
def test_no_batch_could_have_taken_the_first_text_of_the_next_one(tokens: list[int], limits: EmbedLimits) -> None:
    batches = list(pack(tokens, limits))
    for batch, following in pairwise(batches):
        fits = sum(tokens[index] for index in batch) + tokens[following[0]] <= limits.tokens
        assert len(batch) == limits.texts or not fits


@given(TOKENS, st.integers(1, 20))
def test_without_a_limit_on_tokens_every_batch_but_the_last_is_full(sizes: list[int], texts: int) -> None:
    batches = list(pack(sizes, EmbedLimits(texts=texts, tokens=None)))
    assert all(len(batch) == texts for batch in batches[:-1])
    assert sum(map(len, batches)) == len(sizes)


def test_the_same_texts_are_packed_the_same_way_again() -> None:
    limits = EmbedLimits(texts=3, tokens=100)
    assert list(pack([5, 90, 5, 200, 5, 5], limits)) == [[0, 2, 4], [5, 1], [3]]
    assert list(pack([], limits)) == []
