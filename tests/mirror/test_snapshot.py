"""A snapshot: main segment and delta answer as one, with filters, ties and every number of vectors."""

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.domain.feed import FeedVectors
from evervec.mirror.build import build
from evervec.mirror.filter import Filter, LruCache
from evervec.mirror.snapshot import Snapshot, SnapshotHits
from tests.mirror.oracle import DIMENSIONS, IDENTITY, START, Oracle, row_of, vectors

FILTERS = [
    None,
    Filter(),
    Filter(kinds=frozenset({1})),
    Filter(kinds=frozenset({0, 2})),
    Filter(kinds=frozenset({9})),
    Filter(kinds=frozenset()),
    Filter(ids=np.array([5, 905, 905, 12_345, -4, 17])),
    Filter(ids=np.arange(2_000)[::-1]),
    Filter(ids=np.empty(0, np.int64)),
    Filter(kinds=frozenset({2}), ids=np.arange(0, 1_200, 7)),
]


def questions(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32) * 3


def of(held: FeedVectors, factory: str | None = None) -> Snapshot:
    return Snapshot.of(build(held, IDENTITY, START, factory=factory))


def recall(answer: SnapshotHits, right: SnapshotHits) -> float:
    pairs = zip(answer.ids.tolist(), right.ids.tolist(), strict=True)
    return sum(len(set(mine) & set(wanted)) for mine, wanted in pairs) / right.ids.size


def edited() -> tuple[Snapshot, Oracle]:
    """Return 900 in main, of which 101 are deleted or moved, and 150 in the delta, of which 5 are deleted."""
    shuffled = np.random.default_rng(2).permutation(900)
    snapshot = of(vectors(shuffled)).plus(vectors(range(850, 1_000), 2)).without(np.arange(0, 999, 18))
    alive = dict.fromkeys(range(900), 1) | dict.fromkeys(range(850, 1_000), 2)
    return snapshot, Oracle({number: version for number, version in alive.items() if number % 18})


@pytest.mark.parametrize("only", FILTERS, ids=range(len(FILTERS)))
@pytest.mark.parametrize("k", [1, 10, 2_000])
def test_an_answer_is_what_a_scan_of_everything_says(only: Filter | None, k: int) -> None:
    snapshot, oracle = edited()

    oracle.check(snapshot, questions(1), k, only)
    oracle.check(snapshot, questions(20), k, only)
    oracle.agrees(snapshot)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_vectors_are_all_found(count: int) -> None:
    snapshot = of(vectors(range(count)))

    answer = Oracle(dict.fromkeys(range(count), 1)).check(snapshot, questions(2), 10)

    assert len(snapshot) == count
    assert answer.exact
    assert not answer.widened


def test_an_empty_main_segment_with_a_delta() -> None:
    snapshot = of(FeedVectors.none(DIMENSIONS)).plus(vectors(range(5)))

    Oracle(dict.fromkeys(range(5), 1)).check(snapshot, questions(3), 10)


def test_vectors_that_are_all_equal_are_each_found_once() -> None:
    rows = np.tile(vectors([1]).rows, (1_500, 1))
    held = vectors(range(1_500))
    snapshot = of(FeedVectors(held.ids[:1_000], held.versions[:1_000], held.kinds[:1_000], rows[:1_000]))
    snapshot = snapshot.plus(FeedVectors(held.ids[1_000:], held.versions[1_000:], held.kinds[1_000:], rows[1_000:]))

    answer = snapshot.search(rows[:1], 1_600)

    assert set(answer.ids[0, :1_500].tolist()) == set(range(1_500))
    assert (answer.ids[0, 1_500:] == -1).all()
    np.testing.assert_allclose(answer.scores[0, :1_500], 1, atol=2e-3)


def test_the_length_of_a_query_says_nothing() -> None:
    snapshot, _ = edited()
    query = questions(1)

    near, far = snapshot.search(query * 1e-20, 5), snapshot.search(query * 1e20, 5)

    np.testing.assert_array_equal(near.ids, far.ids)
    np.testing.assert_allclose(near.scores, far.scores, atol=1e-5)


def test_a_query_without_a_direction_is_equally_far_from_all() -> None:
    snapshot, _ = edited()

    answer = snapshot.search(np.zeros((1, DIMENSIONS), np.float32), 5)

    assert (answer.ids != -1).all()
    assert (answer.scores == 0).all()


