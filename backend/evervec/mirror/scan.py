"""Exact answers from the half-precision vectors that every segment keeps: all of them, or only those that are allowed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evervec.mirror.allowed import Allowed, Positions
from evervec.mirror.threads import faiss

Rows = NDArray[np.float32]
Hits = tuple[Rows, Positions]

SLICE = 16_384
BATCH = 16  # from that many queries on, decoding a slice once and multiplying beats scanning the codes for each
# FAISS asks a bitmap for every vector in 2 ns and scans an allowed one in 32; taking the allowed ones out first costs
# about 200 each, so that it pays below this share.
GATHER_SHARE = 0.02


def halves(storage: Any) -> NDArray[np.float16]:
    """The vectors of an `SQfp16` index as `(n, dim) float16`: a view, valid as long as the index lives."""
    size = storage.codes.size()
    if not size:
        return np.empty((0, storage.d), np.float16)
    codes: NDArray[np.uint8] = faiss.rev_swig_ptr(storage.codes.data(), size)
    return codes.view(np.float16).reshape(-1, storage.d)


def decoded(storage: Any, positions: Positions) -> Rows:
    """The vectors of an `SQfp16` index at some positions as `(m, dim) float32`: FAISS decodes ten times as fast as numpy."""
    rows: Rows = storage.sa_decode(halves(storage).view(np.uint8)[positions])
    return rows


def exact(storage: Any, queries: Rows, k: int, allowed: Allowed | None) -> Hits:
    """The k nearest of an `SQfp16` index to each query `(nq, dim)`: scores and positions `(nq, k)`, padded with -inf, -1."""
    if len(queries) >= BATCH:
        return _multiplied(storage, queries, k, allowed)
    if allowed is None:
        return padded(*storage.search(queries, k))
    if allowed.count <= GATHER_SHARE * len(allowed):
        return _gathered(halves(storage), queries, k, allowed.positions)
    return padded(*storage.search(queries, k, params=faiss.SearchParameters(sel=allowed.selector)))


def scored(storage: Any, queries: Rows, candidates: Positions) -> Rows:
    """The exact scores of some candidates `(nq, m)` of each query, as `(nq, m)`; -inf where a position is -1."""
    scores = np.empty(candidates.shape, np.float32)
    step = max(1, SLICE // candidates.shape[1])
    for start in range(0, len(queries), step):
        among = candidates[start : start + step]
        rows = decoded(storage, among.ravel()).reshape(*among.shape, -1)
        scores[start : start + step] = (rows @ queries[start : start + step, :, None])[:, :, 0]
    scores[candidates < 0] = -np.inf
    return scores


def padded(scores: Rows, positions: Positions) -> Hits:
    """FAISS leaves any number beside the position -1: make it the lowest."""
    scores[positions < 0] = -np.inf
    return scores, positions


def best(scores: Rows, positions: Positions, k: int) -> Hits:
    """The k highest of each row `(nq, m)`, in falling order."""
    if scores.shape[1] > k:
        first = np.argpartition(scores, -k, axis=1)[:, -k:]
        scores, positions = np.take_along_axis(scores, first, 1), np.take_along_axis(positions, first, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def nothing(count: int, k: int) -> Hits:
    """No hit at all for so many queries."""
    return np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)


def stretched(hits: Hits, k: int) -> Hits:
    """The same hits in k columns."""
    scores, positions = hits
    if positions.shape[1] == k:
        return hits
    more = ((0, 0), (0, k - positions.shape[1]))
    return np.pad(scores, more, constant_values=-np.inf), np.pad(positions, more, constant_values=-1)


def _gathered(rows: NDArray[np.float16], queries: Rows, k: int, positions: Positions) -> Hits:
    """Scan a copy of the allowed vectors."""
    small = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    small.codes.resize(len(positions) * small.code_size)
    small.ntotal = len(positions)
    if len(positions):
        np.take(rows, positions, axis=0, out=halves(small), mode="clip")
    scores, places = padded(*small.search(queries, k))
    return scores, np.where(places < 0, -1, positions[places] if len(positions) else -1)


def _multiplied(storage: Any, queries: Rows, k: int, allowed: Allowed | None) -> Hits:
    """Decode slice after slice and let BLAS multiply it with all queries."""
    scores, places = nothing(len(queries), k)
    for start in range(0, storage.ntotal, SLICE):
        positions = np.arange(start, min(start + SLICE, storage.ntotal))
        if allowed is not None:
            positions = positions[allowed.mask[start : start + SLICE]]
        if not len(positions):
            continue
        found, at = faiss.knn(
            queries, decoded(storage, positions), min(k, len(positions)), metric=faiss.METRIC_INNER_PRODUCT
        )
        scores, places = best(
            np.concatenate([scores, found], axis=1), np.concatenate([places, positions[at]], axis=1), k
        )
    return scores, places
