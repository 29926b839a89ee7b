"""The doorbell over PostgreSQL: NOTIFY with a dataset as its payload, coalesced, never the truth."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError
from evervec.store.database.session import Database, ReadTx
from evervec.store.rings.listener import Listener

logger = log.get("rings")

TOGETHER_SECONDS: Final = 0.05
"""Least seconds between two NOTIFYs of a process: each commit of one takes a lock of the whole server."""

CLOSE_SECONDS: Final = 2.0

WORK, CHANGED = "work", "changed"

Heard = Callable[[UUID | None], None]


class PostgresDoorbell:
    """Rings for datasets with work, and for datasets with new vectors. A ring is sent in the background.

    The first one is sent at once, those that follow within `TOGETHER_SECONDS` together, each dataset once. A ring that is
    not sent, because PostgreSQL is down or a standby, costs time alone: the sweep finds the rows. The channel is named
    after the schema, so that two installations in one database do not wake each other. There is no connection that
    listens before somebody does; `worker` gives it the name by which others see that a worker listens.
    """

    def __init__(self, database: Database, *, worker: bool = False) -> None:
        self._database = database
        self._channel = database.schema or "public"
        self._listens_as = worker_name(self._channel) if worker else "evervec listens"
        self._waiting: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._missed = 0
        self._listeners: dict[str, list[Heard]] = {WORK: [], CHANGED: []}
        self._listener: Listener | None = None

    async def ring(self, task_name: str, *, of: UUID | None = None, **_: Any) -> bool:
        """Ring for work in a dataset, without one in any. Return that it was taken."""
        return self._ring(WORK, of)

    async def ring_many(self, rings: Iterable[Any]) -> int:
        """Ring many times. Return how many were taken."""
        taken = 0
        for ring in rings:
            taken += self._ring(WORK, ring.of)
        return taken

    async def changed(self, dataset_ids: Iterable[UUID]) -> bool:
        """Tell the mirrors that vectors of these datasets were written. Return whether there were any."""
        taken = False
        for dataset_id in dataset_ids:
            taken = self._ring(CHANGED, dataset_id)
        return taken

    @asynccontextmanager
    async def listening_for_changes(self, heard: Callable[[set[UUID]], None]) -> AsyncIterator[bool]:
        """Call `heard` with the datasets of each `changed` inside the block, with none when some may have been missed."""
        async with self._listening(CHANGED, lambda dataset_id: heard({dataset_id} if dataset_id else set())):
            yield True

    @asynccontextmanager
    async def listening_for_work(self, heard: Heard) -> AsyncIterator[None]:
        """Call `heard` with the dataset of each ring inside the block, with None for any dataset."""
        async with self._listening(WORK, heard):
            yield

    async def aclose(self) -> None:
        """Send what waits, and stop; may be called twice."""
        self._closing.set()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=CLOSE_SECONDS)
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
            self._sending = None

    def _ring(self, what: str, dataset_id: UUID | None) -> bool:
        self._waiting.add(what if dataset_id is None else f"{what} {dataset_id}")
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_waiting())
        return True

    async def _send_waiting(self) -> None:
        while self._waiting:
            payloads, self._waiting = self._waiting, set()
            await self._send(sorted(payloads))
            try:
                await asyncio.wait_for(self._closing.wait(), TOGETHER_SECONDS)
            except TimeoutError:
                continue

    async def _send(self, payloads: list[str]) -> None:
        try:
            async with self._database.transaction() as tx:
                await tx.fetch(
                    "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", self._channel, payloads
                )
        except EvervecError as error:
            self._missed += len(payloads)
            if self._missed == len(payloads):
                logger.warning("doorbell failed, the sweep will find the rows", reason=str(error))
            return
        if self._missed:
            logger.warning("doorbell works again", missed=self._missed)
            self._missed = 0

    @asynccontextmanager
    async def _listening(self, what: str, heard: Heard) -> AsyncIterator[None]:
        self._listeners[what].append(heard)
        if self._listener is None:
            self._listener = Listener(self._database, self._channel, self._listens_as, self._heard)
            self._listener.start()
        try:
            yield
        finally:
            self._listeners[what].remove(heard)
            if not any(self._listeners.values()):
                listener, self._listener = self._listener, None
                await listener.aclose()

    def _heard(self, payload: str | None) -> None:
        for what, dataset_id in _parsed(payload):
            for heard in self._listeners[what]:
                heard(dataset_id)


def _parsed(payload: str | None) -> Iterator[tuple[str, UUID | None]]:
    """Yield what is rung for; nothing for the payload of another program."""
    if payload is None:
        yield from ((WORK, None), (CHANGED, None))
        return
    what, _, dataset_id = payload.partition(" ")
    if what in (WORK, CHANGED):
        try:
            yield what, UUID(dataset_id) if dataset_id else None
            return
        except ValueError:
            what = ""
    logger.info("a ring that is not Evervec's", payload=payload[:100])


def worker_name(channel: str) -> str:
    """Return the name of a connection on which a worker listens, cut as PostgreSQL cuts it."""
    return f"evervec worker of {channel}"[:63]


async def worker_listens(tx: ReadTx, schema: str) -> bool:
    """Return whether some worker of the installation in `schema` listens now; every role may see that."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1)",
        worker_name(schema),
    )
    return found
