"""Search the mirrors, and re-join what they find to the present rows, so that a deleted row is never a hit."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.mirrors.registry import Mirrors
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vectors
from evervec.store.embeddings.vectors import SearchHit
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable

if TYPE_CHECKING:
    from evervec.mirror.filter import Filter
    from evervec.mirror.searcher import Searcher
    from evervec.mirror.snapshot import Snapshot

SPARE_HITS = 8
"""So many more than k are requested of a mirror, because some rows may have been deleted since."""


@dataclass(frozen=True)
class Scope:
    """What to search: kinds, datasets of one space (`everywhere`: these are all that have vectors in it), and row ids of one

    kind, or None for every row.
    """

    kinds: Sequence[Embeddable]
    datasets: Sequence[DatasetRef]
    everywhere: bool = False
    row_ids: Sequence[int] | None = None

    @property
    def space_id(self) -> int:
        """Return the space of the datasets; 0 for none."""
        return self.datasets[0].space_id if self.datasets else 0

    def by_space(self) -> "list[Scope]":
        """Return a scope for each space that the datasets are searched in, in their order."""
        spaces: dict[int, list[DatasetRef]] = {}
        for dataset in self.datasets:
            spaces.setdefault(dataset.space_id, []).append(dataset)
        return [replace(self, datasets=datasets) for datasets in spaces.values()] or [self]

    @property
    def dataset_ids(self) -> list[UUID]:
        """Return the ids of the datasets."""
        return [dataset.id for dataset in self.datasets]


@dataclass(frozen=True)
class MirrorHits:
    """The hits from the mirrors of some datasets, and the watermark (xmin) of each mirror."""

    hits: Sequence[SearchHit] = ()
    datasets: frozenset[UUID] = frozenset()
    watermarks: Sequence[int] = ()
    widened: bool = False


async def search_mirrors(
    mirrors: Mirrors,
    query: NDArray[np.float32],
    scope: Scope,
    k: int,
    *,
    seen: int | None = None,
    any_size: bool = False,
) -> MirrorHits:
    """Return the k nearest rows of those datasets whose mirror is open, or on disk and small (or of `any_size`).

    The query and the datasets are of one space.
    """
    snapshots = await mirrors.snapshots(scope.datasets, seen=seen, any_size=any_size)
    if not snapshots:
        return MirrorHits()
    only = await _filter(mirrors.database, scope)
    wanted, widened = k + SPARE_HITS, False
    while True:
        ids, more, wider = await _nearest_ids(mirrors.searcher, list(snapshots.values()), query, wanted, only)
        widened |= wider
        async with mirrors.database.read() as tx:
            hits = await vectors.rejoin(tx, query, ids, dataset_ids=list(snapshots), kinds=scope.kinds)
        if len(hits) >= k or not more:
            break
        wanted, widened = wanted * vectors.WIDENING, True
    marks = [snapshot.watermark.xmin for snapshot in snapshots.values()]
    return MirrorHits(hits[:k], frozenset(snapshots), marks, widened)


async def _filter(database: Database, scope: Scope) -> "Filter | None":
    from evervec.mirror.filter import Filter

    kinds = frozenset(embeddable.kind for embeddable in scope.kinds)
    if scope.row_ids is not None:
        async with database.read() as tx:
            ids = await vectors.ids_of_rows(tx, scope.kinds[0], scope.row_ids, scope.space_id)
        return Filter(ids=np.array(ids, np.int64))
    return None if len(kinds) == len(EMBEDDABLES) else Filter(kinds)


async def _nearest_ids(
    searcher: "Searcher",
    snapshots: Sequence["Snapshot"],
    query: NDArray[np.float32],
    wanted: int,
    only: "Filter | None",
) -> tuple[list[int], bool, bool]:
    """Return the best vector ids of several datasets, whether there may be more, and whether an index widened its search."""
    answers = await asyncio.gather(*(searcher.search(snapshot, query, wanted, only) for snapshot in snapshots))
    ids = np.concatenate([answer.ids for answer in answers])
    best = np.argsort(-np.concatenate([answer.scores for answer in answers]), kind="stable")[:wanted]
    # what is cut off here may be needed too, when rows of the best do not exist any more
    more = len(ids) > wanted or any(len(answer.ids) == wanted for answer in answers)
    return ids[best].tolist(), more, any(answer.widened for answer in answers)
