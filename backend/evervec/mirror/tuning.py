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
# A segment's own vectors are a little easier to find than strangers, because its lists were laid around them: a fifth
# of what may be missed is kept in hand.
IN_HAND = 0.2
# Equal vectors are equal hits; a scan and a multiplication may round them differently.
TIE = 1e-5

Check = Callable[[], None]


@dataclass(frozen=True)
class _Sample:
    """Some of the segment's own vectors as queries `(m, dim)`, the `positions` at which they are `(m,)`, and their
    neighbours without themselves, nearest first: positions `(m, DEPTH)` and scores."""

    queries: Rows
    positions: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    scores: Rows

    @property
    def wanted(self) -> int:
        """How many neighbours count."""
        return min(K, self.neighbours.shape[1])

    def recall(self, scores: Rows, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """recall@10 of the first 1, 2, … of the hits `(m, c)`, as `(c,)`."""
        worst = self.scores[:, self.wanted - 1 : self.wanted]
        good = (scores >= worst - TIE) & (positions >= 0) & (positions != self.positions[:, None])
        counted = np.minimum(np.cumsum(good, axis=1), self.wanted)
        return np.asarray(counted.mean(axis=0) / self.wanted)


def tuned(segment: Segment, target: float, *, threads: int, check: Check) -> Segment:
    """The segment with the cheapest parameters that reach `target`, or with the best there are; see `tuning.recall`."""
    if segment.index is segment.storage or len(segment) < 2:
        return replace(segment, tuning=Tuning(target, 1.0, 0))
    sample = _sample(segment, threads)
    check()
    goal = 1 - (1 - target) * (1 - IN_HAND)
    ways = _graph_ways(segment) if segment.graph is not None else _list_ways(segment, sample, goal, check)
    return _first(segment, ways, sample, target, goal, threads, check)


def _sample(segment: Segment, threads: int) -> _Sample:
    count = min(SAMPLE, len(segment))
    positions = np.sort(np.random.default_rng(7).choice(len(segment), count, replace=False))
    queries = segment.vectors(positions)
    depth = min(DEPTH, len(segment) - 1)
    found = segment.search(queries, depth + 1, exact=True, threads=threads)
    # The query goes behind all others. Among many equal vectors it may not be there: then one too many is.
    order = np.argsort(found.positions == positions[:, None], axis=1, kind="stable")[:, :depth]
    return _Sample(
        queries, positions, np.take_along_axis(found.positions, order, 1), np.take_along_axis(found.scores, order, 1)
    )


def _first(
    segment: Segment, ways: list[Tuning], sample: _Sample, target: float, goal: float, threads: int, check: Check
) -> Segment:
    """The first of the ways that reaches the goal when it is searched for real; the best one if none does."""
    best = replace(segment, tuning=Tuning(target, -1.0, 0))
    for way in ways:
        tried = replace(segment, tuning=way)
        found = tried.search(sample.queries, sample.wanted + 1, threads=threads)
        recall = float(sample.recall(found.scores, found.positions)[-1])
        if recall > best.tuning.recall:
            way = replace(way, target=target, recall=recall, sampled=len(sample.queries))
            best = replace(tried, tuning=way)
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
    ways: list[tuple[float, Tuning]] = []
    for nprobe in sorted({min(round(least * stretch), segment.ivf.nlist) for stretch in STRETCHES}):
        recall = _recall_by_candidates(segment, sample, nprobe)
        enough = int(np.searchsorted(recall, goal)) + 1
        if enough <= len(recall):
            factor = float(np.ceil(enough / K))
            ways.append((nprobe + CANDIDATE_COST * factor, Tuning(0, 0, 0, nprobe=nprobe, k_factor=factor, spread=spread)))
        check()
    ways.sort(key=lambda way: way[0])
    surest = Tuning(0, 0, 0, nprobe=segment.ivf.nlist, k_factor=MOST_CANDIDATES / K, spread=spread)
    return [way for _, way in ways] + [surest]


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
    return int(ordered[int(np.ceil(goal * len(ordered))) - 1]) + 1


def _recall_by_candidates(segment: Segment, sample: _Sample, nprobe: int) -> NDArray[np.float64]:
    """recall@10 if the first 1, 2, … candidates of the lists were looked at closely."""
    candidates = segment.candidates(sample.queries, min(MOST_CANDIDATES, len(segment)), nprobe)
    halves = scan.halves(segment.storage)
    scores = np.stack(
        [halves[positions].astype(np.float32) @ query for positions, query in zip(candidates, sample.queries, strict=True)]
    )
    return sample.recall(scores, candidates)
