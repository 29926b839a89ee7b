"""Builds the immutable segment of a dataset: chooses the index by size, trains, fills and tunes it."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from evervec.domain.feed import Life, Vectors, Watermark
from evervec.mirror import threads as omp
from evervec.mirror.segment import Segment, Tuning
from evervec.mirror.tuning import tuned

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
    vectors: Vectors,
    life: Life,
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
    segment = tuned(_filled(spelled, vectors, life, watermark, check), target, threads=threads, check=check)
    if segment.tuning.recall >= target:
        return segment
    return tuned(_filled(FLAT, vectors, life, watermark, check), target, threads=threads, check=check)


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
    if "IVF" in factory and n < TRAINED_ON * lists:
        return FLAT
    return factory.replace("{K}", str(lists))


def _filled(spelled: str, vectors: Vectors, life: Life, watermark: Watermark, check: Callable[[], None]) -> Segment:
    index = _empty(spelled, vectors.rows.shape[1])
    if not index.is_trained:
        _train(index, vectors)
    for start in range(0, len(vectors), SLICE):
        check()
        index.add(vectors.rows[start : start + SLICE])
    arrays = vectors.ids, vectors.versions, vectors.kinds
    return Segment(index, spelled, Tuning(0.0, 0.0, 0), *arrays, life, watermark)


def _empty(spelled: str, dimensions: int) -> Any:
    try:
        index = faiss.index_factory(dimensions, spelled, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"FAISS knows no index {spelled!r}") from error
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def _train(index: Any, vectors: Vectors) -> None:
    """On a sample: of more, the lists would hardly lie better, and the memory would be there twice."""
    n = len(vectors)
    if isinstance(index, faiss.IndexRefine):
        base = faiss.downcast_index(index.base_index)
        base.cp.seed = SEED
        base.cp.niter = ROUNDS
        n = min(n, TRAINED_ON * base.nlist)
    places = np.sort(np.random.default_rng(SEED).choice(len(vectors), n, replace=False))
    index.train(vectors.rows[places])
