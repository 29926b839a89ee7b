"""Carry a mirror over into another history of its database: a promoted standby, a restored backup, a changed schema.

Versions prove nothing there: a transaction that was lost and a later one may have the same id. So every number of every
vector is compared, and what differs is read again.
"""

from dataclasses import dataclass
from time import perf_counter
from uuid import UUID

import numpy as np

from evervec.domain.feed import DatabaseIdentity, Difference, Ids, Watermark
from evervec.mirror.entries import MISSING_ID
from evervec.mirror.index import DatasetIndex
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors import difference
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.executors import Executors
from evervec.store.database.session import ReadTx
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState


@dataclass(frozen=True)
class CarriedOver:
    """A mirror after its comparison with another history. `index` is None where it differs in so much that it is rebuilt.

    The file of its main segment is right for that history, which `identity` names, from `watermark` on, if the vectors
    `reread` are read again.
    """

    index: DatasetIndex | None
    found: MirrorDifference
    identity: DatabaseIdentity
    watermark: Watermark
    reread: Ids


async def carry_over(
    tx: ReadTx, dataset_id: UUID, feed: FeedState, index: DatasetIndex, executors: Executors
) -> CarriedOver:
    """Compare a mirror with the database at the snapshot of `tx`; return it as of that snapshot.

    `feed` is the state of the same transaction. The index that is given does not change.
    """
    started = perf_counter()
    snapshot = index.snapshot
    # What both have seen. A transaction that the old history had seen can be open, or not yet begun, in the new one.
    watermark = snapshot.main.watermark.common(feed.watermark)
    count, found, _ = await difference.difference(tx, dataset_id, index, executors, deep=True)
    if difference.too_large(found, count):
        result = difference.summarize(started, count, found, "rebuild")
        return CarriedOver(None, result, feed.identity, watermark, np.empty(0, np.int64))
    changed = await difference.changes_to_apply(tx, dataset_id, feed, found)
    told = await changes.ids_since(tx, dataset_id, feed.identity.space_id, watermark)
    carried = await executors.quick(index.relabelled, feed.identity, changed)
    result = difference.summarize(started, count, found, "repair" if len(found) else "")
    return CarriedOver(carried, result, feed.identity, watermark, _to_reread(snapshot, found, told, feed.watermark))


def _to_reread(snapshot: Snapshot, found: Difference, told: Ids, seen: Watermark) -> Ids:
    """Return the ids in which the file of the main segment differs from the database and the feed does not put that right.

    Nor does it where the file has a version that the new history has yet to give: that vector would pass for a present one.
    """
    unlike = np.unique(np.concatenate([snapshot.edited(), found.missing, found.extra, found.stale]))
    filed = snapshot.base.entries.versions_of(unlike)
    yet_to_come = [version != MISSING_ID and not seen.covers(version) for version in filed.tolist()]
    reread: Ids = unlike[~np.isin(unlike, told) | np.array(yet_to_come, bool)]
    return reread
