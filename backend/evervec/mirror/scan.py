"""Exact search in the half-precision vectors that every segment keeps: in all of them, or only in the allowed ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.mirror.faiss_library import faiss
from evervec.mirror.position_set import Positions, PositionSet

FloatArray = NDArray[np.float32]
ScoredPositions = tuple[FloatArray, Positions]

DECODED_ROWS = 16_384
MULTIPLY_FROM = (
    16  # from this number of queries on, to decode a slice once and multiply is faster than to scan the codes per query
)
# FAISS checks the bitmap for every vector in 2 ns and scans an allowed vector in 32; to copy an allowed vector first
# costs about 200, so copying pays below this share of allowed vectors.
GATHER_SHARE = 0.02


def fp16_view(storage: Any) -> NDArray[np.float16]:
    """Return the vectors of an `SQfp16` index as `(n, dim) float16`: a view, valid as long as the index lives."""
    size = storage.codes.size()
    if not size:
        return np.empty((0, storage.d), np.float16)
    codes: NDArray[np.uint8] = faiss.rev_swig_ptr(storage.codes.data(), size)
    return codes.view(np.float16).reshape(-1, storage.d)


def decode(storage: Any, positions: Positions) -> FloatArray:
    """Return the vectors of an `SQfp16` index at some positions as `(m, dim) float32`.

    FAISS decodes ten times as fast as numpy.
    """
    rows: FloatArray = storage.sa_decode(fp16_view(storage).view(np.uint8)[positions])
    return rows


def exact_search(storage: Any, queries: FloatArray, k: int, allowed: PositionSet | None) -> ScoredPositions:
    """Return the k nearest vectors of an `SQfp16` index to each query `(nq, dim)`.

    Scores and positions are `(nq, k)`, padded with -inf and -1.
    """
    if len(queries) >= MULTIPLY_FROM:
        return _multiplied(storage, queries, k, allowed)
    if allowed is None:
        return pad_missing(*storage.search(queries, k))
    if allowed.count <= GATHER_SHARE * len(allowed):
        return _gathered(fp16_view(storage), queries, k, allowed.positions)
    return pad_missing(*storage.search(queries, k, params=faiss.SearchParameters(sel=allowed.selector)))


def score_candidates(storage: Any, queries: FloatArray, candidates: Positions) -> FloatArray:
    """Return the exact scores of some candidates `(nq, m)` of each query, as `(nq, m)`; -inf where a position is -1."""
    scores = np.empty(candidates.shape, np.float32)
    step = max(1, DECODED_ROWS // candidates.shape[1])
    for start in range(0, len(queries), step):
        among = candidates[start : start + step]
        rows = decode(storage, among.ravel()).reshape(*among.shape, -1)
        scores[start : start + step] = (rows @ queries[start : start + step, :, None])[:, :, 0]
    scores[candidates < 0] = -np.inf
    return scores


def pad_missing(scores: FloatArray, positions: Positions) -> ScoredPositions:
    """Set the score to -inf where the position is -1: FAISS leaves any number there."""
    scores[positions < 0] = -np.inf
    return scores, positions


def top_k(scores: FloatArray, positions: Positions, k: int) -> ScoredPositions:
    """Return the k highest of each row `(nq, m)`, in falling order."""
    if scores.shape[1] > k:
        first = np.argpartition(scores, -k, axis=1)[:, -k:]
        scores, positions = np.take_along_axis(scores, first, 1), np.take_along_axis(positions, first, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def no_hits(count: int, k: int) -> ScoredPositions:
    """Return an empty result for `count` queries."""
    return np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)


def pad_columns(hits: ScoredPositions, k: int) -> ScoredPositions:
    """Return the same hits in k columns."""
    scores, positions = hits
    if positions.shape[1] == k:
        return hits
    more = ((0, 0), (0, k - positions.shape[1]))
    return np.pad(scores, more, constant_values=-np.inf), np.pad(positions, more, constant_values=-1)


def _gathered(rows: NDArray[np.float16], queries: FloatArray, k: int, positions: Positions) -> ScoredPositions:
    """Scan a copy of the allowed vectors."""
    small = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    small.codes.resize(len(positions) * small.code_size)
    small.ntotal = len(positions)
    if len(positions):
        np.take(rows, positions, axis=0, out=fp16_view(small), mode="clip")
    scores, found = pad_missing(*small.search(queries, k))
    return scores, np.where(found < 0, -1, positions[found] if len(positions) else -1)


def _multiplied(storage: Any, queries: FloatArray, k: int, allowed: PositionSet | None) -> ScoredPositions:
    """Decode slice after slice and let BLAS multiply it with all queries."""
    scores, found_positions = no_hits(len(queries), k)
    for start in range(0, storage.ntotal, DECODED_ROWS):
        positions = np.arange(start, min(start + DECODED_ROWS, storage.ntotal))
        if allowed is not None:
            positions = positions[allowed.mask[start : start + DECODED_ROWS]]
        if not len(positions):
            continue
        found, at = faiss.knn(
            queries, decode(storage, positions), min(k, len(positions)), metric=faiss.METRIC_INNER_PRODUCT
        )
        scores, found_positions = top_k(
            np.concatenate([scores, found], axis=1), np.concatenate([found_positions, positions[at]], axis=1), k
        )
    return scores, found_positions
