"""Search by meaning: embed a text and return the nearest rows, with the engine that answered and the answer's watermark."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from time import monotonic, perf_counter
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.text import is_blank
from evervec.domain.vectors import check_vectors
from evervec.errors import EvervecError, Refused, UnknownRowError
from evervec.pipeline.budget import questions
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.mirrors import MirrorHits, Scope, search_mirrors
from evervec.store import datasets, monitor, providers
from evervec.store.database.session import Database, ReadTx
from evervec.store.embeddings import changes, duplicate_pairs, vectors
from evervec.store.embeddings.vectors import ChunkPlace, SearchHit
from evervec.store.schema.embeddables import BY_NAME, EMBEDDABLES, Embeddable
from evervec.store.schema.predicates import EXACT_SEARCH_BELOW
from evervec.store.spaces import spaces

MOST_HITS = 1_000
ENGINES = ("auto", "mirror", "pgvector", "exact")
WAIT_SECONDS = 5.0
WATERMARK_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class SearchAnswer:
    """The hits of a search, best first; also a sequence of them.

    `engine` is the one that answered: `mirror` (FAISS), `pgvector` (HNSW) or `exact`; `mirror+pgvector` where a dataset
    has no mirror. `watermark` is the transaction id below which every committed row was searched. `widened` is whether
    an index had to search further than usual, because a filter was narrow or many rows were deleted. `merged_by` is
    `score`, or `rank` where the datasets are of several spaces: their scores can not be compared. `unanswered` names the
    datasets that were not searched, because no provider embedded the text for them, with the reason.
    """

    engine: str
    watermark: str
    pending_in_scope: int
    milliseconds: float
    hits: Sequence[SearchHit]
    widened: bool = False
    merged_by: str = "score"
    unanswered: Sequence[str] = ()

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> SearchHit:
        return self.hits[place]


async def search(
    resources: Resources,
    text: str,
    *,
    dataset: str | None = None,
    project: str | None = None,
    kind: str | None = None,
    k: int = 10,
    engine: str = "auto",
    row_ids: Sequence[int] | None = None,
    min_watermark: int | None = None,
    wait_seconds: float = WAIT_SECONDS,
    dataset_ids: Collection[UUID] | None = None,
) -> SearchAnswer:
    """Return the k rows nearest to a text.

    `row_ids` limits the hits to some rows of `kind`, for example from SQL of your own, `dataset_ids` to some datasets.
    `min_watermark` is a transaction id (`pg_current_xact_id()` of a writer): the search waits up to `wait_seconds` until what
    that transaction committed is embedded. Raises `Refused` for a blank text, a bad k, kind, engine or watermark, an unknown dataset.
    """
    started = perf_counter()
    if is_blank(text):
        raise Refused(reason='The search text is blank. Ask for something, for example `evervec search "slow query"`.')
    _check(k, engine)
    scope = await _scope(resources.database, dataset, project, kind, row_ids, dataset_ids)
    if min_watermark is not None:
        await _until_embedded(resources.database, scope, min_watermark, wait_seconds)
    parts = scope.by_space()
    queries = await asyncio.gather(*(_embedded(resources, part, text) for part in parts), return_exceptions=True)
    failed = [query for query in queries if isinstance(query, BaseException)]
    if len(failed) == len(parts) or any(not isinstance(error, EvervecError) for error in failed):
        raise failed[0]
    answers = [
        await _nearest(resources, query, part, k, engine, started, min_watermark)
        for part, query in zip(parts, queries, strict=True)
        if not isinstance(query, BaseException)
    ]
    unanswered = [
        f"{', '.join(one.name for one in part.datasets)}: {error}"
        for part, error in zip(parts, queries, strict=True)
        if isinstance(error, BaseException)
    ]
    return _merged(answers, unanswered, k, started)


async def _embedded(resources: Resources, scope: Scope, text: str) -> NDArray[np.float32]:
    """Embed a question for the space of a scope, `(dim,) float32`. Raises what the provider raises, and `NoProviderError`."""
    provider = await resources.provider_of(scope.datasets[0]) if scope.datasets else await resources.provider()
    only = scope.datasets[0].id if len(scope.datasets) == 1 else None
    answer = await questions.embed(resources, provider, text, dataset_id=only)
    check_vectors(answer, count=1, dimensions=provider.space.dimensions, provider=provider.name)
    query: NDArray[np.float32] = answer[0]
    return query


def _merged(answers: Sequence[SearchAnswer], unanswered: Sequence[str], k: int, started: float) -> SearchAnswer:
    """Return one answer of those of several spaces: the best of each, then the second of each, and so on."""
    if len(answers) == 1 and not unanswered:
        return answers[0]
    turns = zip_longest(*(answer.hits for answer in answers))
    return SearchAnswer(
        engine="+".join(sorted({engine for answer in answers for engine in answer.engine.split("+")})),
        watermark=str(min(int(answer.watermark) for answer in answers)),
        pending_in_scope=sum(answer.pending_in_scope for answer in answers),
        milliseconds=round((perf_counter() - started) * 1000, 3),
        hits=[hit for turn in turns for hit in turn if hit is not None][:k],
        widened=any(answer.widened for answer in answers),
        merged_by="rank" if len(answers) > 1 else "score",
        unanswered=unanswered,
    )


async def similar(
    resources: Resources, kind: str, row_id: int, *, dataset: str | None = None, k: int = 10, engine: str = "auto"
) -> SearchAnswer:
    """Return the k rows of the same kind nearest to a row, without itself. Raises `UnknownRowError` if it has no vector."""
    started = perf_counter()
    _check(k, engine)
    scope = await _scope(resources.database, dataset, None, kind)
    async with resources.database.read() as tx:
        found = await vectors.vector_of(tx, scope.kinds[0], row_id)
    if found is None:
        raise UnknownRowError(kind=kind, row_id=row_id)
    space_id, query = found
    # of another space nothing is comparable
    part = replace(scope, datasets=[one for one in scope.datasets if one.space_id == space_id])
    answer = await _nearest(resources, query, part, k + 1, engine, started)
    return replace(answer, hits=[hit for hit in answer.hits if (hit.kind, hit.id) != (kind, row_id)][:k])


@dataclass(frozen=True)
class DuplicatePair:
    """Two rows of nearly the same meaning; `score` is their cosine similarity. Only chunks have places."""

    kind: str
    id: int
    other_id: int
    score: float
    text: str
    other_text: str
    place: ChunkPlace | None = None
    other_place: ChunkPlace | None = None


async def duplicates(
    resources: Resources, *, dataset: str | None = None, kind: str = "message", threshold: float = 0.95, k: int = 100
) -> list[DuplicatePair]:
    """Return pairs of rows at or above a similarity, nearest first, inside the datasets in scope."""
    if not 0 < threshold <= 1:
        raise Refused(reason=f"--threshold is {threshold}, it must be above 0 and at most 1.")
    _check(k, "auto")
    scope = await _scope(resources.database, dataset, None, kind)
    found: list[tuple[int, int, float]] = []
    async with resources.database.read() as tx:
        for part in scope.by_space():
            if part.datasets:
                dimensions = (await providers.space(tx, part.space_id)).dimensions
                found += await duplicate_pairs.find(
                    tx,
                    scope.kinds[0],
                    part.space_id,
                    dimensions,
                    part.dataset_ids,
                    threshold=threshold,
                    most=k,
                )
        found = sorted(found, key=lambda pair: -pair[2])[:k]
        texts = await vectors.texts_of(
            tx, scope.kinds[0], {row_id for one, other, _ in found for row_id in (one, other)}
        )
    # one of the two rows may have been deleted meanwhile
    pairs = [(*pair, texts[pair[0]], texts[pair[1]]) for pair in found if pair[0] in texts and pair[1] in texts]
    return [DuplicatePair(kind, one, other, score, a[0], b[0], a[1], b[1]) for one, other, score, a, b in pairs]


async def plan(resources: Resources, text: str, kind: str) -> str:
    """Return PostgreSQL's plan for a search of one kind, which names its HNSW index."""
    provider = await resources.provider()
    answer = await questions.embed(resources, provider, text)
    async with resources.database.read() as tx:
        await vectors.use_index(tx, k=10)
        return await vectors.explain(tx, BY_NAME[kind], answer[0], space_id=provider.space.id, k=10)


