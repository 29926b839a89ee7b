"""Asks the mirrors, and re-joins what they found to the rows of now: nothing that is gone is ever a hit."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.resources import Resources
from evervec.store import vectors
from evervec.store.datasets import Dataset
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable
from evervec.store.vectors import SearchHit

if TYPE_CHECKING:
    from evervec.mirror.places import Filter
    from evervec.mirror.snapshot import Snapshot

SPARE_HITS = 8
"""So many more than k are asked of a mirror: rows that went since are no hits."""
WIDENING = 4


@dataclass(frozen=True)
class Scope:
    """Where to look: kinds, datasets (`everywhere`: they are all there are), and row ids of one kind, or None for every row."""

    kinds: Sequence[Embeddable]
    datasets: Sequence[Dataset]
    everywhere: bool = False
    row_ids: Sequence[int] | None = None

    @property
    def dataset_ids(self) -> list[UUID]:
        """The ids of the datasets."""
        return [dataset.id for dataset in self.datasets]


@dataclass(frozen=True)
class MirrorHits:
    """What the mirrors of some datasets answered, and the watermark (xmin) of each."""

    hits: Sequence[SearchHit] = ()
    datasets: frozenset[UUID] = frozenset()
    watermarks: Sequence[int] = ()
    widened: bool = False


async def ask_mirrors(
    resources: Resources,
    query: NDArray[np.float32],
    scope: Scope,
    k: int,
    *,
    seen: int | None = None,
    anything: bool = False,
    space_id: int | None = None,
) -> MirrorHits:
    """The k nearest rows in those datasets of a scope that have a mirror in this process or (`anything`) on its disk.

    Mirrors of another space than the query's are not asked: for a moment after a change of the model there are some.
    """
    every = await resources.mirrors.snapshots(scope.datasets, seen=seen, anything=anything)
    snapshots = {
        dataset_id: snapshot
        for dataset_id, snapshot in every.items()
        if snapshot.dimensions == len(query) and space_id in (None, snapshot.identity.space_id)
    }
    if not snapshots:
        return MirrorHits()
    only = await _filter(resources, scope)
    wanted, widened = k + SPARE_HITS, False
    while True:
        ids, more, wider = await _nearest_ids(resources, list(snapshots.values()), query, wanted, only)
        widened |= wider
        async with resources.database.read() as tx:
            hits = await vectors.rejoin(tx, query, ids, dataset_ids=list(snapshots), kinds=scope.kinds)
        if len(hits) >= k or not more:
            break
        wanted, widened = wanted * WIDENING, True
    marks = [snapshot.watermark.xmin for snapshot in snapshots.values()]
    return MirrorHits(hits[:k], frozenset(snapshots), marks, widened)


async def _filter(resources: Resources, scope: Scope) -> "Filter | None":
    from evervec.mirror.places import Filter

    kinds = frozenset(embeddable.kind for embeddable in scope.kinds)
    if scope.row_ids is not None:
        async with resources.database.read() as tx:
            ids = await vectors.ids_of_rows(tx, scope.kinds[0], scope.row_ids)
        return Filter(ids=np.array(ids, np.int64))
    return None if len(kinds) == len(EMBEDDABLES) else Filter(kinds)


async def _nearest_ids(
    resources: Resources,
    snapshots: Sequence["Snapshot"],
    query: NDArray[np.float32],
    wanted: int,
    only: "Filter | None",
) -> tuple[list[int], bool, bool]:
    """The best vector ids of several datasets; whether there are more than were asked for; whether an index widened."""
    searcher = resources.mirrors.searcher
    answers = await asyncio.gather(*(searcher.search(snapshot, query, wanted, only) for snapshot in snapshots))
    ids = np.concatenate([answer.ids for answer in answers])
    best = np.argsort(-np.concatenate([answer.scores for answer in answers]), kind="stable")[:wanted]
    more = any(len(answer.ids) == wanted for answer in answers)
    return ids[best].tolist(), more, any(answer.widened for answer in answers)
