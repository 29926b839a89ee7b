"""The main segment against numpy: every kind of index, filters, what is degenerate, and never silently short."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.build import FLAT_FACTORY, HNSW_FACTORY, IVF_FACTORY, BuildCancelled, build
from evervec.mirror.faiss_library import faiss
from evervec.mirror.position_set import PositionSet
from evervec.mirror.segment import EXACT_BELOW_ALLOWED, Segment

DIM, N = 64, 24_000
IDENTITY = DatabaseIdentity("cluster", 1, 1, 1, DIM, "schema")
NOW = Watermark(10, 10)
Rows = NDArray[np.float32]


def clustered(n: int, seed: int = 3, clusters: int = 60) -> Rows:
    """Return unit vectors around `clusters` centres; the centres are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, DIM))
    chance = np.random.default_rng(seed)
    rows = centres[chance.integers(0, clusters, n)] + 0.6 * chance.standard_normal((n, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def vectors(rows: Rows) -> FeedVectors:
    n = len(rows)
    return FeedVectors(np.arange(n) * 3 + 1, np.full(n, 7), np.ones(n, np.int16), rows)


def made(rows: Rows, factory: str | None = None, target: float = 0.98) -> Segment:
    return build(vectors(rows), IDENTITY, NOW, target=target, factory=factory)


def places(segment: Segment) -> NDArray[np.int64]:
    """Return which row is at each position: a segment has an order of its own."""
    return (segment.ids - 1) // 3


def allowing(segment: Segment, mask: NDArray[np.bool_]) -> PositionSet:
    """Return the positions of the rows at which a mask is true."""
    return PositionSet.of(mask[places(segment)])


ROWS, QUERIES = clustered(N), clustered(200, seed=4)


@pytest.fixture(scope="module", params=[FLAT_FACTORY, IVF_FACTORY, HNSW_FACTORY])
def segment(request: pytest.FixtureRequest) -> Segment:
    return made(ROWS, request.param)


@pytest.fixture(scope="module")
def lists() -> Segment:
    return made(ROWS, IVF_FACTORY)


def truth(rows: Rows, queries: Rows, k: int, mask: NDArray[np.bool_] | None = None) -> Rows:
    """Return the k highest scores of each query, `(nq, k)`, falling."""
    scores = queries @ (rows if mask is None else rows[mask]).T
    return np.asarray(-np.sort(-scores, axis=1)[:, :k])


def recall(segment_scores: Rows, best: Rows) -> float:
    """Return the share of the hits that are as good as the last true one; half precision rounds in the fourth digit."""
    return float((segment_scores >= best[:, -1:] - 1e-3).mean())


def test_it_finds_the_nearest(segment: Segment) -> None:
    found = segment.search(QUERIES, 10)
    assert recall(found.scores, truth(ROWS, QUERIES, 10)) >= 0.97
    assert (np.diff(found.scores, axis=1) <= 0).all()
    scores = np.einsum("qd,qkd->qk", QUERIES, ROWS[places(segment)[found.positions]])
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)
    assert all(len(set(row)) == 10 for row in found.positions.tolist())
    assert found.exact == (segment.factory == FLAT_FACTORY)
    assert not found.widened


@pytest.mark.parametrize("k", [1, 3])
def test_the_first_of_a_few_is_as_good_as_the_first_of_ten(segment: Segment, k: int) -> None:
    found = segment.search(QUERIES, k)
    assert recall(found.scores, truth(ROWS, QUERIES, k)) >= 0.97
    mask = np.random.default_rng(8).random(N) < 0.5
    found = segment.search(QUERIES, k, allowing(segment, mask))
    assert recall(found.scores, truth(ROWS, QUERIES, k, mask)) >= 0.97


def test_strangers_are_found_as_well_as_the_tuning_says(segment: Segment) -> None:
    strict = made(ROWS, segment.factory, target=0.99)
    assert strict.tuning.target == 0.99
    assert recall(strict.search(QUERIES, 10).scores, truth(ROWS, QUERIES, 10)) >= 0.985
    assert strict.tuning.recall >= 0.99


def test_exact_is_exact(segment: Segment) -> None:
    best = truth(ROWS, QUERIES, 20)
    for count in (1, 200):
        found = segment.search(QUERIES[:count], 20, exact=True)
        np.testing.assert_allclose(found.scores, best[:count], atol=1e-3)
        assert found.exact


@pytest.mark.parametrize("share", [0.7, 0.5, 0.25, 0.05, 0.005])
def test_a_filter_hides_nothing_that_it_allows(segment: Segment, share: float) -> None:
    mask = np.random.default_rng(8).random(N) < share
    allowed = allowing(segment, mask)
    for exact in (False, True):
        found = segment.search(QUERIES, 10, allowed, exact=exact)
        assert mask[places(segment)[found.positions]].all()
        assert (found.positions >= 0).all()
        assert recall(found.scores, truth(ROWS, QUERIES, 10, mask)) >= (0.99 if exact else 0.97)


def test_one_query_with_a_filter_is_scanned_as_exactly_as_many(segment: Segment) -> None:
    for share in (0.005, 0.05):
        mask = np.random.default_rng(9).random(N) < share
        found = segment.search(QUERIES[:1], 10, allowing(segment, mask), exact=True)
        np.testing.assert_allclose(found.scores, truth(ROWS, QUERIES[:1], 10, mask), atol=1e-3)


def test_whole_clusters_deleted_leave_the_rest_findable(segment: Segment) -> None:
    nearest_centre = np.argmax(ROWS @ clustered(40, seed=5).T, axis=1)
    mask = nearest_centre >= 14
    found = segment.search(QUERIES, 10, allowing(segment, mask))
    assert 0.4 < mask.mean() < 0.9
    assert recall(found.scores, truth(ROWS, QUERIES, 10, mask)) >= 0.98


def test_a_filter_far_from_the_query_is_reached(segment: Segment) -> None:
    centres = clustered(8, seed=6)
    nearest = np.argmax(ROWS @ centres.T, axis=1)
    far = np.argsort(centres @ QUERIES[0])[:3]
    mask = np.isin(nearest, far)
    assert EXACT_BELOW_ALLOWED < mask.sum() < N / 2
    found = segment.search(QUERIES[:1], 10, allowing(segment, mask))
    assert (found.positions >= 0).all()
    assert recall(found.scores, truth(ROWS, QUERIES[:1], 10, mask)) >= 0.9


def test_it_is_never_short(segment: Segment) -> None:
    few = np.zeros(N, np.bool_)
    few[:7] = True
    found = segment.search(QUERIES[:3], 10, allowing(segment, few))
    assert (np.sort(places(segment)[found.positions[:, :7]]) == np.arange(7)).all()
    assert (found.positions[:, 7:] == -1).all()
    assert np.isneginf(found.scores[:, 7:]).all()
    for asked in (1, 100, 3_000):
        assert (segment.search(QUERIES[:3], asked).positions >= 0).all()


def test_more_than_the_tuned_lists_hold_is_searched_wider_and_said(lists: Segment) -> None:
    wide = lists.search(QUERIES[:2], 15_000)
    assert wide.widened
    assert (wide.positions >= 0).all()
    everything = lists.search(QUERIES[:1], N + 5)
    assert everything.positions[0, :N].tolist() != [-1] * N
    assert (everything.positions[0, N:] == -1).all()
    assert len(set(everything.positions[0, :N].tolist())) == N


def test_an_estimate_that_is_no_number_ends_in_an_exact_answer() -> None:
    same = made(np.repeat(ROWS[:1], 3_000, axis=0), "IVF64,RaBitQfs,Refine(SQfp16)")
    found = same.search(QUERIES[:2], 10)
    assert (found.positions >= 0).all()
    np.testing.assert_allclose(found.scores[:, 0], QUERIES[:2] @ ROWS[0], atol=1e-3)


def test_a_query_that_is_no_number_crashes_nothing(segment: Segment) -> None:
    broken = np.full((2, DIM), np.nan, np.float32)
    for allowed in (None, allowing(segment, np.arange(N) % 2 == 0)):
        assert segment.search(broken, 5, allowed).positions.shape == (2, 5)


def test_nothing_allowed_is_an_answer(segment: Segment) -> None:
    found = segment.search(QUERIES[:2], 5, PositionSet.of(np.zeros(N, np.bool_)))
    assert (found.positions == -1).all()
    assert found.exact
    assert segment.search(QUERIES[:0], 5).positions.shape == (0, 5)


@pytest.mark.parametrize("n", [0, 1, 3, 50])
@pytest.mark.parametrize("factory", [None, IVF_FACTORY, HNSW_FACTORY])
def test_tiny_datasets(n: int, factory: str | None) -> None:
    tiny = made(ROWS[:n], factory)
    found = tiny.search(QUERIES[:2], 5)
    assert ((found.positions >= 0).sum(axis=1) == min(n, 5)).all()
    assert tiny.vectors(np.arange(n)).shape == (n, DIM)
    assert len(tiny) == n


@pytest.mark.parametrize("factory", [FLAT_FACTORY, IVF_FACTORY, HNSW_FACTORY])
def test_equal_vectors_are_all_found(factory: str) -> None:
    same = made(np.repeat(ROWS[:1], 6_000, axis=0), factory)
    for queries in (ROWS[:1], QUERIES[:2]):
        found = same.search(queries, 10)
        assert all(len(set(row) - {-1}) == 10 for row in found.positions.tolist())


@pytest.mark.parametrize("factory", [FLAT_FACTORY, IVF_FACTORY, HNSW_FACTORY])
def test_duplicates_do_not_hide_each_other(factory: str) -> None:
    rows = np.concatenate([ROWS[:3_000], ROWS[:3_000]])
    found = made(rows, factory).search(ROWS[:50], 2)
    assert recall(found.scores, truth(rows, ROWS[:50], 2)) >= 0.95


def test_it_is_chosen_by_size() -> None:
    assert made(ROWS[:20_000]).factory == FLAT_FACTORY
    assert made(ROWS).factory.startswith("IVF64,RaBitQfs")


def test_an_index_that_can_not_reach_the_target_is_not_taken() -> None:
    assert made(ROWS[:6_000], "IVF64,RaBitQfs,Refine(SQfp16)", target=1.1).factory == FLAT_FACTORY


def test_the_same_vectors_give_the_same_segment(lists: Segment) -> None:
    again = made(ROWS, IVF_FACTORY)
    assert again.tuning == lists.tuning
    assert (faiss.serialize_index(again.index) == faiss.serialize_index(lists.index)).all()


def test_vectors_come_back_in_half_precision(segment: Segment) -> None:
    positions = np.array([5, 0, N - 1, 5])
    assert (segment.vectors(positions) == ROWS[places(segment)[positions]].astype(np.float16).astype(np.float32)).all()


def test_memory_counts_codes_and_arrays(segment: Segment) -> None:
    assert N * (2 * DIM + 18) <= segment.memory <= N * (2 * DIM + 18 + 350)


def test_it_searches_from_a_mapped_file(segment: Segment, tmp_path: object) -> None:
    path = f"{tmp_path}/index"
    faiss.write_index(segment.index, path)
    mapped = Segment(
        faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC),
        segment.factory,
        segment.tuning,
        segment.ids,
        segment.versions,
        segment.kinds,
        segment.identity,
        segment.watermark,
    )
    mask = PositionSet.of(np.random.default_rng(1).random(N) < 0.4)
    for allowed in (None, mask):
        for exact in (False, True):
            here, there = (one.search(QUERIES, 10, allowed, exact=exact) for one in (segment, mapped))
            assert (here.positions == there.positions).all()
    assert (mapped.vectors(np.arange(9)) == segment.vectors(np.arange(9))).all()


