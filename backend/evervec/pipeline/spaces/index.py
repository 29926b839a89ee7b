"""The indexes of a space that is filled: built while it is not searched yet, so that no search has to do without them."""

from collections.abc import Sequence

from evervec import log
from evervec.errors import PoolerError
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers
from evervec.store.embeddings import hnsw
from evervec.store.spaces import spaces
from evervec.store.spaces.spaces import OtherSpace

logger = log.get("spaces")

FEW_ROWS = 1_000
"""Rows that may still wait when indexes are built: the last ones of a dataset that is written to all the time."""


async def index_filled(resources: Resources, space_id: int) -> bool:
    """Index a space once nearly nothing is left to fill of any dataset that builds it; return whether it was indexed."""
    async with resources.database.read() as tx:
        building = [one for one in await spaces.others(tx) if one.space_id == space_id]
        for one in building:
            if not one.taken_in or not await spaces.few_wait(tx, one.dataset_id, space_id, most=FEW_ROWS):
                return False
    return await _index(resources, space_id, building)


async def index_allowed(resources: Resources, name: str | None, *, allow_missing: int) -> None:
    """Index the next spaces of datasets, or of all, that may be activated and have no indexes yet."""
    async with resources.database.read() as tx:
        scope = [one.id for one in await datasets.find(tx, name)]
        waiting = [
            one
            for one in await spaces.others(tx, scope)
            if one.state == spaces.NEXT and one.taken_in and not one.indexed
            if await spaces.missing(tx, one.dataset_id, one.space_id) <= allow_missing
        ]
    for space_id in {one.space_id for one in waiting}:
        await _index(resources, space_id, [one for one in waiting if one.space_id == space_id])


async def _index(resources: Resources, space_id: int, building: Sequence[OtherSpace]) -> bool:
    """Index the vectors of a space without blocking writers; return False while transactions are open that may have lost a row."""
    async with resources.database.transaction() as tx:
        space = await providers.space(tx, space_id)
        for one in building:
            if not await spaces.older_writers_ended(tx, one.dataset_id, space_id):
                return False
    try:
        await hnsw.build_indexes(resources.database, space.id, space.dimensions)
    except PoolerError as error:
        logger.warning("indexes not built", space=str(space), reason=str(error))
    async with resources.database.transaction() as tx:
        for one in building:
            await spaces.indexed(tx, one.dataset_id, space_id)
        await spaces.drop_unused(tx, space_id)  # it may have been given up meanwhile
    await resources.doorbell.changed({one.dataset_id for one in building})
    return True
