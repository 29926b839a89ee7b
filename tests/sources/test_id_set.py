"""The id set agrees with a set, and stays small."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from evervec.sources.telegram.id_set import IdSet


@given(st.lists(st.integers(-3000, 3000) | st.integers(-(1 << 63), 1 << 63)))
def test_it_tells_first_from_second_like_a_set(numbers: list[int]) -> None:
    ids, known = IdSet(), set[int]()
    for number in numbers:
        assert ids.add(number) is (number not in known)
        known.add(number)


def test_a_hundred_thousand_neighbours_take_few_bytes() -> None:
    ids = IdSet()
    for number in range(1, 300_001, 3):
        ids.add(number)
    blocks = ids._blocks
    assert sys.getsizeof(blocks) + sum(map(sys.getsizeof, blocks.values())) < 100_000
