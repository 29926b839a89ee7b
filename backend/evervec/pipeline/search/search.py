"""Search by meaning, by words or by both: the best rows, with the engine that answered and the answer's watermark."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from time import monotonic, perf_counter
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.conditions.reading import Given
from evervec.domain.ranking import FUSED_ROWS
from evervec.domain.text import is_blank
from evervec.errors import EvervecError, Refused, UnknownRowError
from evervec.pipeline.budget import questions
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import details as detailing
from evervec.pipeline.search import mirrors, postgres, question, words
from evervec.pipeline.search import scope as scopes
from evervec.pipeline.search.answer import SearchAnswer, SearchExplanation, WordWeight
from evervec.pipeline.search.details import Details
from evervec.pipeline.search.mirrors import SPARE_HITS, OpenMirrors
from evervec.pipeline.search.question import Query
from evervec.pipeline.search.scope import Scope, Within
from evervec.pipeline.search.words import AskedWords
from evervec.store import monitor
from evervec.store.database.session import Database, ReadTx
from evervec.store.embeddings import changes, neighbours, vectors
from evervec.store.embeddings.hits import SearchHit
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import BY_NAME

MOST_HITS = 1_000
ENGINES = ("auto", "mirror", "pgvector", "exact")
MODES = ("auto", "vector", "words", "hybrid")
WORDS_ENGINE = "words"
NO_WORDS = AskedWords()
NO_DETAILS = Details()
WAIT_SECONDS = 5.0
WATERMARK_POLL_SECONDS = 0.02


async def search(
    resources: Resources,
    text: str,
    *,
    dataset: str | None = None,
    project: str | None = None,
    kind: str | None = None,
    where: Given | None = None,
    k: int = 10,
    mode: str = "auto",
    engine: str = "auto",
    row_ids: Sequence[int] | None = None,
    min_watermark: int | None = None,
    fresh: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    dataset_ids: Collection[UUID] | None = None,
    details: Details = NO_DETAILS,
) -> SearchAnswer:
    """Return the k rows that answer a text best.

    `mode` is `vector` for the nearest in meaning, `words` for those with its words, `hybrid` for both; `auto` takes words into
    account where the question has a name, a number, a rare word or a phrase in quotation marks, and an `engine` that is named
    compares vectors alone. `where` is a condition that they fulfil (`author = "ada"`): as text, as JSON or as its tree; rows of kinds that have none
    of its fields are not searched. `row_ids` limits the hits to some rows of `kind`, for example from SQL of your own,
    `dataset_ids` to some datasets. `min_watermark` is a transaction id (`pg_current_xact_id()` of a writer): the search waits
    up to `wait_seconds` until what that transaction committed is embedded; with `fresh`, until all is that was committed
    before the search began. `details` are what the hits are to have beside themselves. Raises `Refused` for a blank text, a bad
    k, kind, engine or watermark, an unknown dataset, `ConditionError` for a condition that can not be used.
    """
    started = perf_counter()
    ended: dict[str, float] = {}
    if is_blank(text):
        raise Refused(reason='The search text is blank. Ask for something, for example `evervec search "slow query"`.')
    check(k, engine, mode)
    details.check()
    within = Within(dataset, project, kind, where, row_ids, dataset_ids)
    async with resources.database.read() as tx:
        chosen = "vector" if mode == "auto" and engine != "auto" else mode
        plan = await _plan(tx, resources, within, text, chosen, marks=details.snippets or details.explain)
        if fresh:  # the newest transaction that has ended; the caller's own writes are not newer
            min_watermark = max(min_watermark or 0, (await changes.watermark(tx)).xmax - 1)
    ended["plan"] = perf_counter()
    if min_watermark is not None:
        await _until_embedded(resources.database, plan.scope, min_watermark, wait_seconds)
    queries: Sequence[Query | EvervecError | None] = [None] * len(plan.parts)
    if plan.mode != "words":
        queries = await question.embedded(resources, plan.parts, plan.providers, text)
    ended["embed"] = perf_counter()
    failed = [query for query in queries if isinstance(query, EvervecError)]
    if len(failed) == len(queries) and plan.mode != "words" and not plan.may_do_without_meaning:
        raise failed[0]
    wanted, answer = k, await _answered(resources, plan, queries, k, engine, min_watermark)
    # more are looked at until k are left, or there are no more
    while len(details.kept(answer.hits)) < k and len(answer.hits) == wanted < MOST_HITS and details != NO_DETAILS:
        wanted = min(MOST_HITS, wanted * neighbours.WIDENING)
        answer = await _answered(resources, plan, queries, wanted, engine, min_watermark)
    ended["search"] = perf_counter()
    hits = await detailing.add(resources.database, details, details.kept(answer.hits)[:k], plan.asked)
    ended["details"] = perf_counter()
    explanation = _explained(plan, started, ended) if details.explain else None
    milliseconds = round((perf_counter() - started) * 1000, 3)
    return replace(answer, hits=hits, milliseconds=milliseconds, explanation=explanation)


def _explained(plan: "_Plan", started: float, ended: Mapping[str, float]) -> SearchExplanation:
    weights = [
        WordWeight(asked.language, word, round(weight, 3), [word] in list(asked.leading))
        for one in plan.asked
        for _, asked in one.parts
        for word, weight in sorted(asked.weights.items(), key=lambda pair: -pair[1])
    ]
    stages = {
        stage: round((end - begin) * 1000, 3)
        for begin, (stage, end) in zip([started, *ended.values()], ended.items(), strict=False)
    }
    kinds = [embeddable.name for embeddable in plan.scope.kinds]
    return SearchExplanation(kinds, len(plan.scope.datasets), weights, stages)


async def _answered(
    resources: Resources,
    plan: "_Plan",
    queries: Sequence[Query | EvervecError | None],
    k: int,
    engine: str,
    seen: int | None,
) -> SearchAnswer:
    """Return the k best rows of all spaces in scope, and the datasets that were not searched by meaning."""
    answers: list[SearchAnswer] = []
    unanswered: list[str] = []
    for part, asked, query in zip(plan.parts, plan.asked, queries, strict=True):
        if isinstance(query, EvervecError):
            unanswered += [f"{', '.join(one.name for one in part.datasets)}: {query}"]
        if query is None or (isinstance(query, EvervecError) and plan.may_do_without_meaning):
            answers.append(await by_words(resources, part, k, asked))
        elif not isinstance(query, EvervecError):
            ranked = asked if plan.mode == "hybrid" else NO_WORDS
            answers.append(await nearest(resources, query, part, k, engine, seen=seen, asked=ranked))
    return _merged(answers, unanswered, k)


@dataclass(frozen=True)
class _Plan:
    """How a question is answered: in which mode, and for each space in scope by which words and whose embedding."""

    scope: Scope
    mode: str
    parts: Sequence[Scope]
    asked: Sequence[AskedWords]
    providers: Sequence[Provider | EvervecError | None]
    may_do_without_meaning: bool
    """Whether words alone are an answer, when nobody embeds the question."""


async def _plan(tx: ReadTx, resources: Resources, within: Within, text: str, mode: str, *, marks: bool) -> _Plan:
    """Decide how a question is answered; its words are also asked for if they are to be marked."""
    scope = await scopes.resolve(tx, within)
    parts = scope.by_space()
    asked: list[AskedWords] = [NO_WORDS] * len(parts)
    if mode != "vector" or marks:
        asked = [await words.ask(tx, resources.frequencies, one, text) for one in parts]
    is_rare = any(one.is_rare for one in asked)
    chosen = mode if mode != "auto" else "hybrid" if is_rare else "vector"
    providers = [None] * len(parts) if chosen == "words" else await question.providers_of(tx, parts)
    return _Plan(scope, chosen, parts, asked, providers, mode == "auto" and is_rare)


def _merged(answers: Sequence[SearchAnswer], unanswered: Sequence[str], k: int) -> SearchAnswer:
    """Return one answer of those of several spaces: the best of each, then the second of each, and so on."""
    if len(answers) == 1 and not unanswered:
        return answers[0]
    turns = zip_longest(*(answer.hits for answer in answers))
    return SearchAnswer(
        engine="+".join(sorted({engine for answer in answers for engine in answer.engine.split("+")})),
        watermark=str(min(int(answer.watermark) for answer in answers)),
        pending_in_scope=sum(answer.pending_in_scope for answer in answers),
        milliseconds=0.0,
        hits=[hit for turn in turns for hit in turn if hit is not None][:k],
        widened=any(answer.widened for answer in answers),
        merged_by="rank" if len(answers) > 1 else "score",
        unanswered=unanswered,
        mode="hybrid" if len({answer.mode for answer in answers}) > 1 else answers[0].mode,
    )


async def similar(
    resources: Resources,
    kind: str,
    row_id: int,
    *,
    dataset: str | None = None,
    where: Given | None = None,
    k: int = 10,
    engine: str = "auto",
) -> SearchAnswer:
    """Return the k rows of the same kind nearest to a row, without itself. Raises `UnknownRowError` if it has no vector."""
    check(k, engine)
    async with resources.database.read() as tx:
        scope = await scopes.resolve(tx, Within(dataset, kind=kind, where=where))
        found = await vectors.vector_of(tx, BY_NAME[kind], row_id)
    if found is None:
        raise UnknownRowError(kind=kind, row_id=row_id)
    space_id, query = found
    # of another space nothing is comparable
    part = replace(scope, datasets=[one for one in scope.datasets if one.space_id == space_id])
    answer = await nearest(resources, query, part, k + 1, engine)
    return replace(answer, hits=[hit for hit in answer.hits if (hit.kind, hit.id) != (kind, row_id)][:k])


async def plan(resources: Resources, text: str, kind: str) -> str:
    """Return PostgreSQL's plan for a search of one kind, which names its HNSW index."""
    provider = await resources.provider()
    answer = await questions.embed(resources, provider, text)
    async with resources.database.read() as tx:
        await neighbours.use_index(tx, k=10)
        return await neighbours.explain(tx, BY_NAME[kind], answer[0], space_id=provider.space.id, k=10)


