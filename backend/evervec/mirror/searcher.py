"""Runs the searches of one event loop in a thread; those that arrive while FAISS is busy go into the next call."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Ids
from evervec.mirror.entries import MISSING_ID
from evervec.mirror.filter import Filter
from evervec.mirror.snapshot import Snapshot

PARALLEL_FROM = 8
"""From this number of queries on, FAISS uses a second thread."""
MOST_QUERIES = 256
"""The most queries in one FAISS call, so that the queries after it wait milliseconds only."""


class Neighbours(NamedTuple):
    """The result of one query: ids int64 and scores float32 (cosine), `(m,)`, m ≤ k, best first; see `SnapshotHits`."""

    ids: Ids
    scores: NDArray[np.float32]
    exact: bool
    widened: bool


@dataclass(frozen=True, eq=False)
class _Call:
    snapshot: Snapshot
    query: NDArray[np.float32]
    k: int
    only: Filter | None
    exact: bool
    found: asyncio.Future[Neighbours]


Outcome = list[Neighbours] | Exception


class Searcher:
    """A thread that runs searches, so that the event loop never waits for FAISS.

    It belongs to the event loop that opened it. Use `async with Searcher() as searcher:`, or call `aclose()` at the
    end.
    """

    def __init__(self) -> None:
        """Start the thread. Raises `RuntimeError` outside of an event loop."""
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Call] = []
        self._busy = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: SimpleQueue[list[_Call] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="evervec-search", daemon=True)
        self._thread.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def search(
        self,
        snapshot: Snapshot,
        query: NDArray[np.float32],
        k: int,
        only: Filter | None = None,
        *,
        exact: bool = False,
    ) -> Neighbours:
        """Return the k nearest neighbours of one query `(dim,)` in a snapshot; fewer if there are fewer.

        Raises `ValueError` for a query of another width or with a number that is not finite and for k below 1,
        `RuntimeError` after `aclose`.
        """
        if self._closed:
            raise RuntimeError("This searcher is closed.")
        # an invalid query is refused here: later it would fail every query in the same FAISS call
        call = _Call(snapshot, _checked(query, snapshot.dimensions), k, only, exact, self._loop.create_future())
        self._waiting.append(call)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # at the end of this loop iteration, so that all queries of the iteration go into one call
            self._loop.call_soon(self._send)
        return await call.found

    async def aclose(self) -> None:
        """Answer the queries that wait, then end the thread. May be called twice."""
        self._closed = True
        await self._idle.wait()
        self._batches.put(None)
        self._thread.join()

    def _send(self) -> None:
        calls = [call for call in self._waiting if not call.found.done()]
        self._waiting = []
        if calls:
            self._batches.put(calls)
        else:
            self._busy = False
            self._idle.set()

    def _settle(self, calls: list[_Call], outcome: Outcome, last: bool) -> None:
        """Set the results in the event loop; send the next group after the callers that wake now could ask again."""
        for index, call in enumerate(calls):
            if call.found.done():  # the caller was cancelled
                continue
            if isinstance(outcome, Exception):
                call.found.set_exception(outcome)
            else:
                call.found.set_result(outcome[index])
        if last:
            self._loop.call_soon(self._send)

    def _work(self) -> None:
        """Search in the thread, group after group, until None arrives."""
        while (batch := self._batches.get()) is not None:
            groups = _grouped(batch)
            for number, calls in enumerate(groups, 1):
                outcome = _search(calls)
                try:
                    self._loop.call_soon_threadsafe(self._settle, calls, outcome, number == len(groups))
                except RuntimeError:  # the loop was closed: no caller waits
                    return


def _checked(query: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    row = np.asarray(query, np.float32)
    if row.shape != (dimensions,):
        raise ValueError(f"The query is {row.shape}, the vectors of this dataset {dimensions} wide.")
    if not np.isfinite(row).all():
        raise ValueError("The query holds a number that is not finite.")
    return row


def _grouped(batch: list[_Call]) -> list[list[_Call]]:
    """Group the calls that one FAISS search can answer together, in the order of the first call of each group."""
    groups: dict[tuple[int, int, Filter | None, bool], list[_Call]] = defaultdict(list)
    for call in batch:
        groups[id(call.snapshot), call.k, call.only, call.exact].append(call)
    return [
        calls[start : start + MOST_QUERIES] for calls in groups.values() for start in range(0, len(calls), MOST_QUERIES)
    ]


def _search(calls: list[_Call]) -> Outcome:
    first = calls[0]
    try:
        queries = first.query[None, :] if len(calls) == 1 else np.stack([call.query for call in calls])
        threads = 2 if len(calls) >= PARALLEL_FROM else 1
        answer = first.snapshot.search(queries, first.k, first.only, exact=first.exact, threads=threads)
    except Exception as error:  # any error goes to the callers, and the thread goes on
        return error
    counts = (answer.ids != MISSING_ID).sum(axis=1).tolist()
    return [
        Neighbours(answer.ids[row, :count], answer.scores[row, :count], answer.exact, answer.widened)
        for row, count in enumerate(counts)
    ]
