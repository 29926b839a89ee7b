"""A space that is not searched is given up: nothing is written to it from the commit on, and what it holds is removed in batches."""

from uuid import UUID

from evervec import log
from evervec.errors import ConflictError, Refused
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.flip import keep_provider
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import space_removal, spaces

logger = log.get("spaces")

PURGED_ROWS = 2_000


async def drop(
    resources: Resources, *, dataset: str | None = None, state: str | None = None
) -> list[tuple[DatasetRef, int]]:
    """Give up the spaces of datasets, or of all, that are not searched: the next, the previous, or both.

    From the commit on nothing is written to them; `purge` removes what they hold. Raises `Refused` if there is none.
    """
    if state not in (None, spaces.NEXT, spaces.PREVIOUS):
        raise Refused(reason=f"There is no state {state!r}. States: {spaces.NEXT}, {spaces.PREVIOUS}.")
    async with resources.database.transaction() as tx:
        scope = {one.id: one for one in await datasets.find(tx, dataset)}
        await spaces.lock(tx, list(scope))
        found = [one for one in await spaces.others(tx, list(scope)) if state in (None, one.state)]
        if not found:
            raise Refused(
                reason="There is no space to drop: the one that is searched stays. `evervec spaces status` lists the others."
            )
        for one in found:
            await spaces.drop(tx, one.dataset_id, one.space_id)
            if one.automatic:
                await keep_provider(
                    tx, one.dataset_id, scope[one.dataset_id].space_id, scope[one.dataset_id].provider_id
                )
    return [(scope[one.dataset_id], one.space_id) for one in found]


async def purge(resources: Resources) -> int:
    """Remove the vectors and chunks of dropped spaces, a short transaction a batch; return how many."""
    async with resources.database.read() as tx:
        dropped = await spaces.dropped(tx)
    total = 0
    for dataset_id, space_id in dropped:
        try:
            total += await _purge(resources, dataset_id, space_id)
        except ConflictError as error:  # the janitor goes on
            logger.warning("space not removed yet", space=space_id, reason=str(error))
    return total


async def _purge(resources: Resources, dataset_id: UUID, space_id: int) -> int:
    total, removed = 0, 1
    while removed:
        removed = await resources.database.with_retries(
            lambda tx: space_removal.purge(tx, dataset_id, space_id, limit=PURGED_ROWS)
        )
        total += removed
    return total
