"""The build of a space for a dataset: how it begins, and what it leaves to others or waits for."""

from uuid import UUID

from evervec.errors import Refused
from evervec.store import providers
from evervec.store.database.session import ReadTx, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Space
from evervec.store.spaces import spaces


async def start(
    tx: Tx,
    dataset: DatasetRef,
    space: Space,
    provider_id: UUID | None,
    *,
    automatic: bool,
    batch_hours: float | None,
) -> bool:
    """Build a space for a dataset that is searched in another one; return False if that is under way. Needs `lock`.

    One that is under way becomes `automatic` if this is asked now. Raises `Refused` for a dataset that builds another space,
    or whose vectors of this one are being removed.
    """
    building = [one for one in await spaces.others(tx, [dataset.id]) if one.state == spaces.NEXT]
    if any(one.space_id != space.id for one in building):
        raise Refused(
            reason=f"Dataset {dataset.name} is building {await providers.space(tx, building[0].space_id)} already. Let it end, "
            f"or give it up with `evervec spaces drop --dataset {dataset.name} --state next`."
        )
    if (dataset.id, space.id) in await spaces.dropped(tx):
        raise Refused(
            reason=f"The vectors that dataset {dataset.name} had in {space} are being removed: try again in a moment."
        )
    if building and (building[0].automatic or not automatic):
        return False
    await spaces.start(tx, dataset.id, space.id, provider_id, automatic=automatic, batch_hours=batch_hours)
    return not building


async def marked(tx: Tx, dataset_id: UUID, space_id: int) -> None:
    """Remember that the rows of a space that batch jobs fill are marked for them."""
    await tx.execute(
        "UPDATE dataset_spaces SET marked_at = now() WHERE dataset_id = $1 AND space_id = $2", dataset_id, space_id
    )


WAIT_FOR_OTHERS = """
SELECT EXISTS (
    SELECT FROM dataset_spaces o JOIN datasets d ON d.id = o.dataset_id
    WHERE o.state <> 'dropped' AND d.deleted_at IS NULL
      AND (o.taken_in_at IS NULL OR (o.indexed_at IS NULL AND pg_snapshot_xmin(pg_current_snapshot()) < o.seen_xid))
) OR EXISTS (
    SELECT FROM embed_work w JOIN embeddings e USING (vector_id) JOIN dataset_spaces o USING (dataset_id, space_id)
    WHERE w.lease_until > now() AND NOT w.deferred
)
"""


async def wait_for_others(tx: ReadTx) -> bool:
    """Return whether a space can not be taken in yet, or rows of one are leased by a process that embeds them."""
    waits: bool = await tx.fetchval(WAIT_FOR_OTHERS)
    return waits