def test_many_threads_search_at_once(segment: Segment) -> None:
    mask = PositionSet.of(np.random.default_rng(2).random(N) < 0.4)
    expected = [segment.search(QUERIES, 10, allowed).positions for allowed in (None, mask)]
    wrong: list[str] = []

    def searching(allowed: PositionSet | None, right: NDArray[np.int64]) -> None:
        for start in range(0, 200, 5):
            found = segment.search(QUERIES[start : start + 5], 10, allowed).positions
            if (found != right[start : start + 5]).mean() > 0.02:
                wrong.append(f"{start}: {found}")

    fresh = PositionSet.of(mask.mask)
    threads = [threading.Thread(target=searching, args=(None, expected[0])) for _ in range(4)]
    threads += [threading.Thread(target=searching, args=(fresh, expected[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_build_can_be_stopped() -> None:
    calls = iter([False, False, True])
    with pytest.raises(BuildCancelled):
        build(vectors(ROWS), IDENTITY, NOW, stop=lambda: next(calls))


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda segment: segment.search(np.zeros((1, 8), np.float32), 3), "64"),
        (lambda segment: segment.search(QUERIES[0], 3), "64"),
        (lambda segment: segment.search(QUERIES, 0), "k is 0"),
        (lambda segment: segment.search(QUERIES, 3, PositionSet.all(5)), "5 positions"),
    ],
)
def test_wrong_questions_are_refused(segment: Segment, ask: Callable[[Segment], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ask(segment)


def test_an_unknown_factory_is_refused() -> None:
    with pytest.raises(ValueError, match="Nonsense"):
        made(ROWS[:10], "Nonsense")
