"""What people and programs do to a database: insert, edit, delete, blank and move rows, by SQL or through the engine."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from evervec.errors import ConflictError
from evervec.pipeline.resources import Resources
from evervec.queue.names import EMBED_MESSAGES, Lane
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings.vector_wire import pack
from scripts.soaking import texts

WRITERS = 4
MOST = 8
"""Rows of one transaction."""
HELD_OPEN, HELD_SECONDS = 0.05, (0.1, 1.0)
"""One in twenty transactions commits late, so that newer ones are read before it."""

INSERT = """
INSERT INTO messages (dataset_id, chat, external_id, author, content)
SELECT $1, 'soak', gen_random_uuid()::text, 'ada', t FROM unnest($2::text[]) t RETURNING id
"""
# from a random place on; what another writer holds is left to him
PICK = """
SELECT id FROM messages WHERE dataset_id = $1 AND id >= (SELECT min(id) + (random() * (max(id) - min(id)))::bigint
FROM messages WHERE dataset_id = $1) ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
"""
EDIT = "UPDATE messages m SET content = v.text FROM unnest($1::bigint[], $2::text[]) AS v (id, text) WHERE m.id = v.id"
BLANK = "UPDATE messages SET content = '  ' WHERE id = ANY($1)"
MOVE = "UPDATE messages SET dataset_id = $2 WHERE id = ANY($1)"
DELETE = "DELETE FROM messages WHERE id = ANY($1)"
# as a program would that has vectors of its own, and knows nothing of watermarks
GIVE_VECTOR = """
UPDATE embeddings e SET embedding = v.vector, embedded_hash = e.content_hash, space_id = s.id, embedded_at = now(),
       failed_hash = NULL
FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector), embedding_spaces s
WHERE e.kind = 1 AND e.row_id = v.id AND e.content_hash IS NOT NULL AND s.state = 'active'
"""

Do = Callable[[Tx, DatasetRef, int], Awaitable[list[int]]]


class Writers:
    """Several at a time. `sizes` is how many rows each dataset shall have: below it more are inserted than deleted."""

    def __init__(self, resources: Resources, sizes: dict[DatasetRef, int], rate: float, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.deadlocks = 0
        self._resources, self._sizes, self._rate = resources, sizes, rate
        self._chance = random.Random(seed)
        self._next = perf_counter()
        self._rows: dict[DatasetRef, int] = {}
        self._dimensions = 0

    @property
    def rows(self) -> int:
        """Return how many rows were written so far."""
        return sum(self.done.values())

    async def write(self, finish: asyncio.Event) -> None:
        """Write until the end, at the planned number of rows a second. Raises what the database refuses, except deadlocks."""
        self._dimensions = (await self._resources.provider()).space.dimensions
        async with self._resources.database.read() as tx:
            counted = await tx.fetch("SELECT dataset_id, count(*) AS n FROM messages GROUP BY 1")
        found = {row["dataset_id"]: row["n"] for row in counted}
        self._rows = {dataset: found.get(dataset.id, 0) for dataset in self._sizes}
        self._next = perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._one_writer(finish))

    async def _one_writer(self, finish: asyncio.Event) -> None:
        while not finish.is_set():
            count = self._chance.randint(1, MOST)
            # who is late hurries, but a halt of the machine is not made up for
            self._next = max(self._next, perf_counter() - 1.0) + count / self._rate
            await asyncio.sleep(max(0.0, self._next - perf_counter()))
            try:
                await self._transaction(count)
            except ConflictError:
                self.deadlocks += 1

    async def _transaction(self, count: int) -> None:
        """Change some rows of one dataset in one way, and ring the doorbell or not: nobody has to."""
        dataset = self._chance.choices(list(self._sizes), [3, 2])[0]
        what, do = self._chosen(dataset)
        async with self._resources.database.transaction() as tx:
            ids = await do(tx, dataset, count)
            given = what in ("insert", "edit") and self._chance.random() < 0.5
            if given:
                made = texts.vectors(self._chance, len(ids), self._dimensions)
                await tx.execute(GIVE_VECTOR, ids, pack(made))
            if self._chance.random() < HELD_OPEN:
                await asyncio.sleep(self._chance.uniform(*HELD_SECONDS))
        self.done[f"{what} with a vector" if given else what] += len(ids)
        self._rows[dataset] += {"insert": 1, "delete": -1, "move": -1}.get(what, 0) * len(ids)
        if ids and self._chance.random() < 0.5:
            await self._ring(dataset, ids, given=given)

    def _chosen(self, dataset: DatasetRef) -> tuple[str, Do]:
        grows = self._rows[dataset] < self._sizes[dataset]
        shares: dict[str, tuple[float, Do]] = {
            "insert": (50 if grows else 22, self._insert),
            "edit": (30, self._edit),
            "delete": (8 if grows else 18, self._delete),
            "move": (4, self._move),
            "blank": (4, self._blank),
        }
        what = self._chance.choices(list(shares), [share for share, _ in shares.values()])[0]
        return what, shares[what][1]

    async def _ring(self, dataset: DatasetRef, ids: Sequence[int], *, given: bool) -> None:
        bell = self._resources.doorbell
        if given:
            await bell.changed([dataset.id])
        else:
            await bell.ring(EMBED_MESSAGES, lane=Lane.INTERACTIVE, message_ids=list(ids), provider_id=None)

    async def _insert(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        return [row["id"] for row in await tx.fetch(INSERT, dataset.id, self._texts(count))]

    async def _edit(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        ids = await self._pick(tx, dataset, count)
        await tx.execute(EDIT, ids, self._texts(len(ids)))
        return ids

    async def _delete(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        ids = await self._pick(tx, dataset, count)
        await tx.execute(DELETE, ids)
        return ids

    async def _blank(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        ids = await self._pick(tx, dataset, count)
        await tx.execute(BLANK, ids)
        return ids

    async def _move(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        ids = await self._pick(tx, dataset, count)
        others = [other for other in self._sizes if other != dataset]
        target = self._chance.choice(others)
        await tx.execute(MOVE, ids, target.id)
        self._rows[target] += len(ids)
        return ids

    async def _pick(self, tx: Tx, dataset: DatasetRef, count: int) -> list[int]:
        return [row["id"] for row in await tx.fetch(PICK, dataset.id, count)]

    def _texts(self, count: int) -> list[str]:
        return [texts.text(self._chance) for _ in range(count)]
