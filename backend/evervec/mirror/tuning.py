"""Finds the cheapest search parameters with which a new segment reaches its recall on a sample of queries."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evervec.mirror import scan
from evervec.mirror.scan import FloatArray
from evervec.mirror.segment import TUNED_HITS, Segment, Tuning

SAMPLE_QUERIES = 256
SAMPLE_DEPTH = 200  # a filter that lets one in 20 through finds ten hits among so many neighbours
MOST_CANDIDATES = 64 * TUNED_HITS
EF_STEPS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
# Multiples of the smallest sufficient nprobe that are tried: with more lists, fewer candidates may be enough.
NPROBE_FACTORS = (1.0, 1.2, 1.5, 2.0, 3.0)
# The cost of re-ranking the candidates of one hit, in scanned lists.
CANDIDATE_COST = 1.5
# The parameters fit the sample better than other queries: a quarter of the allowed misses is kept as a margin.
MARGIN = 0.25
# Equal vectors are equal hits, but a scan and a multiplication may round their scores differently.
SCORE_TOLERANCE = 1e-5

Check = Callable[[], None]


@dataclass(frozen=True)
class _Sample:
    """Queries `(m, dim)` and their true neighbours, nearest first: positions `(m, SAMPLE_DEPTH)` and scores."""

    queries: FloatArray
    neighbours: NDArray[np.int64]
    scores: FloatArray

    def recall(self, scores: FloatArray, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return recall@10 of the first 1, 2, … of the hits `(m, c)`, as `(c,)`."""
        wanted = min(TUNED_HITS, self.scores.shape[1])
        good = (scores >= self.scores[:, wanted - 1 : wanted] - SCORE_TOLERANCE) & (positions >= 0)
        counted = np.minimum(np.cumsum(good, axis=1), wanted)
        return np.asarray(counted.mean(axis=0) / wanted)


def tune(segment: Segment, queries: FloatArray, target: float, *, threads: int, check: Check) -> Tuning:
    """Return the cheapest parameters with which `queries (m, dim)` reach `target`, else the best (see `recall`).

    The queries are not in the segment. Vectors of the segment would be found too easily: the lists were trained on
    them, and a graph has a node for each.
    """
    if not len(queries):
        return Tuning(target, 1.0, 0, nprobe=1, k_factor=1.0, ef=EF_STEPS[-1])
    depth = min(SAMPLE_DEPTH, len(segment))
    found = segment.search(queries, depth, exact=True, threads=threads)
    sample = _Sample(queries, found.positions, found.scores)
    check()
    goal = 1 - (1 - target) * (1 - MARGIN)
    ways = _graph_ways(segment) if segment.graph is not None else _list_ways(segment, sample, goal, check)
    return _first(segment, ways, sample, target, goal, threads, check)


def _first(
    segment: Segment, ways: list[Tuning], sample: _Sample, target: float, goal: float, threads: int, check: Check
) -> Tuning:
    """Return the first parameters that reach the goal in a real search, or the best ones if none does."""
    best = Tuning(target, -1.0, 0)
    for way in ways:
        found = replace(segment, tuning=way).search(sample.queries, min(TUNED_HITS, len(segment)), threads=threads)
        recall = float(sample.recall(found.scores, found.positions)[-1])
        if recall > best.recall:
            best = replace(way, target=target, recall=recall, sampled=len(sample.queries))
        if recall >= goal:
            break
        check()
    return best


def _graph_ways(segment: Segment) -> list[Tuning]:
    return [Tuning(0, 0, 0, ef=ef) for ef in EF_STEPS if ef < 2 * len(segment)]


def _list_ways(segment: Segment, sample: _Sample, goal: float, check: Check) -> list[Tuning]:
    """Return pairs of nprobe and k_factor that should reach the goal, the cheapest first, the safest last."""
    ranks = _ranks(segment, sample)
    least = _reaching(ranks[:, :TUNED_HITS], goal)
    spread = 0.0
    if ranks.shape[1] > TUNED_HITS:
        spread = float(np.log(_reaching(ranks, goal) / least) / np.log(ranks.shape[1] / TUNED_HITS))
    ways: dict[float, Tuning] = {}
    for nprobe in sorted({min(round(least * stretch), segment.ivf.nlist) for stretch in NPROBE_FACTORS}):
        if ways and nprobe >= min(ways):
            break
        recall = _recall_by_candidates(segment, sample, nprobe)
        enough = int(np.searchsorted(recall, goal)) + 1
        if enough <= len(recall):
            factor = float(np.ceil(enough / TUNED_HITS))
            ways[nprobe + CANDIDATE_COST * factor] = Tuning(0, 0, 0, nprobe=nprobe, k_factor=factor, spread=spread)
        check()
    surest = Tuning(0, 0, 0, nprobe=segment.ivf.nlist, k_factor=MOST_CANDIDATES / TUNED_HITS, spread=spread)
    return [*(ways[cost] for cost in sorted(ways)), surest]


def _ranks(segment: Segment, sample: _Sample) -> NDArray[np.int64]:
    """Return the rank of each neighbour's list by distance from the query, 0 the nearest: `(m, SAMPLE_DEPTH)`."""
    _, nearest = segment.ivf.quantizer.search(sample.queries, segment.ivf.nlist)
    rank = np.empty_like(nearest)
    np.put_along_axis(rank, nearest, np.broadcast_to(np.arange(segment.ivf.nlist), nearest.shape), axis=1)
    ranks: NDArray[np.int64] = np.take_along_axis(rank, segment.lists[sample.neighbours].astype(np.int64), axis=1)
    return ranks


def _reaching(ranks: NDArray[np.int64], goal: float) -> int:
    """Return how many lists hold that share of the neighbours."""
    ordered = np.sort(ranks, axis=None)
    return int(ordered[int(np.ceil(min(goal, 1.0) * len(ordered))) - 1]) + 1


def _recall_by_candidates(segment: Segment, sample: _Sample, nprobe: int) -> NDArray[np.float64]:
    """Return recall@10 for the first 1, 2, … candidates of the lists, re-ranked."""
    candidates = segment.candidates(sample.queries, min(MOST_CANDIDATES, len(segment)), nprobe)
    return sample.recall(scan.score_candidates(segment.storage, sample.queries, candidates), candidates)
