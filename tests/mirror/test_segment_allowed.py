"""Sets of positions: what is taken out is out, and what was counted stays right."""

import numpy as np
import pytest

from evervec.mirror.position_set import PositionSet

LISTS = np.random.default_rng(5).integers(0, 12, 1_003).astype(np.int32)


def test_positions_are_taken_out_of_a_copy() -> None:
    whole = PositionSet.all(1_003)
    less = whole.without(np.array([3, 3, 1_002]))
    assert (whole.count, less.count) == (1_003, 1_001)
    assert whole.mask.all()
    assert less.positions.tolist() == [n for n in range(1_003) if n not in (3, 1_002)]
    assert less.without(np.array([3])) is less


def test_both_must_allow() -> None:
    even = PositionSet.of(np.arange(1_003) % 2 == 0)
    assert (even & PositionSet.of(np.arange(1_003) < 10)).positions.tolist() == [0, 2, 4, 6, 8]
    assert (even & (np.arange(1_003) < 4)).positions.tolist() == [0, 2]


@pytest.mark.parametrize("counted", [True, False])
def test_lists_are_counted_right_however_the_set_came_about(counted: bool) -> None:
    chance = np.random.default_rng(6)
    allowed = PositionSet.all(1_003)
    for step in range(30):
        if counted and step % 3 == 0:
            allowed.per_list(LISTS, 12)
        allowed = allowed.without(chance.integers(0, 1_003, 20))
        if step % 2 == 0:
            expected = np.bincount(LISTS[allowed.mask], minlength=12)
            assert (allowed.per_list(LISTS, 12) == expected).all()
            assert allowed.count == expected.sum()


def test_the_selector_says_what_the_mask_says() -> None:
    mask = np.random.default_rng(7).random(1_003) < 0.3
    selector = PositionSet.of(mask).selector
    assert [selector.is_member(n) for n in range(1_003)] == mask.tolist()
