"""Compare the mirror with pgvector on one search: whether both find the same rows, and how long each takes when warm."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from evervec.errors import Refused
from evervec.pipeline.budget import questions
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.mirrors import Scope, search_mirrors
from evervec.store import datasets
from evervec.store.database.session import Database
from evervec.store.embeddings import vectors
from evervec.store.embeddings.vectors import SearchHit
from evervec.store.schema.embeddables import EMBEDDABLES

COMPARE_ROUNDS = 15
HALF_PRECISION = 1e-3
"""The smallest difference between two scores that half precision can represent."""


@dataclass(frozen=True)
class EngineComparison:
    """The hits of each engine and its median milliseconds, from the query's vector to rows with their texts.

    `same` is whether both found the same rows; where the last ones have equal scores, either may be found.
    """

    mirror: Sequence[SearchHit]
    mirror_ms: float
    pgvector: Sequence[SearchHit]
    pgvector_ms: float
    same: bool


async def compare(
    resources: Resources, text: str, *, dataset: str | None = None, k: int = 10, rounds: int = COMPARE_ROUNDS
) -> EngineComparison:
    """Search with both in turn, `rounds` times. The text is embedded once, before. Raises `UnknownDatasetError`."""
    async with resources.database.read() as tx:
        scope = Scope(list(EMBEDDABLES), await datasets.find(tx, dataset))
    if len(scope.by_space()) > 1:
        raise Refused(
            reason="The datasets are of several spaces, whose distances can not be compared: name one of them."
        )
    provider = await resources.provider_of(scope.datasets[0]) if scope.datasets else await resources.provider()
    query = (await questions.embed(resources, provider, text))[0]

    async def mirror() -> Sequence[SearchHit]:
        return (await search_mirrors(resources.mirrors, query, scope, k, any_size=True)).hits

    async def pgvector() -> Sequence[SearchHit]:
        return await _from_pgvector(resources.database, query, scope, k)

    found, seconds = await _timed([mirror, pgvector], rounds)
    return EngineComparison(found[0], seconds[0], found[1], seconds[1], _same(found[0], found[1]))


async def _from_pgvector(database: Database, query: NDArray[np.float32], scope: Scope, k: int) -> Sequence[SearchHit]:
    hits: list[SearchHit] = []
    async with database.read() as tx:
        await vectors.use_index(tx, k=k)
        for embeddable in scope.kinds:
            hits += await vectors.nearest(
                tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=scope.dataset_ids
            )
    return sorted(hits, key=lambda hit: -hit.score)[:k]


async def _timed(
    engines: Sequence[Callable[[], Awaitable[Sequence[SearchHit]]]], rounds: int
) -> tuple[list[Sequence[SearchHit]], list[float]]:
    """Return the hits of each engine and its median milliseconds. They take turns, so that a noisy moment slows both."""
    found = [await engine() for engine in engines]
    taken: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, times in zip(engines, taken, strict=True):
            started = perf_counter()
            await engine()
            times.append((perf_counter() - started) * 1000)
    return found, [round(median(times), 3) for times in taken]


def _same(one: Sequence[SearchHit], other: Sequence[SearchHit]) -> bool:
    if len(one) != len(other) or not one:
        return False
    last = min(one[-1].score, other[-1].score) + HALF_PRECISION
    above = [{(hit.kind, hit.id) for hit in hits if hit.score > last} for hits in (one, other)]
    return above[0] == above[1] and abs(one[-1].score - other[-1].score) <= HALF_PRECISION
