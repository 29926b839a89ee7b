"""A flip: datasets are searched in their next space from now on, or in the previous one again; no search fails by it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from evervec import log
from evervec.errors import EvervecError, Refused
from evervec.pipeline.embedding.embed import never
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.index import FEW_ROWS, index_allowed
from evervec.pipeline.spaces.step import opened, step
from evervec.store import datasets, providers
from evervec.store.attached import views
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import spaces
from evervec.store.spaces.spaces import OtherSpace

logger = log.get("spaces")

CATCH_UP_SECONDS = 30.0
"""Longest time that a flip waits for rows that were written a moment ago: on a machine that is busy with them, many seconds."""
CATCH_UP_IDLE_SECONDS = 1.0
CATCH_UP_PAUSE_SECONDS = 0.02
STRICT_SECONDS = 2.0
"""Afterwards a flip leaves out what was embedded since it began: where rows are written all the time, the next are always there
before the last ones are done. They are found again a moment after it."""


class _RowsMissing(Refused):
    """{reason}"""


@dataclass(frozen=True)
class Flipped:
    """A dataset that is searched in another space now."""

    project: str
    dataset: str
    former: str
    space: str


async def activate(resources: Resources, *, dataset: str | None = None, allow_missing: int = 0) -> list[Flipped]:
    """Search datasets, or all that build one, in their next space; the present one is kept for a rollback.

    Raises `Refused` where more than `allow_missing` rows of a dataset have no vector there, and where none builds one.
    """
    await index_allowed(resources, dataset, allow_missing=allow_missing)
    return await _flip_when_whole(resources, spaces.NEXT, dataset, allow_missing)


async def roll_back(resources: Resources, *, dataset: str | None = None, allow_missing: int = 0) -> list[Flipped]:
    """Search datasets, or all that have one, in the space that they were searched in before. Raises as `activate` does."""
    return await _flip_when_whole(resources, spaces.PREVIOUS, dataset, allow_missing)


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
            and not await spaces.missing(tx, one.dataset_id, one.space_id, recent=CATCH_UP_SECONDS)
        ]
    for one in ready:
        try:
            await activate(resources, dataset=one.name)
        except EvervecError as error:  # a row came in between: the next round tries again
            logger.info("space not activated", dataset=one.name, reason=str(error))


async def _flip_when_whole(resources: Resources, state: str, name: str | None, allow_missing: int) -> list[Flipped]:
    """Flip; where rows are written all the time, embed the few that just came, and try again while that helps."""
    began = moved = monotonic()
    while True:
        waited = monotonic() - began
        try:
            return await _flip(resources, state, name, allow_missing, recent=waited if waited > STRICT_SECONDS else 0)
        except _RowsMissing:
            if await _catch_up(resources, state, name):
                moved = monotonic()
            # others may have claimed the last rows a moment ago, and not be counted as busy
            if waited >= CATCH_UP_SECONDS or monotonic() - moved > CATCH_UP_IDLE_SECONDS:
                raise


async def _catch_up(resources: Resources, state: str, name: str | None) -> bool:
    """Do what little is left of the spaces of a state; return whether anything was done, or is being done by others."""
    async with resources.database.read() as tx:
        scope = {one.id for one in await datasets.find(tx, name)}
    await asyncio.sleep(CATCH_UP_PAUSE_SECONDS)
    worked = False
    for one, dataset in await opened(resources):
        if one.state != state or dataset.id not in scope:
            continue
        async with resources.database.read() as tx:
            if not await spaces.few_wait(tx, dataset.id, one.space_id, most=FEW_ROWS):
                return False
            busy = await spaces.in_flight(tx, dataset.id, one.space_id)
        try:
            worked |= await step(resources, one, dataset, never) or busy
        except EvervecError as error:  # what is missing is told then
            logger.warning("space not filled", dataset=dataset.name, space=one.space_id, error=str(error))
    return worked


async def _flip(
    resources: Resources, state: str, name: str | None, allow_missing: int, *, recent: float
) -> list[Flipped]:
    async with resources.database.transaction() as tx:
        scope = await datasets.find(tx, name)
        await spaces.lock(tx, [one.id for one in scope])
        there = await spaces.others(tx, [one.id for one in scope])
        other = {one.dataset_id: one for one in there if one.state == state}
        chosen = [one for one in scope if one.id in other]
        if not chosen:
            raise Refused(reason=_nothing(state, name))
        for one in chosen:
            space = other[one.id]
            _require_open(one, space, there)
            missing = await spaces.missing(tx, one.id, space.space_id, recent=recent)
            if missing > allow_missing:
                raise _RowsMissing(
                    reason=f"Dataset {one.name}: {missing:,} rows have no vector in {await providers.space(tx, space.space_id)}, "
                    "and would not be found. `evervec spaces status` says how far it is; `evervec failed list` shows what can "
                    f"not be embedded; {_without(state, missing)} goes on without them."
                )
        flipped = [await _told(tx, one, other[one.id].space_id) for one in chosen]
        await spaces.flip(tx, [one.id for one in chosen], state)
        if state == spaces.PREVIOUS:
            for one in chosen:
                await keep_provider(tx, one.id, other[one.id].space_id, other[one.id].provider_id)
        await _follow_default(tx, name, {other[one.id].space_id for one in chosen})
        await views.renew(tx, resources.database.schema, [one.id for one in chosen])
    await resources.doorbell.changed({one.id for one in chosen})
    said = "space activated" if state == spaces.NEXT else "space rolled back"
    for told in flipped:
        logger.info(said, dataset=f"{told.project}/{told.dataset}", former=told.former, space=told.space)
    return flipped


def _require_open(dataset: DatasetRef, space: OtherSpace, there: Sequence[OtherSpace]) -> None:
    """Raise `Refused` for a space that can not be searched yet, and for a rollback while another one is built."""
    if not space.taken_in or not space.indexed:
        raise Refused(
            reason=f"Dataset {dataset.name}: its next space is not filled yet. `evervec spaces status` says how far it is."
        )
    building = [one for one in there if one.dataset_id == dataset.id and one.state == spaces.NEXT]
    if space.state == spaces.PREVIOUS and building:
        raise Refused(
            reason=f"Dataset {dataset.name} builds another space, which a rollback would leave without a place. Let it end, "
            f"or give it up with `evervec spaces drop --dataset {dataset.name} --state next`."
        )


async def keep_provider(tx: Tx, dataset_id: UUID, space_id: int, provider_id: UUID | None) -> None:
    """Keep who embeds a dataset that somebody did not want in another space: then nothing is built for it by itself."""
    found = await providers.serving(tx, space_id, provider_id)
    if found is not None:
        await spaces.use_provider(tx, [dataset_id], found.id)


async def _told(tx: Tx, dataset: DatasetRef, space_id: int) -> Flipped:
    former, space = await providers.space(tx, dataset.space_id), await providers.space(tx, space_id)
    return Flipped(dataset.project, dataset.slug, str(former), str(space))


async def _follow_default(tx: Tx, name: str | None, new_spaces: set[int]) -> None:
    """Give new datasets the space that all were flipped to."""
    if name is None and len(new_spaces) == 1:
        await spaces.make_default(tx, new_spaces.pop())


def _without(state: str, missing: int) -> str:
    if state == spaces.NEXT:
        return f"`evervec spaces activate --allow-missing {missing}`"
    return f"`evervec spaces rollback --allow-missing {missing}`"


def _nothing(state: str, name: str | None) -> str:
    if state == spaces.NEXT:
        what = "No dataset builds another space" if name is None else f"Dataset {name} builds no other space"
        return f"{what}. Begin with `evervec spaces build --provider NAME`."
    what = "No dataset has a space" if name is None else f"Dataset {name} has no space"
    return f"{what} to go back to: one is kept after `evervec spaces activate`, until `evervec spaces drop`."
