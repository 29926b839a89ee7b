"""Builds the immutable segment of a dataset: chooses the index by size, trains, fills and tunes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.faiss_library import faiss, use_threads
from evervec.mirror.scan import FloatArray
from evervec.mirror.segment import Segment, Tuning
from evervec.mirror.tuning import SAMPLE_QUERIES, tune

FLAT_FACTORY = "SQfp16"
IVF_FACTORY = "IVF{K},RaBitQfs,Refine(SQfp16)"
HNSW_FACTORY = "HNSW32,SQfp16"
# Scanning so many vectors takes as long as searching an index: below, there is no index.
FLAT_BELOW = 20_000
VECTORS_PER_LIST = 300
TRAINED_PER_LIST = 40  # vectors for each list; FAISS warns if there are fewer
KMEANS_ROUNDS = 5  # of k-means: twice as many would improve the lists by a few percent and double the time
ADDED_ROWS = 16_384
EF_CONSTRUCTION = 100
SEED = 7


class BuildCancelled(Exception):
    """The `stop` function ended a build."""


def build(
    vectors: FeedVectors,
    identity: DatabaseIdentity,
    watermark: Watermark,
    *,
    target: float = 0.98,
    factory: str | None = None,
    threads: int = 1,
    stop: Callable[[], bool] | None = None,
) -> Segment:
    """Return a segment of these vectors, tuned so that recall@10 reaches `target`.

    The same vectors give the same segment. `factory` is FAISS's spelling of the index, where {K} stands for the number
    of lists; the default is a flat index up to 20,000 vectors and `IVF{K},RaBitQfs,Refine(SQfp16)` above. The index is
    also flat if there are too few vectors to train on, or if the chosen index cannot reach the target with these
    vectors. `stop` is called now and then.

    Raises `BuildCancelled` when `stop` returns True, `ForkedError` in a forked process, `ValueError` for an unknown
    factory.
    """
    use_threads(threads)
    check = _checker(stop)
    spelling = _spelled(factory, len(vectors))
    if spelling != FLAT_FACTORY:
        segment = _tuned(spelling, vectors, identity, watermark, target, threads, check)
        if segment.tuning.recall >= target:
            return segment
    index = _empty(FLAT_FACTORY, vectors.rows.shape[1])
    positions = np.arange(len(vectors))
    _add(index, vectors.rows, positions, check)
    return _segment(index, FLAT_FACTORY, Tuning(target, 1.0, 0), vectors, positions, identity, watermark)


def list_count(n: int) -> int:
    """Return the number of lists for n vectors: a power of two, about 300 vectors each."""
    return int(2 ** np.clip(np.round(np.log2(max(n, 1) / VECTORS_PER_LIST)), 6, 11))


def _checker(stop: Callable[[], bool] | None) -> Callable[[], None]:
    def check() -> None:
        if stop is not None and stop():
            raise BuildCancelled

    check()
    return check


def _spelled(factory: str | None, n: int) -> str:
    if factory is None:
        factory = FLAT_FACTORY if n <= FLAT_BELOW else IVF_FACTORY
    lists = list_count(n)
    if "IVF" in factory and n < TRAINED_PER_LIST * lists + SAMPLE_QUERIES:
        return FLAT_FACTORY
    return factory.replace("{K}", str(lists))


def _tuned(
    spelling: str,
    vectors: FeedVectors,
    identity: DatabaseIdentity,
    watermark: Watermark,
    target: float,
    threads: int,
    check: Callable[[], None],
) -> Segment:
    """Build and tune an index.

    The sample that tunes it is added last: until then the index does not contain it, as it will not contain queries.
    """
    index, rows = _empty(spelling, vectors.rows.shape[1]), vectors.rows
    order = np.random.default_rng(SEED).permutation(len(vectors))
    sample = order[: min(SAMPLE_QUERIES, len(order) // 4)]
    rest = np.sort(order[len(sample) :])
    if not index.is_trained:
        _train(index, rows, order[len(sample) :])
    check()
    _add(index, rows, rest, check)
    early = _segment(index, spelling, Tuning(target, 0.0, 0), vectors, rest, identity, watermark)
    found = tune(early, rows[sample], target, threads=threads, check=check)
    _add(index, rows, sample, check)
    return _segment(index, spelling, found, vectors, np.concatenate([rest, sample]), identity, watermark)


def _segment(
    index: Any,
    spelling: str,
    tuning: Tuning,
    vectors: FeedVectors,
    positions: NDArray[np.int64],
    identity: DatabaseIdentity,
    watermark: Watermark,
) -> Segment:
    arrays = vectors.ids[positions], vectors.versions[positions], vectors.kinds[positions]
    return Segment(index, spelling, tuning, *arrays, identity, watermark)


def _add(index: Any, rows: FloatArray, positions: NDArray[np.int64], check: Callable[[], None]) -> None:
    """Add the rows at some positions in slices, so that memory never holds a second copy of all."""
    for start in range(0, len(positions), ADDED_ROWS):
        check()
        index.add(rows[positions[start : start + ADDED_ROWS]])


def _empty(spelling: str, dimensions: int) -> Any:
    try:
        index = faiss.index_factory(dimensions, spelling, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS has no index {spelling!r}") from error
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def _train(index: Any, rows: FloatArray, shuffled: NDArray[np.int64]) -> None:
    """Train on a sample: more vectors would hardly improve the lists, and memory would hold a second copy of all."""
    if isinstance(index, faiss.IndexRefine):
        base = faiss.downcast_index(index.base_index)
        base.cp.seed, base.cp.niter = SEED, KMEANS_ROUNDS
        shuffled = shuffled[: TRAINED_PER_LIST * base.nlist]
    index.train(rows[shuffled])
