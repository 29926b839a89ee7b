"""Search the mirrors: the vector ids that they find, which are joined to the present rows afterwards."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Ids
from evervec.pipeline.mirrors.filters import MirrorFilter
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.search.scope import Scope
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import neighbours
from evervec.store.embeddings.hits import SearchHit

if TYPE_CHECKING:
    from evervec.mirror.searcher import Searcher
    from evervec.mirror.snapshot import Snapshot

NO_FILTER = MirrorFilter()

SPARE_HITS = 8
"""So many more than k are requested of a mirror, because some rows may have been deleted since."""


@dataclass(frozen=True)
class NearestIds:
    """The vector ids nearest to a query in some mirrors, best first; whether there may be `more`, and whether an index

    `widened` its search.
    """

    ids: Sequence[int] = ()
    more: bool = False
    widened: bool = False


@dataclass(frozen=True)
class OpenMirrors:
    """The mirrors that a search asks, by dataset, and what it may return from them; none, where PostgreSQL answers alone."""

    searcher: "Searcher | None" = None
    snapshots: "Mapping[UUID, Snapshot]" = field(default_factory=dict)
    filter: MirrorFilter = NO_FILTER

    @property
    def watermarks(self) -> list[int]:
        """Return the watermarks (xmin) of the mirrors and of what the filter lets through."""
        filtered = [] if self.filter.watermark is None else [self.filter.watermark]
        return [snapshot.watermark.xmin for snapshot in self.snapshots.values()] + filtered

    async def nearest_ids(self, query: NDArray[np.float32], wanted: int) -> NearestIds:
        """Return the best vector ids of the mirrors, which are of one space, for a query `(dim,)`."""
        if self.searcher is None:
            return NearestIds()
        searching = (
            self.searcher.search(snapshot, query, wanted, self.filter.only) for snapshot in self.snapshots.values()
        )
        answers = await asyncio.gather(*searching)
        ids: Ids = np.concatenate([answer.ids for answer in answers])
        best = np.argsort(-np.concatenate([answer.scores for answer in answers]), kind="stable")[:wanted]
        # what is cut off here may be needed too, when rows of the best do not exist any more
        more = len(ids) > wanted or any(len(answer.ids) == wanted for answer in answers)
        return NearestIds(ids[best].tolist(), more, any(answer.widened for answer in answers))

    async def rejoin(
        self, tx: ReadTx, query: NDArray[np.float32], near: NearestIds, scope: Scope
    ) -> Sequence[SearchHit]:
        """Return the present rows of what was found: one that was deleted, or fulfils the condition no more, is no hit."""
        if not near.ids:
            return []
        return await neighbours.rejoin(
            tx,
            query,
            near.ids,
            dataset_ids=list(self.snapshots),
            kinds=scope.kinds,
            condition=scope.condition,
        )


async def open_for(mirrors: Mirrors, scope: Scope, *, seen: int | None = None, any_size: bool = False) -> OpenMirrors:
    """Return the mirrors of those datasets in scope that are open, or on disk and small (or of `any_size`)."""
    snapshots = await mirrors.snapshots(scope.datasets, seen=seen, any_size=any_size)
    if not snapshots:
        return OpenMirrors()
    only = await mirrors.filters.get(
        mirrors.database, scope.kinds, scope.condition, list(snapshots), space_id=scope.space_id, seen=seen
    )
    return OpenMirrors(mirrors.searcher, snapshots, only)
