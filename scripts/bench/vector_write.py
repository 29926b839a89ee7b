"""The write of vectors, against a bare UPDATE of a plain table with the same binary codec and batch size."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.resources import Resources
from evervec.store import providers, rows, vectors
from evervec.store.datasets import Dataset
from evervec.store.providers import Space
from scripts.bench import clock
from scripts.bench.report import Line, Promise, at_least, rate
from scripts.bench.stack import Bench, copy_messages, dataset, empty, without_hnsw

DIMENSIONS, BODY = 384, 320

PLAIN = f"""
CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, embedding vector({DIMENSIONS}))
"""
FILL = f"INSERT INTO plain (body) SELECT repeat('x', {BODY}) FROM generate_series(1, $1)"
BARE = """
UPDATE plain SET embedding = v.vector FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector) WHERE plain.id = v.id
"""
PLAIN_HNSW = f"CREATE INDEX plain_hnsw ON plain USING hnsw ((embedding::halfvec({DIMENSIONS})) halfvec_cosine_ops)"


@dataclass(frozen=True)
class Table:
    """Both tables of a round, empty of vectors before it: `count` rows written `size` at a time."""

    resources: Resources
    target: Dataset
    space: Space
    answers: NDArray[np.float32]
    size: int

    async def ours(self) -> float:
        """`store.vectors.write` of rows under lease, as the engine calls it."""
        await empty(self.resources)
        await copy_messages(self.resources, self.target, [f"row {number}" for number in range(len(self.answers))])
        database = self.resources.database
        async with database.transaction() as tx:
            claimed = await rows.claim_dataset(tx, self.target.id, limit=len(self.answers), owner=uuid4(), lease=600)
        await self._settle()
        started = perf_counter()
        for part in self._parts():
            async with database.transaction() as tx:
                written = await vectors.write(tx, self.space.id, claimed[part], self.answers[part])
            if len(written) != len(claimed[part]):
                raise RuntimeError(f"{len(written)} of {len(claimed[part])} vectors were written")
        return perf_counter() - started

    async def bare(self) -> float:
        """The UPDATE that anybody would write, on a table with nothing but its key."""
        database = self.resources.database
        async with database.transaction() as tx:
            await tx.execute("TRUNCATE plain RESTART IDENTITY")
            await tx.execute(FILL, len(self.answers))
        await self._settle()
        ids = list(range(1, len(self.answers) + 1))
        started = perf_counter()
        for part in self._parts():
            async with database.transaction() as tx:
                await tx.execute(BARE, ids[part], vectors.pack(self.answers[part]))
        return perf_counter() - started

    def _parts(self) -> Iterator[slice]:
        return (slice(start, start + self.size) for start in range(0, len(self.answers), self.size))

    async def _settle(self) -> None:
        async with self.resources.database.autocommit() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")


async def run(bench: Bench) -> list[Line]:
    """20,000 vectors without HNSW in batches of two sizes, then 3,000 with it on both sides."""
    async with bench.resources("vectors") as resources:
        await without_hnsw(resources)
        target, space = await dataset(resources), await _space(resources)
        async with resources.database.transaction() as tx:
            await tx.execute(PLAIN)
        lines = [
            await _line(Table(resources, target, space, _random(bench.rows(20_000)), size), at_least(0.7))
            for size in (256, 1000)
        ]
        async with resources.database.transaction() as tx:
            await tx.execute(PLAIN_HNSW)
        await vectors.build_indexes(resources.database, space.id, DIMENSIONS)
        lines.append(await _line(Table(resources, target, space, _random(bench.rows(3000)), 256), None, indexed=True))
        return lines


async def _line(table: Table, promise: Promise | None, *, indexed: bool = False) -> Line:
    taken = await clock.rounds(2 if indexed else 5, {"bare": table.bare, "ours": table.ours})
    name = f"{table.size} a batch, {'with' if indexed else 'no'} HNSW"
    return rate(name, len(table.answers), taken["ours"], taken["bare"], promise)


async def _space(resources: Resources) -> Space:
    """The active space, made as wide as the vectors that are written here."""
    async with resources.database.transaction() as tx:
        wide = await providers.add(
            tx,
            name="wide",
            type_="ollama",
            base_url=None,
            model="wide",
            chat_model=None,
            api_key_encrypted=None,
            dimensions=DIMENSIONS,
        )
        await providers.activate(tx, wide.space)
    return wide.space


def _random(count: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(1).standard_normal((count, DIMENSIONS), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