def _check(k: int, engine: str) -> None:
    if not 1 <= k <= MOST_HITS:
        raise Refused(reason=f"k is {k}, it must be between 1 and {MOST_HITS}.")
    if engine not in ENGINES:
        raise Refused(reason=f"There is no engine {engine!r}. Engines: {', '.join(ENGINES)}.")


async def _scope(
    database: Database,
    dataset: str | None,
    project: str | None,
    kind: str | None,
    row_ids: Sequence[int] | None = None,
    dataset_ids: Collection[UUID] | None = None,
) -> Scope:
    if kind is not None and kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    if row_ids is not None and kind is None:
        raise Refused(reason=f"Row ids are ids of one kind: say which, one of {', '.join(BY_NAME)}.")
    kinds = [BY_NAME[kind]] if kind else list(EMBEDDABLES)
    async with database.read() as tx:
        found = await datasets.find(tx, dataset, project)
    everywhere = dataset is None and project is None and dataset_ids is None
    within = found if dataset_ids is None else [one for one in found if one.id in dataset_ids]
    return Scope(kinds, within, everywhere=everywhere, row_ids=row_ids)


async def _until_embedded(database: Database, scope: Scope, seen: int, seconds: float) -> None:
    """Wait until what the transaction `seen` committed is embedded, at most `seconds`."""
    ending = monotonic() + seconds
    unknown = 0
    while True:
        async with database.read() as tx:
            now = await changes.watermark(tx)
            if now.covers(seen) and not await monitor.pending_at(tx, scope.dataset_ids, seen):
                return
            # it may have ended between the snapshot and the query for open transactions: the next snapshot shows that
            unknown = unknown + 1 if seen >= now.xmax and not await changes.is_open(tx, seen) else 0
        if unknown == 2:
            raise Refused(reason=f"min_watermark is {seen}, but this database has only begun {now.xmax - 1}.")
        if not unknown and monotonic() >= ending:
            return
        await asyncio.sleep(WATERMARK_POLL_SECONDS)


