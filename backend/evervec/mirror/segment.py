"""An immutable segment: a FAISS index over positions 0..n-1, arrays that say which vector is where, and its search."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, Ids, Watermark
from evervec.mirror import scan
from evervec.mirror.faiss_library import faiss, use_threads
from evervec.mirror.position_set import Positions, PositionSet
from evervec.mirror.scan import FloatArray, ScoredPositions

Counts = NDArray[np.int64]

# Up to this many allowed vectors, a scan is faster than a filtered search of the index.
EXACT_BELOW_ALLOWED = 5_000
# A graph search walks through vectors that are not allowed; below this share it misses neighbours, and a scan is as fast.
GRAPH_SHARE = 0.2
WIDEN_FACTOR = 4
MOST_EFFORT = 10.0
EFFORT_STEP = 1.5
TUNED_HITS = 10  # how many hits a segment is tuned for


@dataclass(frozen=True)
class Tuning:
    """The search parameters of a segment, found when it was built, against exact results of `sampled` queries.

    `target` is the recall@10 that was asked for, `recall` what the sample then reached. `nprobe` and `k_factor` are for
    IVF, `ef` for HNSW; a flat scan has none of them. `spread` says how fast neighbours scatter over the lists: those up
    to the d-th are in the nearest `nprobe * (d / 10) ** spread` lists.
    """

    target: float
    recall: float
    sampled: int
    nprobe: int | None = None
    k_factor: float | None = None
    ef: int | None = None
    spread: float = 0.5


@dataclass(frozen=True)
class SegmentHits:
    """The result of a search with nq queries.

    `scores` float32 `(nq, k)` are inner products, falling; `positions` int64 `(nq, k)`. Where there are fewer than k
    hits, the score is -inf and the position -1. `exact`: every allowed vector was compared. `widened`: the tuned
    parameters did not bring enough hits, so that more was searched.
    """

    scores: FloatArray
    positions: Positions
    exact: bool = False
    widened: bool = False


@dataclass(frozen=True)
class Segment:
    """n vectors of one dataset as they were at a watermark. Immutable: changes are kept beside it.

    `index` is the FAISS index, which numbers its vectors 0..n-1; `factory` is FAISS's spelling of it. At position i is
    the vector `ids[i]` in version `versions[i]` of kind `kinds[i]`: int64, int64, int16, each `(n,)`, ids unique, in
    any order. `identity` and `watermark` say for which database, and at which moment of it, this holds.
    """

    index: Any
    factory: str
    tuning: Tuning
    ids: Ids
    versions: Ids
    kinds: NDArray[np.int16]
    identity: DatabaseIdentity
    watermark: Watermark

    def __len__(self) -> int:
        return len(self.ids)

    def search(
        self, queries: FloatArray, k: int, allowed: PositionSet | None = None, *, exact: bool = False, threads: int = 1
    ) -> SegmentHits:
        """Return the k nearest of each query `(nq, dim)` float32 of length 1, among the allowed positions (None: all).

        If the tuned parameters bring fewer hits than there are, it searches wider and at last everything, and the
        result says so. Any number of threads may search at once. Raises `ValueError` for queries of another shape or a
        k below 1, `ForkedError` in a forked process.
        """
        use_threads(threads)
        queries = self._checked(queries, k, allowed)
        if allowed is not None and allowed.count == len(self):
            allowed = None
        wanted = min(k, len(self) if allowed is None else allowed.count)
        if not wanted or not len(queries):
            return SegmentHits(*scan.no_hits(len(queries), k), exact=True)
        if exact or self._scans(allowed):
            return SegmentHits(
                *scan.pad_columns(scan.exact_search(self.storage, queries, wanted, allowed), k), exact=True
            )
        return self._approximate(queries, wanted, k, allowed)

    def candidates(self, queries: FloatArray, count: int, nprobe: int) -> Positions:
        """Return the positions that the lists find for each query, before re-ranking: `(nq, count)`, -1 if none."""
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        found: Positions = self.ivf.search(queries, count, params=parameters)[1]
        return found

    def vectors(self, positions: Positions) -> FloatArray:
        """Return the vectors at some positions, `(m, dim)` float32, in the precision of fp16."""
        use_threads(1)
        return scan.decode(self.storage, positions)

    @property
    def dimensions(self) -> int:
        """Return the width of the vectors."""
        return int(self.index.d)

    @cached_property
    def memory(self) -> int:
        """Return the bytes held: codes, graph or lists, and the arrays.

        For a mapped file: when all of it is in memory.
        """
        return _index_bytes(self) + self.ids.nbytes + self.versions.nbytes + self.kinds.nbytes

    @cached_property
    def storage(self) -> Any:
        """Return the flat `SQfp16` index that holds the vectors, whatever finds them."""
        if self.ivf is not None:
            return faiss.downcast_index(self.index.refine_index)
        return faiss.downcast_index(self.index.storage) if self.graph is not None else self.index

    @cached_property
    def ivf(self) -> Any:
        """Return the index of inverted lists, None if there is none."""
        return faiss.downcast_index(self.index.base_index) if isinstance(self.index, faiss.IndexRefine) else None

    @cached_property
    def graph(self) -> Any:
        """Return the HNSW graph, None if there is none."""
        return self.index.hnsw if isinstance(self.index, faiss.IndexHNSW) else None

    @cached_property
    def lists(self) -> NDArray[np.int32]:
        """Return the inverted list of each position, `(n,)`. Only with `ivf`."""
        lists = np.zeros(len(self), np.int32)
        inverted = self.ivf.invlists
        for number in range(self.ivf.nlist):
            size = inverted.list_size(number)
            if size:
                lists[faiss.rev_swig_ptr(inverted.get_ids(number), size)] = number
        return lists

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Return how many positions each inverted list holds, `(nlist,)`. Only with `ivf`."""
        return np.bincount(self.lists, minlength=self.ivf.nlist)

    @cached_property
    def _centroids(self) -> Any:
        return faiss.downcast_index(self.ivf.quantizer).get_xb()

    def _checked(self, queries: FloatArray, k: int, allowed: PositionSet | None) -> FloatArray:
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise ValueError(f"queries have the shape {queries.shape}, this segment needs (nq, {self.index.d})")
        if k < 1:
            raise ValueError(f"k is {k}: it must be at least 1")
        if allowed is not None and len(allowed) != len(self):
            raise ValueError(f"{len(allowed)} positions in the allowed set, but this segment has {len(self)}")
        return np.ascontiguousarray(queries, np.float32)

    def _scans(self, allowed: PositionSet | None) -> bool:
        """Return whether an exact scan is the best way to search."""
        if self.index is self.storage:
            return True
        if allowed is None:
            return False
        return allowed.count <= EXACT_BELOW_ALLOWED or (
            self.graph is not None and allowed.count < GRAPH_SHARE * len(self)
        )

    def _approximate(self, queries: FloatArray, wanted: int, k: int, allowed: PositionSet | None) -> SegmentHits:
        if self.ivf is not None:
            hits = self._probed(queries, wanted, allowed)
        else:
            hits = self._walked(queries, wanted, allowed, max(self.tuning.ef or 0, wanted))
        short = np.flatnonzero(hits[1][:, wanted - 1] < 0)
        if not len(short):
            return SegmentHits(*scan.pad_columns(hits, k))
        return self._widened(queries, hits, short, wanted, k, allowed)

    def _widened(
        self,
        queries: FloatArray,
        hits: ScoredPositions,
        short: NDArray[np.intp],
        wanted: int,
        k: int,
        allowed: PositionSet | None,
    ) -> SegmentHits:
        """Search again, wider and wider, for the queries that have too few hits."""
        scores, positions = hits
        width, most = self._width(wanted)
        while len(short) and width < most:
            width = min(width * WIDEN_FACTOR, most)
            scores[short], positions[short] = self._again(queries[short], wanted, allowed, width)
            short = short[positions[short, wanted - 1] < 0]
        everything = len(short) == len(queries)
        if len(short):
            scores[short], positions[short] = scan.exact_search(self.storage, queries[short], wanted, allowed)
        return SegmentHits(*scan.pad_columns((scores, positions), k), exact=everything, widened=True)

    def _width(self, wanted: int) -> tuple[int, int]:
        """Return the tuned nprobe or ef, and the widest that makes sense before everything is scanned."""
        if self.ivf is not None:
            return self._reach(wanted), int(self.ivf.nlist)
        return max(self.tuning.ef or 0, wanted), WIDEN_FACTOR * WIDEN_FACTOR * max(self.tuning.ef or 0, wanted)

    def _again(self, queries: FloatArray, wanted: int, allowed: PositionSet | None, width: int) -> ScoredPositions:
        if self.ivf is not None:
            return self._probe(queries, wanted, allowed, width)
        return self._walked(queries, wanted, allowed, width)

    def _walked(self, queries: FloatArray, k: int, allowed: PositionSet | None, ef: int) -> ScoredPositions:
        """Search the graph. With a filter, ask it for more hits and drop those that are not allowed.

        A graph search that may not step on a deleted region returns wrong neighbours; this way it returns too few at
        worst.
        """
        if allowed is None:
            return self._walk(queries, k, ef)
        count = min(max(ef, int(np.ceil(2 * k * len(self) / allowed.count))), len(self))
        scores, positions = self._walk(queries, count, count)
        scores[~allowed.mask[positions] | (positions < 0)] = -np.inf
        first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, positions = np.take_along_axis(scores, first, 1), np.take_along_axis(positions, first, 1)
        positions[np.isneginf(scores)] = -1
        return scores, positions

    def _walk(self, queries: FloatArray, k: int, ef: int) -> ScoredPositions:
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        return scan.pad_missing(*self.index.search(queries, k, params=parameters))

    def _probed(self, queries: FloatArray, k: int, allowed: PositionSet | None) -> ScoredPositions:
        """Search the lists: for each query as many as its neighbours may be in, and only lists with allowed vectors."""
        if allowed is None:
            return self._probe(queries, k, None, self._reach(k))
        counts = allowed.per_list(self.lists, self.ivf.nlist)
        to_centroids = self._to_centroids(queries)
        order = np.argsort(-to_centroids, axis=1)
        filled = order[counts[order] > 0].reshape(len(queries), -1)
        share = allowed.count / len(self)
        efforts = self._efforts(share, counts, order[:, : self._reach(k)])
        scores, positions = scan.no_hits(len(queries), k)
        for effort in np.unique(efforts):
            at = np.flatnonzero(efforts == effort)
            # If one in s vectors is allowed, the k nearest allowed ones are among the nearest k * s.
            lists = np.ascontiguousarray(filled[at, : int(self._reach(k / share) * effort)])
            near = np.take_along_axis(to_centroids[at], lists, axis=1)
            count = int(np.ceil(max(k, TUNED_HITS) * (self.tuning.k_factor or 1.0) * effort**0.5))
            candidates = self._candidates_in(queries[at], count, allowed, lists, near)
            scores[at], positions[at] = scan.top_k(
                scan.score_candidates(self.storage, queries[at], candidates), candidates, k
            )
        return scores, positions

    def _reach(self, depth: float) -> int:
        """Return in how many of its nearest lists the neighbours of a query up to that depth are."""
        lists = (self.tuning.nprobe or 1) * max(depth / TUNED_HITS, 1.0) ** self.tuning.spread
        return min(int(np.ceil(lists)), int(self.ivf.nlist))

    def _efforts(self, share: float, counts: Counts, around: Counts) -> FloatArray:
        """Return how many times more than usual each query must search, `(nq,)`, in steps (so few groups).

        Where fewer vectors are allowed around a query than elsewhere, its hits are far away: they are in many
        directions, and their distances differ little. The nearest list counts for itself: a deleted cluster is often
        just that list.
        """
        nearby = np.full(len(around), np.inf)
        for part in (around[:, :1], around):
            inside = counts[part].sum(axis=1) / np.maximum(self.sizes[part].sum(axis=1), 1)
            nearby = np.minimum(nearby, inside)
        further = np.clip(share / np.maximum(nearby, 1e-9), 1.0, MOST_EFFORT)
        return np.asarray(EFFORT_STEP ** np.round(np.log(further) / np.log(EFFORT_STEP)), np.float32)

    def _candidates_in(
        self, queries: FloatArray, count: int, allowed: PositionSet, lists: Counts, near: FloatArray
    ) -> Positions:
        """Return the best candidates `(nq, count)` in given lists `(nq, width)`, with the scores of their centroids."""
        estimates = np.empty((len(queries), count), np.float32)
        candidates = np.empty((len(queries), count), np.int64)
        parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=allowed.selector)
        given = [faiss.swig_ptr(array) for array in (lists, near, estimates, candidates)]
        self.ivf.search_preassigned_c(len(queries), faiss.swig_ptr(queries), count, *given, False, parameters)
        return candidates

    def _to_centroids(self, queries: FloatArray) -> FloatArray:
        scores = np.empty((len(queries), self.ivf.nlist), np.float32)
        for query, row in zip(queries, scores, strict=True):
            faiss.fvec_inner_products_ny(
                faiss.swig_ptr(row), faiss.swig_ptr(query), self._centroids, self.ivf.d, self.ivf.nlist
            )
        return scores

    def _probe(self, queries: FloatArray, k: int, allowed: PositionSet | None, nprobe: int) -> ScoredPositions:
        inner = faiss.SearchParametersIVF(nprobe=nprobe)
        if allowed is not None:
            inner.sel = allowed.selector
        outer = faiss.IndexRefineSearchParameters(k_factor=self.tuning.k_factor or 1.0, base_index_params=inner)
        # the factor was tuned for ten hits: a search for fewer uses as many candidates
        scores, positions = self.index.search(queries, max(k, TUNED_HITS), params=outer)
        return scan.pad_missing(scores[:, :k], positions[:, :k])


def _index_bytes(segment: Segment) -> int:
    n, index = len(segment), segment.storage
    held = n * int(index.code_size)
    if segment.graph is not None:
        graph = segment.graph
        held += 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
    if segment.ivf is not None:
        ivf = segment.ivf
        held += n * (int(ivf.code_size) + 8) + ivf.nlist * ivf.d * 4
    return held
