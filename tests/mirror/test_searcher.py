"""Searches answered together: each gets its own answer, whoever is cancelled or wrong beside it."""

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.mirror.build import build
from evervec.mirror.filter import Filter
from evervec.mirror.searcher import Neighbours, Searcher
from evervec.mirror.snapshot import Snapshot, SnapshotHits
from tests.mirror.oracle import DIMENSIONS, IDENTITY, START, vectors

QUERIES = np.random.default_rng(8).standard_normal((50, DIMENSIONS)).astype(np.float32)


class Watched(Snapshot):
    """A snapshot that tells how many queries each search had and in which thread it ran; a test may hold it or break it."""

    def __init__(self, held: Snapshot) -> None:
        super().__init__(held.base, held.delta, held.watermark)
        self.__dict__["sizes"] = list[int]()
        self.__dict__["threads_seen"] = set[int]()
        self.__dict__["go_on"] = threading.Event()
        self.__dict__["breaks"] = list[Exception]()
        self.go_on.set()

    sizes: list[int]
    threads_seen: set[int]
    go_on: threading.Event
    breaks: list[Exception]

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        only: Filter | None = None,
        *,
        exact: bool = False,
        threads: int = 1,
    ) -> SnapshotHits:
        self.sizes.append(len(queries))
        self.threads_seen.add(threading.get_ident())
        assert self.go_on.wait(60)
        if self.breaks:
            raise self.breaks.pop()
        return super().search(queries, k, only, exact=exact, threads=threads)


@pytest.fixture
def snapshot() -> Watched:
    return Watched(Snapshot.of(build(vectors(range(700)), IDENTITY, START)).plus(vectors(range(650, 800), 2)))


@pytest.fixture
async def searcher() -> AsyncIterator[Searcher]:
    async with Searcher() as searcher:
        yield searcher


async def begun(snapshot: Watched, count: int) -> None:
    """Wait until so many searches have begun."""
    async with asyncio.timeout(60):
        while len(snapshot.sizes) < count:
            await asyncio.sleep(0)


def same(found: Neighbours, right: SnapshotHits, row: int) -> None:
    wanted = right.ids[row] != -1
    np.testing.assert_array_equal(found.ids, right.ids[row][wanted])
    np.testing.assert_allclose(found.scores, right.scores[row][wanted], atol=1e-5)
    assert (found.exact, found.widened) == (right.exact, right.widened)


async def test_fifty_at_once_are_one_call_and_each_gets_its_own(searcher: Searcher, snapshot: Watched) -> None:
    found = await asyncio.gather(*(searcher.search(snapshot, query, 10) for query in QUERIES))

    assert snapshot.sizes == [50]
    assert snapshot.threads_seen.isdisjoint({threading.get_ident()})
    right = Snapshot.search(snapshot, QUERIES, 10)
    for row, one in enumerate(found):
        same(one, right, row)


async def test_who_comes_while_a_batch_runs_goes_with_the_next(searcher: Searcher, snapshot: Watched) -> None:
    snapshot.go_on.clear()
    first = asyncio.ensure_future(searcher.search(snapshot, QUERIES[0], 10))
    await begun(snapshot, 1)
    others = [asyncio.ensure_future(searcher.search(snapshot, query, 10)) for query in QUERIES[1:]]
    await asyncio.sleep(0)
    snapshot.go_on.set()

    await asyncio.gather(first, *others)

    assert snapshot.sizes == [1, 49]


async def test_only_what_one_search_can_answer_goes_together(searcher: Searcher, snapshot: Watched) -> None:
    other = Watched(Snapshot(snapshot.base, snapshot.delta, snapshot.watermark).plus(vectors([9_999])))
    asked = [
        (snapshot, 10, None),
        (snapshot, 3, None),
        (snapshot, 10, Filter(kinds=frozenset({1}))),
        (snapshot, 10, Filter(ids=np.array([3, 2, 1]))),
        (snapshot, 10, Filter(ids=np.array([1, 2, 3]))),
        (other, 10, None),
    ]

    found = await asyncio.gather(*(searcher.search(held, QUERIES[0], k, only) for held, k, only in asked * 4))

    assert snapshot.sizes == [4, 4, 4, 8]
    assert other.sizes == [4]
    for one, (held, k, only) in zip(found, asked * 4, strict=True):
        same(one, Snapshot.search(held, QUERIES[:1], k, only), 0)