async def _nearest(
    resources: Resources,
    query: NDArray[np.float32],
    scope: Scope,
    k: int,
    engine: str,
    started: float,
    seen: int | None = None,
) -> SearchAnswer:
    """Search the mirrors, and PostgreSQL for datasets without one; return the best k of both."""
    from_mirrors = MirrorHits()
    if engine in ("auto", "mirror"):
        from_mirrors = await search_mirrors(resources.mirrors, query, scope, k, seen=seen, any_size=engine == "mirror")
    hits, used = list(from_mirrors.hits), {"mirror"} if from_mirrors.datasets else set()
    rest = replace(scope, datasets=[d for d in scope.datasets if d.id not in from_mirrors.datasets])
    async with resources.database.read() as tx:
        watermark = (await changes.watermark(tx)).xmin
        if rest.datasets:
            answered, found = await _from_postgres(tx, rest, query, k, "auto" if engine == "mirror" else engine)
            hits += found
            used |= {answered} if found or not used else set()
        pending = await monitor.pending(tx, scope.dataset_ids)
    hits.sort(key=lambda hit: -hit.score)
    return SearchAnswer(
        engine="+".join(sorted(used)) or "pgvector",
        watermark=str(min([watermark, *from_mirrors.watermarks])),
        pending_in_scope=pending,
        milliseconds=round((perf_counter() - started) * 1000, 3),
        hits=hits[:k],
        widened=from_mirrors.widened,
    )


async def _from_postgres(
    tx: ReadTx, scope: Scope, query: NDArray[np.float32], k: int, engine: str
) -> tuple[str, list[SearchHit]]:
    # with every dataset in scope no filter is needed
    whole = scope.everywhere and scope.row_ids is None and not await spaces.shared(tx, scope.space_id)
    dataset_ids = None if whole else scope.dataset_ids
    hits: list[SearchHit] = []
    used: set[str] = set()
    for embeddable in scope.kinds:
        if scope.row_ids is not None:
            answered, found = (
                "exact",
                await vectors.nearest_of(
                    tx, embeddable, query, scope.row_ids, scope.dataset_ids, space_id=scope.space_id, k=k
                ),
            )
        else:
            answered, found = await _one_kind(tx, embeddable, query, scope, dataset_ids, k, engine)
        hits += found
        used |= {answered} if found else set()
    return "exact" if used == {"exact"} else "pgvector", hits


async def _one_kind(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    scope: Scope,
    dataset_ids: list[UUID] | None,
    k: int,
    engine: str,
) -> tuple[str, list[SearchHit]]:
    """Search one kind with HNSW; exactly where there are few rows, or where the graph returned fewer than there are."""
    chosen = engine
    if engine == "auto":
        chosen = "pgvector" if await _more(tx, embeddable, scope, EXACT_SEARCH_BELOW) else "exact"
    if chosen == "pgvector":
        await vectors.use_index(tx, k=k)
        hits = await vectors.nearest(tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=dataset_ids)
        if len(hits) == k or engine == "pgvector" or not await _more(tx, embeddable, scope, len(hits)):
            return "pgvector", hits
    found = await vectors.nearest(
        tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=dataset_ids, exact=True
    )
    return "exact", found


async def _more(tx: ReadTx, embeddable: Embeddable, scope: Scope, found: int) -> bool:
    """Return whether a space has more than so many rows of a kind in scope."""
    counted = await vectors.count_in_scope(tx, embeddable, scope.dataset_ids, space_id=scope.space_id, most=found + 1)
    return counted > found
