"""A question becomes a vector, the vector becomes hits. An answer says which engine gave it and what it is true at."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.text import is_blank
from evervec.domain.vectors import gate
from evervec.errors import Refused, UnknownRowError
from evervec.pipeline.resources import Resources
from evervec.store import datasets, monitor, vectors
from evervec.store.embeddables import BY_NAME, EMBEDDABLES, Embeddable
from evervec.store.session import ReadTx
from evervec.store.vectors import Hit

EXACT_BELOW = 5_000
"""A filter that keeps fewer rows than this is compared row by row: exact, and faster than skipping in a graph."""
MOST = 1_000
ENGINES = ("auto", "pgvector", "exact")


@dataclass(frozen=True)
class Answer:
    """`engine` is the one that answered: `pgvector` (HNSW) or `exact`."""

    engine: str
    watermark: str
    pending_in_scope: int
    milliseconds: float
    hits: list[Hit]


@dataclass(frozen=True)
class Scope:
    """Where to look: kinds, and dataset ids (None for every dataset)."""

    kinds: Sequence[Embeddable]
    dataset_ids: list[UUID] | None


async def search(
    resources: Resources,
    text: str,
    *,
    dataset: str | None = None,
    project: str | None = None,
    kind: str | None = None,
    k: int = 10,
    engine: str = "auto",
) -> Answer:
    """The k rows nearest to a text. Raises `Refused` for a blank text, a bad k, kind or engine, an unknown dataset."""
    started = perf_counter()
    if is_blank(text):
        raise Refused(reason='The search text is blank. Ask for something, for example `evervec search "slow query"`.')
    _check(k, engine)
    provider = await resources.provider()
    answer = await resources.models.embedder(provider).embed([text])
    gate(answer, count=1, dimensions=provider.space.dimensions, provider=provider.name)
    return await _nearest(resources, answer[0], await _scope(resources, dataset, project, kind), k, engine, started)


async def similar(
    resources: Resources, kind: str, row_id: int, *, dataset: str | None = None, k: int = 10, engine: str = "auto"
) -> Answer:
    """The k rows of the same kind nearest to a row, itself left out. Raises `UnknownRowError` when it has no vector."""
    started = perf_counter()
    _check(k, engine)
    scope = await _scope(resources, dataset, None, kind)
    async with resources.database.read() as tx:
        query = await vectors.of_row(tx, scope.kinds[0], row_id)
    if query is None:
        raise UnknownRowError(kind=kind, row_id=row_id)
    answer = await _nearest(resources, query, scope, k + 1, engine, started)
    others = [hit for hit in answer.hits if (hit.kind, hit.id) != (kind, row_id)][:k]
    return Answer(answer.engine, answer.watermark, answer.pending_in_scope, answer.milliseconds, others)


@dataclass(frozen=True)
class Pair:
    """Two rows that say the same; `score` is their cosine similarity."""

    kind: str
    id: int
    other_id: int
    score: float


async def duplicates(
    resources: Resources, *, dataset: str | None = None, kind: str = "message", threshold: float = 0.95, k: int = 100
) -> list[Pair]:
    """Pairs of rows at or above a similarity, nearest first, inside the datasets in scope."""
    if not 0 < threshold <= 1:
        raise Refused(reason=f"--threshold is {threshold}, it must be above 0 and at most 1.")
    _check(k, "auto")
    scope = await _scope(resources, dataset, None, kind)
    dimensions = (await resources.provider()).space.dimensions
    async with resources.database.read() as tx:
        ids = scope.dataset_ids or [d.id for d in await datasets.live(tx)]
        await vectors.use_index(tx, k=10)
        found = await vectors.duplicates(tx, scope.kinds[0], dimensions, ids, threshold=threshold, most=k)
    return [Pair(kind, *pair) for pair in found]


async def plan(resources: Resources, text: str, kind: str) -> str:
    """PostgreSQL's plan for a search of one kind: the proof that its HNSW index answers."""
    provider = await resources.provider()
    answer = await resources.models.embedder(provider).embed([text])
    async with resources.database.read() as tx:
        await vectors.use_index(tx, k=10)
        return await vectors.explain(tx, BY_NAME[kind], answer[0], k=10)


def _check(k: int, engine: str) -> None:
    if not 1 <= k <= MOST:
        raise Refused(reason=f"k is {k}, it must be between 1 and {MOST}.")
    if engine not in ENGINES:
        raise Refused(reason=f"There is no engine {engine!r}. Engines: {', '.join(ENGINES)}.")


async def _scope(resources: Resources, dataset: str | None, project: str | None, kind: str | None) -> Scope:
    if kind is not None and kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    kinds = [BY_NAME[kind]] if kind else list(EMBEDDABLES)
    if dataset is None and project is None:
        return Scope(kinds, None)
    async with resources.database.read() as tx:
        return Scope(kinds, [d.id for d in await datasets.find(tx, dataset, project)])


async def _nearest(
    resources: Resources, query: NDArray[np.float32], scope: Scope, k: int, engine: str, started: float
) -> Answer:
    async with resources.database.read() as tx:
        hits: list[Hit] = []
        used: set[str] = set()
        for embeddable in scope.kinds:
            answered, found = await _one_kind(tx, embeddable, query, scope.dataset_ids, k, engine)
            hits += found
            used |= {answered} if found else set()
        hits.sort(key=lambda hit: -hit.score)
        watermark = await monitor.watermark(tx)
        pending = await monitor.pending(tx, scope.dataset_ids)
    name = "exact" if used == {"exact"} else "pgvector"
    return Answer(name, watermark, pending, round((perf_counter() - started) * 1000, 3), hits[:k])


async def _one_kind(
    tx: ReadTx, embeddable: Embeddable, query: NDArray[np.float32], dataset_ids: list[UUID] | None, k: int, engine: str
) -> tuple[str, list[Hit]]:
    """HNSW, or exact where the filter is narrow, or where the graph came back with fewer rows than there are."""
    chosen = engine
    if engine == "auto":
        chosen = "exact" if await _narrow(tx, embeddable, dataset_ids) else "pgvector"
    if chosen == "pgvector":
        await vectors.use_index(tx, k=k)
        hits = await vectors.nearest(tx, embeddable, query, k=k, dataset_ids=dataset_ids)
        if len(hits) == k or engine == "pgvector" or not await _more(tx, embeddable, dataset_ids, len(hits)):
            return "pgvector", hits
    return "exact", await vectors.nearest(tx, embeddable, query, k=k, dataset_ids=dataset_ids, exact=True)


async def _narrow(tx: ReadTx, embeddable: Embeddable, dataset_ids: list[UUID] | None) -> bool:
    if dataset_ids is None:
        return False
    kept = await vectors.in_scope(tx, embeddable, dataset_ids, most=EXACT_BELOW)
    every = [d.id for d in await datasets.live(tx)]
    return kept < EXACT_BELOW and await vectors.in_scope(tx, embeddable, every, most=2 * kept + 1) > 2 * kept


async def _more(tx: ReadTx, embeddable: Embeddable, dataset_ids: list[UUID] | None, found: int) -> bool:
    ids = dataset_ids if dataset_ids is not None else [d.id for d in await datasets.live(tx)]
    return await vectors.in_scope(tx, embeddable, ids, most=found + 1) > found
