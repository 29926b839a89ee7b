"""The write of vectors, against a bare UPDATE of a plain table with the same binary codec and batch size."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw, rows, vector_wire, vectors
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.providers import Space
from scripts.bench import clock
from scripts.bench.report import Line, Promise, at_least, rate
from scripts.bench.stack import Bench, copy_messages, dataset, default_space, empty, without_hnsw

DIMENSIONS, BODY = 384, 320

PLAIN = f"CREATE TABLE plain (id bigint PRIMARY KEY, body text, embedding vector({DIMENSIONS}))"
FILL = f"INSERT INTO plain (id, body) SELECT id, repeat('x', {BODY}) FROM generate_series(1, $1) id"
BARE = """
UPDATE plain SET embedding = v.vector FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector) WHERE plain.id = v.id
"""
PLAIN_HNSW = f"CREATE INDEX plain_hnsw ON plain USING hnsw ((embedding::halfvec({DIMENSIONS})) halfvec_cosine_ops)"


@dataclass(frozen=True)
class Tables:
    """`embeddings` and a plain table side by side, to be given the same vectors `size` at a time."""

    resources: Resources
    target: DatasetRef
    space: Space
    answers: NDArray[np.float32]
    size: int

    async def round(self) -> tuple[list[float], list[float]]:
        """Both tables without vectors, then a batch here and a batch there; return the seconds of each batch."""
        claimed = await self._claimed()
        await self._fill_plain()
        ours, bare = [], []
        for start in range(0, len(self.answers), self.size):
            part = slice(start, start + self.size)
            answers = self.answers[part]
            ours.append(await clock.seconds(self._ours(claimed[part], answers)))
            bare.append(await clock.seconds(self._bare(range(start + 1, start + len(answers) + 1), answers)))
        return ours, bare

    async def _fill_plain(self) -> None:
        async with self.resources.database.transaction() as tx:
            await tx.execute("TRUNCATE plain")
            await tx.execute(FILL, len(self.answers))
        async with self.resources.database.autocommit() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")

    async def _claimed(self) -> list[ClaimedRow]:
        await empty(self.resources)
        await copy_messages(self.resources, self.target, [f"row {number}" for number in range(len(self.answers))])
        async with self.resources.database.transaction() as tx:
            return await rows.claim_dataset(
                tx, self.target.id, space_id=self.target.space_id, limit=len(self.answers), owner=uuid4(), lease=600
            )

    async def _ours(self, claimed: Sequence[ClaimedRow], answers: NDArray[np.float32]) -> None:
        """As the engine writes: compare and set, and the leases end in the same statement."""
        async with self.resources.database.transaction() as tx:
            written = await vectors.update_vectors_bulk(tx, self.space.id, claimed, answers)
        if len(written) != len(claimed):
            raise RuntimeError(f"{len(written)} of {len(claimed)} vectors were written")

    async def _bare(self, ids: Sequence[int], answers: NDArray[np.float32]) -> None:
        """As anybody would write, into a table with nothing but its key."""
        async with self.resources.database.transaction() as tx:
            await tx.execute(BARE, list(ids), vector_wire.pack(answers))


async def run(bench: Bench) -> list[Line]:
    """20,000 vectors without HNSW in batches of two sizes, then 2,000 with it on both sides."""
    async with bench.resources("vectors") as resources:
        await without_hnsw(resources)
        space = await default_space(resources, DIMENSIONS)
        target = await dataset(resources)
        async with resources.database.transaction() as tx:
            await tx.execute(PLAIN)
        answers = _random(bench.rows(20_000))
        lines = [
            await _line("no HNSW", Tables(resources, target, space, answers, 256), 4, at_least(0.7)),
            await _line("no HNSW", Tables(resources, target, space, answers, 1000), 4, at_least(0.7)),
        ]
        async with resources.database.transaction() as tx:
            await tx.execute(PLAIN_HNSW)
        await hnsw.build_indexes(resources.database, space.id, DIMENSIONS)
        few = answers[: bench.rows(2000)]
        return [*lines, await _line("HNSW on both", Tables(resources, target, space, few, 256), 1)]


async def _line(name: str, tables: Tables, rounds: int, promise: Promise | None = None) -> Line:
    taken = [await tables.round() for _ in range(rounds)]
    ours, bare = (statistics.median(one for both in taken for one in both[side]) for side in (0, 1))
    return rate(f"{tables.size} a batch, {name}", tables.size, [ours], [bare], promise, "the median batch")


def _random(count: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(1).standard_normal((count, DIMENSIONS), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)
