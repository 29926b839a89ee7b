"""Builds the immutable segment of a dataset: chooses the index by size, trains, fills and tunes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror import threads as omp
from evervec.mirror.scan import Rows
from evervec.mirror.segment import Segment, Tuning
from evervec.mirror.threads import faiss
from evervec.mirror.tuning import SAMPLE, tuned

FLAT = "SQfp16"
LISTS = "IVF{K},RaBitQfs,Refine(SQfp16)"
GRAPH = "HNSW32,SQfp16"
# A scan of so many takes as long as a way through an index: no index below.
FLAT_BELOW = 20_000
VECTORS_A_LIST = 300
TRAINED_ON = 40  # vectors for each list; fewer, and FAISS warns
ROUNDS = 5  # of k-means: twice as many would lay the lists a few percent better and cost as much again
SLICE = 16_384
EF_CONSTRUCTION = 100
SEED = 7


class Cancelled(Exception):
    """The build was told to stop."""


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
    """A segment of these vectors, searched so that recall@10 reaches `target`. The same vectors give the same segment.

    `factory` is FAISS's spelling of the index, where {K} stands for the number of lists; by itself it is flat up to
    20,000 vectors and `IVF{K},RaBitQfs,Refine(SQfp16)` above. Too few vectors to train on, or an index that can not
    reach the target with these: flat. `stop` is asked now and then.

    Raises `Cancelled` when `stop` says so, `ForkedError` in a forked process, `ValueError` for an unknown factory.
    """
    omp.use(threads)
    check = _checker(stop)
    spelled = _spelled(factory, len(vectors))
    if spelled != FLAT:
        segment = _tuned(spelled, vectors, identity, watermark, target, threads, check)
        if segment.tuning.recall >= target:
            return segment
    index = _empty(FLAT, vectors.rows.shape[1])
    places = np.arange(len(vectors))
    _add(index, vectors.rows, places, check)
    return _segment(index, FLAT, Tuning(target, 1.0, 0), vectors, places, identity, watermark)


def list_count(n: int) -> int:
    """How many lists n vectors are laid in: a power of two, some 300 vectors each."""
    return int(2 ** np.clip(np.round(np.log2(max(n, 1) / VECTORS_A_LIST)), 6, 11))


def _checker(stop: Callable[[], bool] | None) -> Callable[[], None]:
    def check() -> None:
        if stop is not None and stop():
            raise Cancelled

    check()
    return check


def _spelled(factory: str | None, n: int) -> str:
    if factory is None:
        factory = FLAT if n <= FLAT_BELOW else LISTS
    lists = list_count(n)
    if "IVF" in factory and n < TRAINED_ON * lists + SAMPLE:
        return FLAT
    return factory.replace("{K}", str(lists))


def _tuned(
    spelled: str,
    vectors: FeedVectors,
    identity: DatabaseIdentity,
    watermark: Watermark,
    target: float,
    threads: int,
    check: Callable[[], None],
) -> Segment:
    """The sample that tunes it comes in last: until then its vectors are strangers, as queries will be."""
    index, rows = _empty(spelled, vectors.rows.shape[1]), vectors.rows
    order = np.random.default_rng(SEED).permutation(len(vectors))
    sample = order[: min(SAMPLE, len(order) // 4)]
    rest = np.sort(order[len(sample) :])
    if not index.is_trained:
        _train(index, rows, order[len(sample) :])
    check()
    _add(index, rows, rest, check)
    early = _segment(index, spelled, Tuning(target, 0.0, 0), vectors, rest, identity, watermark)
    found = tuned(early, rows[sample], target, threads=threads, check=check)
    _add(index, rows, sample, check)
    return _segment(index, spelled, found, vectors, np.concatenate([rest, sample]), identity, watermark)


def _segment(
    index: Any,
    spelled: str,
    tuning: Tuning,
    vectors: FeedVectors,
    places: NDArray[np.int64],
    identity: DatabaseIdentity,
    watermark: Watermark,
) -> Segment:
    arrays = vectors.ids[places], vectors.versions[places], vectors.kinds[places]
    return Segment(index, spelled, tuning, *arrays, identity, watermark)


def _add(index: Any, rows: Rows, places: NDArray[np.int64], check: Callable[[], None]) -> None:
    """In slices, so that the vectors are never there twice."""
    for start in range(0, len(places), SLICE):
        check()
        index.add(rows[places[start : start + SLICE]])


def _empty(spelled: str, dimensions: int) -> Any:
    try:
        index = faiss.index_factory(dimensions, spelled, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS knows no index {spelled!r}") from error
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def _train(index: Any, rows: Rows, shuffled: NDArray[np.int64]) -> None:
    """On a sample: of more, the lists would hardly lie better, and the memory would be there twice."""
    if isinstance(index, faiss.IndexRefine):
        base = faiss.downcast_index(index.base_index)
        base.cp.seed, base.cp.niter = SEED, ROUNDS
        shuffled = shuffled[: TRAINED_ON * base.nlist]
    index.train(rows[shuffled])
