"""What happens to the two sellers, step by step, through the queue and a worker; how it is shown is not decided here."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, NamedTuple

from taskiq import AsyncTaskiqTask
from taskiq.kicker import AsyncKicker

from evervec.pipeline.indexing import requests
from evervec.pipeline.search import search
from evervec.pipeline.search.answer import SearchAnswer
from evervec.pipeline.status.due import next_due
from evervec.queue import names
from evervec.runtime import Runtime
from evervec.store import documents
from evervec.store.runs import RunRecord
from evervec.worker.schedule import schedules
from evervec.worker.tasks import index_dataset_task
from examples.marketplace import shop
from examples.marketplace.looking import Lookout
from examples.marketplace.market import Market
from examples.marketplace.sync_task import sync_marketplace_task

PROJECT = "marketplace"
SELLERS = ("north", "south")
HITS = 3

Uris = dict[str, set[str]]
"""By seller, records as `table/id`."""


@dataclass(frozen=True)
class Step:
    """The runs of one request. `synced` is the answer of the sync, after `sync_seconds`; empty without a sync."""

    name: str
    runs: Sequence[RunRecord]
    synced: Mapping[str, Any]
    sync_seconds: float = 0.0


class BrokenSync(NamedTuple):
    """A sync that broke off: why, what it had written by then, and what it triggered."""

    error: str
    rows_written: int
    runs_triggered: int
    cursor_moved: bool


class Withdrawal(NamedTuple):
    """The rows that the sellers deleted: what a sync saw of them, and how many were still indexed after it.

    Also what the full rebuild removed and added.
    """

    withdrawn: Uris
    seen_by_sync: int
    still_indexed: int
    removed: Uris
    added: Uris
    step: Step


class Due(NamedTuple):
    """A task that is sent by the clock, and when next."""

    task: str
    cron: str
    next: datetime | None


class _Mark(NamedTuple):
    at: datetime
    runs: int
    cursor: str | None


class Story:
    """Each step sends a task as anybody would, and ends when its runs have. They go in the order in which they stand."""

    def __init__(self, runtime: Runtime, working: "asyncio.Task[None]") -> None:
        self._runtime, self._resources = runtime, runtime.resources
        self._lookout = Lookout(runtime, working)
        self._began = datetime.now(UTC)
        self._market = Market(self._began)
        runtime.broker.state.market = self._market

    async def open(self) -> int:
        """Set up the shop with its history; return the number of its rows."""
        async with self._resources.database.transaction() as tx:
            await shop.open_with(tx, self._market.opening)
        return sum(map(len, self._market.opening.values()))

    async def first_run(self) -> Step:
        """Both sellers from nothing: the first sync makes their datasets."""
        return await self._sync("first run", day=0, full_rebuild=True)

    async def broken_sync(self) -> BrokenSync:
        """Sync while the marketplace fails in the middle of a day's changes."""
        before = await self._mark()
        self._runtime.broker.state.market = Market(self._began, breaks_at="reviews")
        with _no_traceback():
            result = await self._lookout.result(await sync_marketplace_task.kiq(day=1))
        self._runtime.broker.state.market = self._market
        after = await self._mark()
        async with self._resources.database.read() as tx:
            written = await shop.written_since(tx, before.at)
        return BrokenSync(str(result.error), written, after.runs - before.runs, after.cursor != before.cursor)

    async def a_day(self) -> Step:
        """Sync the same day again with the marketplace back: the delta has what the failed sync had written, too."""
        return await self._sync("a day later", day=1)

    async def again(self, day: Step) -> Step:
        """Index the same delta once more, on request."""
        sent = [
            await index_dataset_task.kiq(dataset_id=f"{PROJECT}/{seller}", changed_ids=one["changed_ids"])
            for seller, one in day.synced["datasets"].items()
        ]
        asked = [(await self._lookout.answer(one))["run"] for one in sent]
        return Step("same again", await self._lookout.finished(asked), {})

    async def withdrawal(self) -> Withdrawal:
        """Rows vanish, which no time of change tells; then what the scheduler sends on Sundays is sent now."""
        async with self._resources.database.transaction() as tx:
            withdrawn = await shop.withdraw(tx, self._market.withdrawn())
        synced = (await self._sync("quiet day", day=0)).synced
        before = await self._uris()
        step = await self._weekly()
        after = await self._uris()
        return Withdrawal(
            withdrawn,
            seen_by_sync=sum(map(len, synced["changed_ids"].values())),
            still_indexed=sum(len(withdrawn[seller] & before[seller]) for seller in SELLERS),
            removed={seller: before[seller] - after[seller] for seller in SELLERS},
            added={seller: after[seller] - before[seller] for seller in SELLERS},
            step=step,
        )

    async def schedule(self) -> list[Due]:
        """Return what the scheduler sends, and when next, by the database's clock."""
        async with self._resources.database.read() as tx:
            now = await tx.now()
        due = [(one.task_name, one.cron or "") for one in schedules(self._runtime.settings)]
        return [Due(name, cron, next_due(cron, now)) for name, cron in due]

    async def ask(self, seller: str, question: str) -> SearchAnswer:
        """Search one seller's dataset; everything that is committed by now is in the answer."""
        async with self._resources.database.transaction() as tx:
            seen = int(await tx.fetchval("SELECT pg_current_xact_id()::text"))
        dataset = f"{PROJECT}/{seller}"
        return await search.search(self._resources, question, dataset=dataset, k=HITS, min_watermark=seen)

    async def _sync(self, name: str, *, day: int, full_rebuild: bool = False) -> Step:
        started = perf_counter()
        synced = await self._lookout.answer(await sync_marketplace_task.kiq(day=day, full_rebuild=full_rebuild))
        seconds = perf_counter() - started
        asked = [one["run"] for one in synced["datasets"].values()]
        return Step(name, await self._lookout.finished(asked), synced, seconds)

    async def _weekly(self) -> Step:
        (due,) = [one for one in schedules(self._runtime.settings) if one.task_name == names.INDEX_ALL]
        sent: AsyncTaskiqTask[Any] = await AsyncKicker(due.task_name, self._runtime.broker, due.labels).kiq(
            *due.args, **due.kwargs
        )
        asked = (await self._lookout.answer(sent))["runs"]
        return Step("full rebuild", await self._lookout.finished(asked), {})

    async def _mark(self) -> _Mark:
        async with self._resources.database.read() as tx:
            row = await tx.fetchrow(
                "SELECT now(), (SELECT count(*) FROM index_runs), (SELECT cursor::text FROM sources WHERE name = $1)",
                PROJECT,
            )
        assert row is not None
        return _Mark(*row)

    async def _uris(self) -> Uris:
        found: Uris = {}
        for seller in SELLERS:
            dataset = await requests.dataset(self._resources.database, f"{PROJECT}/{seller}")
            async with self._resources.database.read() as tx:
                found[seller] = {uri async for some in documents.every(tx, dataset.id) for _, uri in some}
        return found


@contextmanager
def _no_traceback() -> Iterator[None]:
    """TaskIQ logs what a task raised. Here it is meant to."""
    logger = logging.getLogger("taskiq")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