async def test_a_big_crowd_is_answered_in_parts(
    searcher: Searcher, snapshot: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evervec.mirror.searcher.MOST_QUERIES", 20)

    found = await asyncio.gather(*(searcher.search(snapshot, query, 5) for query in QUERIES))

    assert snapshot.sizes == [20, 20, 10]
    for row, one in enumerate(found):
        same(one, Snapshot.search(snapshot, QUERIES, 5), row)


async def test_fewer_than_k_come_without_padding(searcher: Searcher, snapshot: Watched) -> None:
    ids, scores, exact, widened = await searcher.search(snapshot, QUERIES[0], 10, Filter(ids=np.array([1, 2, 7_000])))

    assert set(ids.tolist()) == {1, 2}
    assert scores.shape == (2,)
    assert (exact, widened) == (True, False)


async def test_nothing_to_find(searcher: Searcher, snapshot: Watched) -> None:
    found = await searcher.search(snapshot, QUERIES[0], 10, Filter(kinds=frozenset()))

    assert len(found.ids) == len(found.scores) == 0


async def test_who_is_cancelled_harms_nobody(searcher: Searcher, snapshot: Watched) -> None:
    snapshot.go_on.clear()
    running = [asyncio.ensure_future(searcher.search(snapshot, query, 5)) for query in QUERIES[:3]]
    await begun(snapshot, 1)
    waiting = [asyncio.ensure_future(searcher.search(snapshot, query, 5)) for query in QUERIES[3:6]]
    await asyncio.sleep(0)
    running[1].cancel()
    waiting[1].cancel()
    snapshot.go_on.set()

    outcome = await asyncio.gather(*running, *waiting, return_exceptions=True)

    right = Snapshot.search(snapshot, QUERIES[:6], 5)
    for row, one in enumerate(outcome):
        if row in (1, 4):
            assert isinstance(one, asyncio.CancelledError)
        else:
            assert isinstance(one, Neighbours)
            same(one, right, row)
    assert snapshot.sizes == [3, 2]


async def test_when_all_who_wait_are_cancelled_the_next_is_answered(searcher: Searcher, snapshot: Watched) -> None:
    lost = asyncio.ensure_future(searcher.search(snapshot, QUERIES[0], 5))
    await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)

    same(await searcher.search(snapshot, QUERIES[1], 5), Snapshot.search(snapshot, QUERIES[1:2], 5), 0)


async def test_an_error_reaches_exactly_its_group(searcher: Searcher, snapshot: Watched) -> None:
    broken = Watched(snapshot)
    broken.breaks.append(MemoryError("no room"))
    asked = [snapshot, broken, snapshot, broken]

    outcome = await asyncio.gather(*(searcher.search(held, QUERIES[0], 5) for held in asked), return_exceptions=True)

    assert [isinstance(one, MemoryError) for one in outcome] == [False, True, False, True]
    assert isinstance(await searcher.search(broken, QUERIES[0], 5), Neighbours)


async def test_a_bad_query_fails_alone(searcher: Searcher, snapshot: Watched) -> None:
    bad = QUERIES[0].copy()
    bad[3] = np.inf
    asked = [QUERIES[0], bad, QUERIES[1], QUERIES[2][:8]]

    outcome = await asyncio.gather(*(searcher.search(snapshot, query, 5) for query in asked), return_exceptions=True)

    assert [type(one).__name__ for one in outcome] == ["Neighbours", "ValueError", "Neighbours", "ValueError"]
    with pytest.raises(ValueError, match="at least 1 neighbour"):
        await searcher.search(snapshot, QUERIES[0], 0)


async def test_closing_answers_what_was_asked_and_takes_no_more(snapshot: Watched) -> None:
    searcher = Searcher()
    snapshot.go_on.clear()
    first = asyncio.ensure_future(searcher.search(snapshot, QUERIES[0], 5))
    await begun(snapshot, 1)
    second = asyncio.ensure_future(searcher.search(snapshot, QUERIES[1], 5))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(searcher.aclose())
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="closed"):
        await searcher.search(snapshot, QUERIES[2], 5)
    snapshot.go_on.set()
    found = await asyncio.gather(first, second)
    await closing
    await searcher.aclose()

    assert [len(one.ids) for one in found] == [5, 5]
    assert not any(thread.name == "evervec-search" for thread in threading.enumerate())


async def test_the_loop_turns_while_a_search_runs(searcher: Searcher, snapshot: Watched) -> None:
    snapshot.go_on.clear()
    search = asyncio.ensure_future(searcher.search(snapshot, QUERIES[0], 5))
    await begun(snapshot, 1)

    assert await asyncio.wait_for(asyncio.sleep(0, "turned"), 60) == "turned"
    assert not search.done()
    snapshot.go_on.set()
    await search
