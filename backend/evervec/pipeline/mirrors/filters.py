"""What the conditions of searches let through in the mirrors, kept for a moment: a filter of 100,000 ids takes longer to make

than to use."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from evervec.store.conditions import allowed
from evervec.store.conditions.compiling import CheckedCondition
from evervec.store.database.session import Database
from evervec.store.embeddings import changes
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable

if TYPE_CHECKING:
    from evervec.mirror.filter import Filter

MOST_FILTERS = 16
FILTER_SECONDS = 1.0
"""So long a filter serves: rows that fulfil its condition only since then are not found yet, which the watermark says."""


@dataclass(frozen=True)
class MirrorFilter:
    """What a search may return from a mirror (None: everything), and the watermark (xmin) at which that was true."""

    only: "Filter | None" = None
    watermark: int | None = None


@dataclass(frozen=True)
class _Kept:
    made: "asyncio.Task[MirrorFilter]"
    since: float


class FilterCache:
    """The filters that were used last. Equal searches that come together wait for one query."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    async def get(
        self,
        database: Database,
        kinds: Sequence[Embeddable],
        condition: CheckedCondition | None,
        dataset_ids: Sequence[UUID],
        *,
        space_id: int,
        seen: int | None = None,
    ) -> MirrorFilter:
        """Return the filter for some kinds and a condition; with `seen`, one in which that transaction's rows are."""
        from evervec.mirror.filter import Filter

        if condition is None:
            every = len(kinds) == len(EMBEDDABLES)
            return MirrorFilter(None if every else Filter(frozenset(one.kind for one in kinds)))
        key = condition, tuple(dataset_ids), space_id
        kept = self._kept.get(key)
        if kept is None or monotonic() - kept.since > FILTER_SECONDS or _failed(kept.made):
            kept = self._make(key, database, condition, dataset_ids, space_id)
        made = await asyncio.shield(kept.made)
        if seen is not None and made.watermark is not None and made.watermark <= seen:
            made = await asyncio.shield(self._make(key, database, condition, dataset_ids, space_id).made)
        return made

    def _make(
        self, key: Hashable, database: Database, condition: CheckedCondition, dataset_ids: Sequence[UUID], space_id: int
    ) -> _Kept:
        making = asyncio.create_task(_read(database, condition, dataset_ids, space_id))
        kept = self._kept[key] = _Kept(making, monotonic())
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_FILTERS:
            self._kept.popitem(last=False)
        return kept


def _failed(made: "asyncio.Task[MirrorFilter]") -> bool:
    return made.done() and (made.cancelled() or made.exception() is not None)


async def _read(
    database: Database, condition: CheckedCondition, dataset_ids: Sequence[UUID], space_id: int
) -> MirrorFilter:
    from evervec.mirror.filter import Filter

    async with database.read() as tx:
        watermark = (await changes.watermark(tx)).xmin
        ids = await allowed.vector_ids(tx, condition, dataset_ids, space_id=space_id)
    return MirrorFilter(Filter(ids=ids), watermark)
