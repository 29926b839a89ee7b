"""Searches of one event loop, answered together: those that come while FAISS is at work are its next call."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Ids
from evervec.mirror.places import NOWHERE, Filter
from evervec.mirror.snapshot import Snapshot

MANY = 8
"""From that many queries on a second thread is worth waking."""
MOST = 256
"""So many queries go into one call at most: who comes behind them still waits milliseconds only."""


class Neighbours(NamedTuple):
    """What one query found: ids int64 and scores float32 (cosine), `(m,)` with m ≤ k, best first; see `Answer`."""

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
    """Runs searches in a thread of its own, never in the event loop that asks. Belongs to the loop it was opened in.

    `async with Searcher() as searcher:` or `aclose()` at the end.
    """

    def __init__(self) -> None:
        """Starts the thread. Raises `RuntimeError` outside of an event loop."""
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
        """The k nearest to one query `(dim,)` in a snapshot; fewer where there are fewer.

        Raises `ValueError` for a query of another width or with a number that is not finite and for k below 1,
        `RuntimeError` once it is closed.
        """
        if self._closed:
            raise RuntimeError("This searcher is closed.")
        # a bad query is refused here: later it would fail all those that it is searched with
        call = _Call(snapshot, _checked(query, snapshot.dimensions), k, only, exact, self._loop.create_future())
        self._waiting.append(call)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # at the end of this turn of the loop, so that all those who ask in it go together
            self._loop.call_soon(self._send)
        return await call.found

    async def aclose(self) -> None:
        """Answer what has been asked, then end the thread. May be called twice."""
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
        """In the loop: hand the answers out, and send the next batch after those who wake now could ask again."""
        for place, call in enumerate(calls):
            if call.found.done():  # nobody waits any more
                continue
            if isinstance(outcome, Exception):
                call.found.set_exception(outcome)
            else:
                call.found.set_result(outcome[place])
        if last:
            self._loop.call_soon(self._send)

    def _work(self) -> None:
        """In the thread: batch after batch until there is None."""
        while (batch := self._batches.get()) is not None:
            groups = _grouped(batch)
            for number, calls in enumerate(groups, 1):
                outcome = _search(calls)
                try:
                    self._loop.call_soon_threadsafe(self._settle, calls, outcome, number == len(groups))
                except RuntimeError:  # the loop was closed under us: nobody waits for an answer
                    return


def _checked(query: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    row = np.asarray(query, np.float32)
    if row.shape != (dimensions,):
        raise ValueError(f"The query is {row.shape}, the vectors of this dataset {dimensions} wide.")
    if not np.isfinite(row).all():
        raise ValueError("The query holds a number that is not finite.")
    return row


def _grouped(batch: list[_Call]) -> list[list[_Call]]:
    """Calls that one search can answer together, in the order of the first of each."""
    groups: dict[tuple[int, int, Filter | None, bool], list[_Call]] = defaultdict(list)
    for call in batch:
        groups[id(call.snapshot), call.k, call.only, call.exact].append(call)
    return [calls[start : start + MOST] for calls in groups.values() for start in range(0, len(calls), MOST)]


def _search(calls: list[_Call]) -> Outcome:
    first = calls[0]
    try:
        queries = first.query[None, :] if len(calls) == 1 else np.stack([call.query for call in calls])
        threads = 2 if len(calls) >= MANY else 1
        answer = first.snapshot.search(queries, first.k, first.only, exact=first.exact, threads=threads)
    except Exception as error:  # whatever it is belongs to those who wait, and the thread goes on
        return error
    counts = (answer.ids != NOWHERE).sum(axis=1).tolist()
    return [
        Neighbours(answer.ids[row, :count], answer.scores[row, :count], answer.exact, answer.widened)
        for row, count in enumerate(counts)
    ]
