"""Search in PostgreSQL: by HNSW, or one by one where there are few rows or the graph found fewer than there are."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.search.scope import Scope
from evervec.store.conditions import allowed
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import neighbours
from evervec.store.embeddings.hits import SearchHit
from evervec.store.schema.embeddables import Embeddable
from evervec.store.schema.predicates import EXACT_SEARCH_BELOW
from evervec.store.spaces import spaces


async def nearest(
    tx: ReadTx, scope: Scope, query: NDArray[np.float32], k: int, engine: str
) -> tuple[str, list[SearchHit]]:
    """Return the engine that answered, and the k nearest rows of each kind; `auto` chooses by the number of rows."""
    # with every dataset in scope no filter is needed
    whole = scope.everywhere and scope.condition is None and not await spaces.shared(tx, scope.space_id)
    dataset_ids = None if whole else scope.dataset_ids
    hits: list[SearchHit] = []
    used: set[str] = set()
    for embeddable in scope.kinds:
        one = _one_kind if scope.condition is None else _one_kind_filtered
        answered, found = await one(tx, embeddable, query, scope, dataset_ids, k, engine)
        hits += found
        used |= {answered} if found else set()
    return "exact" if used == {"exact"} or (not used and engine == "exact") else "pgvector", hits


async def _one_kind(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    scope: Scope,
    dataset_ids: Sequence[UUID] | None,
    k: int,
    engine: str,
) -> tuple[str, list[SearchHit]]:
    chosen = engine
    if engine == "auto":
        chosen = "pgvector" if await _more(tx, embeddable, scope, EXACT_SEARCH_BELOW) else "exact"
    if chosen == "pgvector":
        await neighbours.use_index(tx, k=k)
        hits = await neighbours.nearest(tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=dataset_ids)
        await neighbours.use_any_plan(tx)
        if len(hits) == k or engine == "pgvector" or not await _more(tx, embeddable, scope, len(hits)):
            return "pgvector", hits
    found = await neighbours.nearest(
        tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=dataset_ids, exact=True
    )
    return "exact", found


async def _one_kind_filtered(
    tx: ReadTx,
    embeddable: Embeddable,
    query: NDArray[np.float32],
    scope: Scope,
    dataset_ids: Sequence[UUID] | None,
    k: int,
    engine: str,
) -> tuple[str, list[SearchHit]]:
    """Compare the rows that fulfil the condition one by one if they are few; else by HNSW, unless that finds too few."""
    assert scope.condition is not None  # the caller looked
    condition = scope.condition.for_kind(embeddable)
    most = EXACT_SEARCH_BELOW if engine == "auto" else None
    if engine != "pgvector":
        ids = await allowed.vector_ids(tx, condition, scope.dataset_ids, space_id=scope.space_id, most=most)
        if most is None or len(ids) < most:
            return "exact", await _exactly(tx, embeddable, query, scope, ids, k)
    await neighbours.use_index(tx, k=k, filtered=True)
    hits = await neighbours.nearest(
        tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=dataset_ids, condition=condition
    )
    await neighbours.use_any_plan(tx)
    if len(hits) == k:
        return "pgvector", hits
    # fewer than k: the graph's scan has an end, so nothing is proved yet
    ids = await allowed.vector_ids(tx, condition, scope.dataset_ids, space_id=scope.space_id)
    return (
        ("pgvector", hits) if len(ids) <= len(hits) else ("exact", await _exactly(tx, embeddable, query, scope, ids, k))
    )


async def _exactly(
    tx: ReadTx, embeddable: Embeddable, query: NDArray[np.float32], scope: Scope, ids: NDArray[np.int64], k: int
) -> list[SearchHit]:
    if not len(ids):
        return []
    return await neighbours.nearest(
        tx, embeddable, query, space_id=scope.space_id, k=k, dataset_ids=scope.dataset_ids, exact=True, vector_ids=ids
    )


async def _more(tx: ReadTx, embeddable: Embeddable, scope: Scope, found: int) -> bool:
    """Return whether a space has more than so many rows of a kind in scope."""
    counted = await neighbours.count_in_scope(
        tx, embeddable, scope.dataset_ids, space_id=scope.space_id, most=found + 1
    )
    return counted > found
