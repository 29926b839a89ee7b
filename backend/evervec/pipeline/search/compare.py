"""Compare the mirror with pgvector on one search: whether both find the same rows, and how long each takes when warm."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from evervec.errors import EvervecError, Refused
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import question
from evervec.pipeline.search import scope as scopes
from evervec.pipeline.search import search as searching
from evervec.pipeline.search.scope import Within
from evervec.store.embeddings.hits import SearchHit

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
        scope = await scopes.resolve(tx, Within(dataset))
        providers = await question.providers_of(tx, [scope])
    if len(scope.by_space()) > 1:
        raise Refused(
            reason="The datasets are of several spaces, whose distances can not be compared: name one of them."
        )
    (query,) = await question.embedded(resources, [scope], providers, text)
    if isinstance(query, EvervecError):
        raise query

    async def mirror() -> Sequence[SearchHit]:
        answer = await searching.nearest(resources, query, scope, k, "mirror")
        return answer.hits if answer.engine == "mirror" else ()

    async def pgvector() -> Sequence[SearchHit]:
        return (await searching.nearest(resources, query, scope, k, "pgvector")).hits

    found, seconds = await _timed([mirror, pgvector], rounds)
    return EngineComparison(found[0], seconds[0], found[1], seconds[1], _same(found[0], found[1]))


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
