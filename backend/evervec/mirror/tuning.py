"""Finds how a new segment must be searched to reach its recall: the fewest lists and candidates that do, on a sample."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evervec.mirror import scan
from evervec.mirror.scan import Rows
from evervec.mirror.segment import K, Segment, Tuning

SAMPLE = 256
DEPTH = 200  # a filter that lets one in 20 pass finds its ten among so many neighbours
MOST_CANDIDATES = 64 * K
EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
# How many times the smallest nprobe that holds the neighbours is tried: more lists may do with fewer candidates.
STRETCHES = (1.0, 1.2, 1.5, 2.0, 3.0)
# What re-ranking one hit's share of candidates costs, in lists scanned.
CANDIDATE_COST = 1.5
# A sample is a sample, and the parameters are those it likes: a quarter of what may be missed is kept in hand.
IN_HAND = 0.25
# Equal vectors are equal hits; a scan and a multiplication may round them differently.
TIE = 1e-5

Check = Callable[[], None]


@dataclass(frozen=True)
class _Sample:
    """Queries `(m, dim)` and their true neighbours, nearest first: positions `(m, DEPTH)` and scores."""

    queries: Rows
    neighbours: NDArray[np.int64]
    scores: Rows

    def recall(self, scores: Rows, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """recall@10 of the first 1, 2, … of the hits `(m, c)`, as `(c,)`."""
        wanted = min(K, self.scores.shape[1])
        good = (scores >= self.scores[:, wanted - 1 : wanted] - TIE) & (positions >= 0)
        counted = np.minimum(np.cumsum(good, axis=1), wanted)
        return np.asarray(counted.mean(axis=0) / wanted)


def tuned(segment: Segment, queries: Rows, target: float, *, threads: int, check: Check) -> Tuning:
    """The cheapest parameters with which `queries (m, dim)` reach `target`, or the best there are; see its `recall`.

    The queries are strangers to the segment. Its own vectors would be found too easily: the lists were laid around
    them, and a graph has a node where they are.
    """
    if not len(queries):
        return Tuning(target, 1.0, 0, nprobe=1, k_factor=1.0, ef=EFS[-1])
    depth = min(DEPTH, len(segment))
    found = segment.search(queries, depth, exact=True, threads=threads)
    sample = _Sample(queries, found.positions, found.scores)
    check()
    goal = 1 - (1 - target) * (1 - IN_HAND)
    ways = _graph_ways(segment) if segment.graph is not None else _list_ways(segment, sample, goal, check)
    return _first(segment, ways, sample, target, goal, threads, check)


def _first(
    segment: Segment, ways: list[Tuning], sample: _Sample, target: float, goal: float, threads: int, check: Check
) -> Tuning:
    """The first of the ways that reaches the goal when it is searched for real; the best one if none does."""
    best = Tuning(target, -1.0, 0)
    for way in ways:
        found = replace(segment, tuning=way).search(sample.queries, min(K, len(segment)), threads=threads)
        recall = float(sample.recall(found.scores, found.positions)[-1])
        if recall > best.recall:
            best = replace(way, target=target, recall=recall, sampled=len(sample.queries))
        if recall >= goal:
            break
        check()
    return best


def _graph_ways(segment: Segment) -> list[Tuning]:
    return [Tuning(0, 0, 0, ef=ef) for ef in EFS if ef < 2 * len(segment)]


def _list_ways(segment: Segment, sample: _Sample, goal: float, check: Check) -> list[Tuning]:
    """Pairs of nprobe and k_factor that should reach the goal, the cheapest first, the surest last."""
    ranks = _ranks(segment, sample)
    least = _reaching(ranks[:, :K], goal)
    spread = 0.0
    if ranks.shape[1] > K:
        spread = float(np.log(_reaching(ranks, goal) / least) / np.log(ranks.shape[1] / K))
    ways: dict[float, Tuning] = {}
    for nprobe in sorted({min(round(least * stretch), segment.ivf.nlist) for stretch in STRETCHES}):
        if ways and nprobe >= min(ways):
            break
        recall = _recall_by_candidates(segment, sample, nprobe)
        enough = int(np.searchsorted(recall, goal)) + 1
        if enough <= len(recall):
            factor = float(np.ceil(enough / K))
            ways[nprobe + CANDIDATE_COST * factor] = Tuning(0, 0, 0, nprobe=nprobe, k_factor=factor, spread=spread)
        check()
    surest = Tuning(0, 0, 0, nprobe=segment.ivf.nlist, k_factor=MOST_CANDIDATES / K, spread=spread)
    return [*(ways[cost] for cost in sorted(ways)), surest]


def _ranks(segment: Segment, sample: _Sample) -> NDArray[np.int64]:
    """The list of each neighbour by its distance from the query, the nearest list is 0: `(m, DEPTH)`."""
    _, nearest = segment.ivf.quantizer.search(sample.queries, segment.ivf.nlist)
    rank = np.empty_like(nearest)
    np.put_along_axis(rank, nearest, np.broadcast_to(np.arange(segment.ivf.nlist), nearest.shape), axis=1)
    ranks: NDArray[np.int64] = np.take_along_axis(rank, segment.lists[sample.neighbours].astype(np.int64), axis=1)
    return ranks


def _reaching(ranks: NDArray[np.int64], goal: float) -> int:
    """In how many lists one must look to have that share of the neighbours."""
    ordered = np.sort(ranks, axis=None)
    return int(ordered[int(np.ceil(min(goal, 1.0) * len(ordered))) - 1]) + 1


def _recall_by_candidates(segment: Segment, sample: _Sample, nprobe: int) -> NDArray[np.float64]:
    """recall@10 if the first 1, 2, … candidates of the lists were looked at closely."""
    candidates = segment.candidates(sample.queries, min(MOST_CANDIDATES, len(segment)), nprobe)
    return sample.recall(scan.scored(segment.storage, sample.queries, candidates), candidates)