def check(k: int, engine: str = "auto", mode: str = "auto") -> None:
    """Raise `Refused` for a number of hits, an engine or a mode that there is not."""
    if mode not in MODES:
        raise Refused(reason=f"There is no mode {mode!r}. Modes: {', '.join(MODES)}.")
    if not 1 <= k <= MOST_HITS:
        raise Refused(reason=f"k is {k}, it must be between 1 and {MOST_HITS}.")
    if engine not in ENGINES:
        raise Refused(reason=f"There is no engine {engine!r}. Engines: {', '.join(ENGINES)}.")


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


async def by_words(resources: Resources, scope: Scope, k: int, asked: AskedWords) -> SearchAnswer:
    """Return the k rows that have most of a question's words, by how rare they are; rows without a vector are among them."""
    started = perf_counter()
    async with resources.database.read() as tx:
        return SearchAnswer(
            engine=WORDS_ENGINE,
            watermark=str((await changes.watermark(tx)).xmin),
            pending_in_scope=await monitor.pending(tx, scope.dataset_ids),
            hits=await words.rank(tx, asked, scope, None, (), k),
            milliseconds=round((perf_counter() - started) * 1000, 3),
            mode="words",
        )


async def nearest(
    resources: Resources,
    query: NDArray[np.float32],
    scope: Scope,
    k: int,
    engine: str,
    *,
    seen: int | None = None,
    asked: AskedWords = NO_WORDS,
) -> SearchAnswer:
    """Return the k rows nearest to a query `(dim,)`, from the mirrors, and from PostgreSQL for datasets without one.

    The datasets are of one space. With `seen`, a transaction id, the mirrors are brought to where it has committed. With words
    that were `asked`, rows that have them are ranked with those.
    """
    started = perf_counter()
    listed = max(k, FUSED_ROWS) if asked.parts else k
    if engine in ("auto", "mirror"):
        opened = await mirrors.open_for(resources.mirrors, scope, seen=seen, any_size=engine == "mirror")
    else:
        opened = OpenMirrors()
    wanted, widened = listed + SPARE_HITS, False
    while True:
        near = await opened.nearest_ids(query, wanted)
        async with resources.database.read() as tx:
            found = await opened.rejoin(tx, query, near, scope)
            if len(found) >= listed or not near.more:
                elsewhere = "auto" if engine == "mirror" else engine
                answer = await _completed(tx, opened, found, query, scope, listed, elsewhere)
                if asked.parts:
                    answer = replace(
                        answer, mode="hybrid", hits=await words.rank(tx, asked, scope, query, answer.hits, k)
                    )
                milliseconds = round((perf_counter() - started) * 1000, 3)
                return replace(answer, milliseconds=milliseconds, widened=widened or near.widened)
        wanted, widened = wanted * neighbours.WIDENING, True


async def _completed(
    tx: ReadTx,
    opened: OpenMirrors,
    found: Sequence[SearchHit],
    query: NDArray[np.float32],
    scope: Scope,
    k: int,
    engine: str,
) -> SearchAnswer:
    """Return the answer of the mirrors' hits with those of datasets without a mirror, as of this transaction."""
    hits, used = list(found), {"mirror"} if opened.snapshots else set()
    rest = scope.without(opened.snapshots)
    watermark = (await changes.watermark(tx)).xmin
    if rest.datasets:
        answered, more = await postgres.nearest(tx, rest, query, k, engine)
        hits += more
        used |= {answered} if more or not used else set()
    return SearchAnswer(
        engine="+".join(sorted(used)) or "pgvector",
        watermark=str(min([watermark, *opened.watermarks])),
        pending_in_scope=await monitor.pending(tx, scope.dataset_ids),
        milliseconds=0.0,
        hits=sorted(hits, key=lambda hit: -hit.score)[:k],
    )
