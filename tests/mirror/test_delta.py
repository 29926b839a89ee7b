"""The delta: what is added is found, what is dead is not, and an index that was published is never added to."""

import numpy as np
import pytest

from evervec.domain.feed import Digest
from evervec.mirror.delta import SMALLEST_TIER, Delta
from tests.mirror.oracle import DIMENSIONS, row_of, vectors


def empty() -> Delta:
    return Delta(DIMENSIONS)


def test_a_vector_that_was_added_is_its_own_nearest() -> None:
    delta = empty().plus(vectors(range(50), 3))

    ((scores, ids),) = delta.search(row_of(np.arange(50), np.full(50, 3)), 1, None)

    np.testing.assert_array_equal(ids[:, 0], np.arange(50))
    np.testing.assert_allclose(scores[:, 0], 1, atol=2e-3)


def test_an_older_delta_stays_as_it_was() -> None:
    before = empty().plus(vectors(range(10)))
    index = before.tiers[0].index

    after = before.plus(vectors(range(10, 20))).without(np.array([3]))

    assert (len(before), len(after)) == (10, 19)
    assert index.ntotal == 10
    assert before.versions_of(np.array([3]))[0] == 1
    assert after.versions_of(np.array([3]))[0] == -1


def test_small_additions_end_in_a_few_tiers() -> None:
    delta, rng = empty(), np.random.default_rng(1)
    total = 0
    while total < 30_000:
        size = int(rng.integers(1, 400))
        delta = delta.plus(vectors(range(total, total + size)))
        total += size
        assert len(delta.tiers) <= 4

    assert len(delta) == delta.stored == total
    held = np.concatenate([entries.ids for entries in delta.live_entries()])
    np.testing.assert_array_equal(np.sort(held), np.arange(total))
    assert len(delta.tiers[-1].entries) < SMALLEST_TIER or total % SMALLEST_TIER == 0


def test_the_same_ids_written_again_and_again_do_not_fill_it() -> None:
    delta = empty()
    for version in range(1, 200):
        again = vectors(range(100), version)
        delta = delta.without(again.ids).plus(again)

    assert len(delta) == 100
    assert delta.stored < 3 * SMALLEST_TIER
    np.testing.assert_array_equal(delta.versions_of(np.arange(100)), np.full(100, 199))


def test_a_tier_that_is_mostly_dead_is_written_again() -> None:
    delta = empty().plus(vectors(range(5_000))).without(np.arange(4_000))

    assert len(delta) == delta.stored == 1_000
    ((_, ids),) = delta.search(row_of(np.arange(4_000, 4_010), np.ones(10, np.int64)), 1, None)
    np.testing.assert_array_equal(ids[:, 0], np.arange(4_000, 4_010))


def test_a_tier_without_a_living_vector_goes() -> None:
    delta = empty().plus(vectors(range(5))).without(np.arange(10))

    assert delta.tiers == ()
    assert delta.search(row_of(np.arange(1), np.ones(1, np.int64)), 3, None) == []


def test_merging_does_not_round_a_vector_twice() -> None:
    delta = empty().plus(vectors(range(3)))
    codes = delta.tiers[0].codes().copy()
    for start in range(3, 3_000, 100):
        delta = delta.plus(vectors(range(start, start + 100)))

    held = np.concatenate([entries.ids for entries in delta.live_entries()])
    kept = np.concatenate([tier.codes() for tier in delta.tiers])
    np.testing.assert_array_equal(kept[np.argsort(held)[:3]], codes)


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 8_000])
def test_the_digest_is_that_of_what_is_alive(count: int) -> None:
    delta = empty().plus(vectors(range(count), 7)).without(np.arange(0, count, 5))

    left = vectors([number for number in range(count) if number % 5], 7)
    assert delta.digest == Digest.of(left.ids, left.versions)
    assert len(delta) == len(left)