def test_what_can_not_be_searched_is_refused_in_words() -> None:
    snapshot, _ = edited()

    with pytest.raises(ValueError, match=r"\(1, 8\).* 16 wide"):
        snapshot.search(np.ones((1, 8), np.float32), 5)
    with pytest.raises(ValueError, match="not finite"):
        snapshot.search(np.full((1, DIMENSIONS), np.nan, np.float32), 5)
    with pytest.raises(ValueError, match="at least 1 neighbour, not 0"):
        snapshot.search(questions(1), 0)


def test_through_inverted_lists_no_answer_is_short_and_most_are_right() -> None:
    rng = np.random.default_rng(3)
    held = vectors(rng.permutation(6_000))
    snapshot = (
        of(held, "IVF64,RaBitQfs,Refine(SQfp16)").plus(vectors(range(5_900, 6_100), 2)).without(np.arange(0, 6_100, 3))
    )
    oracle = Oracle({number: 1 + (number >= 5_900) for number in range(6_100) if number % 3})
    queries = questions(40)

    for only in (None, Filter(kinds=frozenset({1})), Filter(ids=rng.permutation(6_100)[:40])):
        right = oracle.check(snapshot, queries, 10, only)
        answer = snapshot.search(queries, 10, only)
        assert (answer.ids != -1).all()
        assert recall(answer, right) >= 0.9


@pytest.mark.parametrize("factory", [None, "IVF64,RaBitQfs,Refine(SQfp16)", "HNSW32,SQfp16"])
@pytest.mark.parametrize("gone", [6, 40, 900, 5_000])
def test_a_query_whose_neighbours_were_all_deleted_finds_the_next(factory: str | None, gone: int) -> None:
    snapshot = of(vectors(range(6_000)), factory)
    queries = questions(5)
    nearest = snapshot.search(queries[:1], gone, exact=True).ids[0]
    left = Oracle({number: 1 for number in range(6_000) if number not in set(nearest.tolist())})

    snapshot = snapshot.without(nearest)

    right = left.check(snapshot, queries, 10)
    answer = snapshot.search(queries, 10)
    assert (answer.ids != -1).all()
    assert (snapshot.versions_of(answer.ids.ravel()) == 1).all()
    if gone < 10:
        assert recall(answer, right) >= 0.9


def test_versions_are_found_where_an_id_is_alive() -> None:
    snapshot, _ = edited()

    found = snapshot.versions_of(np.array([0, 1, 849, 850, 999, 5_000]))

    np.testing.assert_array_equal(found, [-1, 1, 1, 2, 2, -1])


def test_vectors_are_read_back_wherever_they_are() -> None:
    snapshot, oracle = edited()
    ids, versions = oracle.versions()

    np.testing.assert_allclose(snapshot.vectors(ids[::-1]), row_of(ids, versions)[::-1], atol=1e-3)
    with pytest.raises(KeyError, match="Vector 18 is not alive"):
        snapshot.vectors(np.array([1, 18]))


def test_filters_that_say_the_same_are_equal() -> None:
    assert Filter(ids=np.array([3, 1, 2])) == Filter(ids=np.array([1, 2, 3]))
    assert hash(Filter(ids=np.array([3, 1, 2]))) == hash(Filter(ids=np.array([1, 2, 3])))
    assert Filter(ids=np.array([1, 2, 3])) != Filter(ids=np.array([1, 2, 4]))
    assert Filter(ids=np.empty(0, np.int64)) != Filter()
    assert Filter(kinds=frozenset({1})) != Filter(kinds=frozenset({1}), ids=np.array([1]))


def test_what_was_asked_for_last_is_kept() -> None:
    made: list[int] = []
    recent: LruCache[int, int] = LruCache(2)

    for key in (1, 2, 1, 3, 1, 2):
        recent.get(key, lambda key=key: made.append(key) or key)

    assert made == [1, 2, 3, 2]


def test_memory_grows_with_what_is_held() -> None:
    snapshot = of(vectors(range(900)))

    more = snapshot.plus(vectors(range(2_000, 3_000)))

    assert more.memory - snapshot.memory == 1_000 * (2 * DIMENSIONS + 18)
