"""A space that is filled is searched from now on, or no longer, or given up: short transactions, and no search fails."""

from dataclasses import dataclass
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError, Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers, spaces
from evervec.store.attached import views
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef

logger = log.get("spaces")

PURGED_ROWS = 2_000


@dataclass(frozen=True)
class Turned:
    """A dataset that is searched in another space now."""

    project: str
    dataset: str
    former: str
    space: str


async def activate(resources: Resources, *, dataset: str | None = None, allow_missing: int = 0) -> list[Turned]:
    """Search datasets, or all that build one, in their next space; the present one is kept for a rollback.

    Raises `Refused` where more than `allow_missing` rows of a dataset have no vector there, and where none builds one.
    """
    return await _turn(resources, spaces.NEXT, dataset, allow_missing)


async def roll_back(resources: Resources, *, dataset: str | None = None, allow_missing: int = 0) -> list[Turned]:
    """Search datasets, or all that have one, in the space that they were searched in before. Raises as `activate` does."""
    return await _turn(resources, spaces.PREVIOUS, dataset, allow_missing)


async def activate_complete(resources: Resources) -> None:
    """Activate the builds that are to be by themselves, as soon as every row has its vector."""
    async with resources.database.read() as tx:
        live = {one.id: one for one in await datasets.live(tx)}
        ready = [
            live[one.dataset_id]
            for one in await spaces.others(tx)
            if one.automatic
            and one.state == spaces.NEXT
            and one.indexed
            and one.dataset_id in live
            and not await spaces.missing(tx, one.dataset_id, one.space_id)
        ]
    for one in ready:
        try:
            await activate(resources, dataset=one.name)
        except EvervecError as error:  # a row came in between: the next round tries again
            logger.info("space not activated", dataset=one.name, reason=str(error))


async def _turn(resources: Resources, state: str, name: str | None, allow_missing: int) -> list[Turned]:
    verb = "activate" if state == spaces.NEXT else "rollback"
    async with resources.database.transaction() as tx:
        scope = await datasets.find(tx, name)
        await spaces.lock(tx, [one.id for one in scope])
        other = {one.dataset_id: one for one in await spaces.others(tx) if one.state == state}
        chosen = [one for one in scope if one.id in other]
        if not chosen:
            raise Refused(reason=_nothing(state, name))
        for one in chosen:
            space = other[one.id]
            if not space.taken_in:
                raise Refused(
                    reason=f"Dataset {one.name}: its next space is not filled yet. `evervec spaces status` says how far it is."
                )
            missing = await spaces.missing(tx, one.id, space.space_id)
            if missing > allow_missing:
                raise Refused(
                    reason=f"Dataset {one.name}: {missing:,} rows have no vector in {await providers.space(tx, space.space_id)}, "
                    "and would not be found. `evervec spaces status` says how far it is; `evervec failed list` shows what can "
                    f"not be embedded; `evervec spaces {verb} --allow-missing {missing}` goes on without them."
                )
        turned = [await _told(tx, one, other[one.id].space_id) for one in chosen]
        await spaces.turn(tx, [one.id for one in chosen], state)
        await _follow_default(tx, name, {other[one.id].space_id for one in chosen})
        await views.renew(tx, resources.database.schema, [one.id for one in chosen])
    await resources.doorbell.changed({one.id for one in chosen})
    for told in turned:
        logger.info("space turned", dataset=f"{told.project}/{told.dataset}", former=told.former, space=told.space)
    return turned


async def _told(tx: Tx, dataset: DatasetRef, space_id: int) -> Turned:
    former, space = await providers.space(tx, dataset.space_id), await providers.space(tx, space_id)
    return Turned(dataset.project, dataset.slug, str(former), str(space))


async def _follow_default(tx: Tx, name: str | None, turned_to: set[int]) -> None:
    """Give new datasets the space that all were turned to."""
    if name is None and len(turned_to) == 1:
        await spaces.make_default(tx, turned_to.pop())


def _nothing(state: str, name: str | None) -> str:
    of = "No dataset" if name is None else f"Dataset {name}"
    if state == spaces.NEXT:
        return f"{of} builds another space. Begin with `evervec spaces build --provider NAME`."
    return f"{of} has a space to go back to: one is kept after `evervec spaces activate`, until `evervec spaces drop`."


async def drop(
    resources: Resources, *, dataset: str | None = None, state: str | None = None
) -> list[tuple[DatasetRef, int]]:
    """Give up the spaces of datasets, or of all, that are not searched: the next, the previous, or both.

    From the commit on nothing is written to them; `purge` removes what they hold. Raises `Refused` if there is none.
    """
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
    return [(scope[one.dataset_id], one.space_id) for one in found]


async def purge(resources: Resources) -> int:
    """Remove the vectors and chunks of dropped spaces, a short transaction a batch; return how many."""
    async with resources.database.read() as tx:
        dropped = await spaces.dropped(tx)
    total = 0
    for dataset_id, space_id in dropped:
        total += await _purge(resources, dataset_id, space_id)
        async with resources.database.transaction() as tx:
            await spaces.drop_unused(tx, space_id)
    return total


async def _purge(resources: Resources, dataset_id: UUID, space_id: int) -> int:
    total, removed = 0, 1
    while removed:
        removed = await resources.database.with_retries(
            lambda tx: spaces.purge(tx, dataset_id, space_id, limit=PURGED_ROWS)
        )
        total += removed
    return total
