"""Searches and writes at a steady rate, each timed from the moment that it was due: a pause of the server is seen in all of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from uuid import UUID

import asyncpg

from evervec.errors import EvervecError
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.queue.names import EMBED_MESSAGES
from evervec.store.datasets import DatasetRef

MOST_AT_ONCE = 16
NEAR, TIE = 0.99, 0.0005
HITS = 5
EDITED_EVERY = 5

INSERT = """
INSERT INTO evervec.messages (dataset_id, chat, external_id, author, sent_at, content, signal, score, score_factors, scored_revision)
VALUES ($1, 'tour', $2, 'writer', now(), $2, 'noise', 0, '{}', 1) RETURNING id, now()
"""
EDIT = "UPDATE evervec.messages SET content = $2, scored_revision = revision + 1 WHERE external_id = $1"


@dataclass
class Timed:
    """When things were due, by `perf_counter`, and how many seconds each took from then on."""

    due: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def longest(self, since: float, until: float) -> float:
        """Return the longest of those that ended in between, 0 if there were none."""
        pairs = zip(self.due, self.seconds, strict=True)
        return max((taken for at, taken in pairs if since <= at + taken <= until), default=0)


@dataclass(frozen=True)
class Written:
    """A row that was inserted, and when by the clock of the server."""

    id: int
    text: str
    dataset_id: UUID
    at: datetime


async def steady(rate: float, finish: asyncio.Event, once: Callable[[float], Awaitable[None]]) -> None:
    """Call `once` with the moment that it is due, `rate` times a second, until `finish`; wait for all at the end."""
    running, due = set[asyncio.Task[None]](), perf_counter()

    async def held(at: float) -> None:
        await once(at)

    while not finish.is_set():
        task = asyncio.create_task(held(due))
        running.add(task)
        task.add_done_callback(running.discard)
        if len(running) >= MOST_AT_ONCE:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - perf_counter()))
    await asyncio.gather(*running)


class Searching:
    """Ask for texts that are there; each has to be the first hit, in one space."""

    def __init__(self, resources: Resources, texts: Sequence[tuple[DatasetRef, str]], failures: list[str]) -> None:
        self.timed, self.failures = Timed(), failures
        self._resources, self._texts, self._chance = resources, texts, random.Random(1)

    async def ask(self, due: float) -> None:
        """Search for one text, and remember what is wrong about the answer."""
        dataset, text = self._chance.choice(self._texts)
        try:
            answer = await search(self._resources, text, k=HITS, dataset=dataset.name, mode="vector")
        except EvervecError as error:
            self.failures.append(f"a search failed: {error}")
            return
        self.timed.due.append(due)
        self.timed.seconds.append(perf_counter() - due)
        if not answer.hits:
            self.failures.append(f"a search for {text!r} found nothing")
        elif answer.merged_by != "score" or len({(hit.kind, hit.id) for hit in answer.hits}) != len(answer.hits):
            self.failures.append(f"a search for {text!r} mixed two spaces")
        # the same words in another order have the same vector of some models
        elif text not in {hit.text for hit in answer.hits if hit.score >= answer.hits[0].score - TIE >= NEAR}:
            best = answer.hits[0]
            self.failures.append(f"a search for {text!r} found {best.text!r} ({best.score:.3f}) by {answer.engine}")


class Writing:
    """Insert rows, and edit each fifth time one of those given, as another program does that rings for them."""

    def __init__(
        self,
        resources: Resources,
        pool: asyncpg.Pool,
        datasets: Sequence[DatasetRef],
        edited: Sequence[str],
        failures: list[str],
    ) -> None:
        self.timed, self.failures, self.rows = Timed(), failures, list[Written]()
        self.edits: dict[str, str] = {}
        self._resources, self._pool, self._datasets, self._edited = resources, pool, datasets, edited
        self._number = 0

    async def write(self, due: float) -> None:
        """Write one row."""
        self._number += 1
        number, of = self._number, self._datasets[self._number % len(self._datasets)]
        try:
            if number % EDITED_EVERY == 0:
                await self._edit(self._edited[number % len(self._edited)], number)
            else:
                await self._insert(of, f"row number {number} of the tour is about {words(number)}")
        except (OSError, asyncpg.PostgresError) as error:
            self.failures.append(f"a write failed: {error}")
            return
        self.timed.due.append(due)
        self.timed.seconds.append(perf_counter() - due)

    async def _insert(self, of: DatasetRef, text: str) -> None:
        row = await self._pool.fetchrow(INSERT, of.id, text)
        assert row is not None  # it was inserted
        self.rows.append(Written(row[0], text, of.id, row[1]))
        await self._resources.doorbell.ring(EMBED_MESSAGES, of=of.id, message_ids=[row[0]], provider_id=None)

    async def _edit(self, name: str, number: int) -> None:
        text = f"{name}, edited as number {number}"
        await self._pool.execute(EDIT, name, text)
        self.edits[name] = text


WORDS = [
    "river",
    "lake",
    "mountain",
    "harbour",
    "bridge",
    "market",
    "garden",
    "winter",
    "engine",
    "letter",
    "window",
    "copper",
    "salt",
    "thunder",
    "orchard",
]


def words(number: int) -> str:
    """Return a few words, the same for the same number."""
    chosen = random.Random(number)
    return " ".join(chosen.choices(WORDS, k=6))
