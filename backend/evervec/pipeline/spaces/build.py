"""The build of another space: begun, filled beside the one that is searched, indexed. Whoever stops in it, another goes on."""

import asyncio
from dataclasses import dataclass, replace
from time import monotonic

from evervec import log
from evervec.domain.vendors import require_batch
from evervec.errors import EvervecError
from evervec.pipeline import chunking
from evervec.pipeline.chunking import DatasetGone
from evervec.pipeline.embedding.embed import Progress, Until, never
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.flip import activate_complete
from evervec.pipeline.spaces.step import opened, step
from evervec.store import datasets, providers
from evervec.store.database.session import ReadTx, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.providers import Provider, Space
from evervec.store.spaces import space_builds, spaces

logger = log.get("spaces")

YIELD_SECONDS = 1.0
"""Longest pause of a build for rows that people search; after it one more step is taken, so that it always ends."""
ROUND_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
"""How long a build waits for other processes while nothing moves."""
BUILD_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class BuildOptions:
    """What is built: the provider that embeds, and how texts are made and cut, None: as its own space has it.

    An `automatic` build is searched as soon as every row has its vector. With `by_batch` the rows that are there are left
    to batch jobs.
    """

    provider: str
    template: str | None = None
    chunk_tokens: int | None = None
    automatic: bool = False
    by_batch: bool = False


async def start(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> list[DatasetRef]:
    """Begin to write datasets, or all, to another space, too; return those that were not in it. A second call changes nothing.

    A dataset that is named and searched in that space already is embedded by that provider from now on, with its key.
    Raises `Refused` for a dataset that builds another space, or whose vectors of that space are being removed, and
    `NoBatchError`.
    """
    batch_hours = resources.settings.batch_hours if options.by_batch else None
    async with resources.database.transaction() as tx:
        chosen = await _space(tx, options)
        if options.by_batch:
            require_batch(chosen.name, chosen.type)
        scope = await datasets.find(tx, dataset)
        await spaces.lock(tx, [one.id for one in scope])
        begun = []
        for one in scope:
            if one.space_id == chosen.space.id:
                if dataset is not None:
                    await spaces.use_provider(tx, [one.id], chosen.id)
            elif await space_builds.start(
                tx, one, chosen.space, chosen.id, automatic=options.automatic, batch_hours=batch_hours
            ):
                begun.append(replace(one, space_id=chosen.space.id, provider_id=chosen.id))
    for one in begun:
        logger.info("space building", dataset=one.name, space=str(chosen.space))
    return begun


async def _space(tx: Tx, options: BuildOptions) -> Provider:
    """Return the provider with the space that is to be built, made if there is none."""
    chosen = await providers.by_name(tx, options.provider)
    wanted = await space_of(tx, options)
    if wanted.id == 0:
        recipe = chunking.recipe(wanted.template, wanted.chunk_tokens)
        wanted = await providers.ensure_space(tx, chosen.space, recipe)
    return replace(chosen, space=wanted)


async def space_of(tx: ReadTx, options: BuildOptions) -> Space:
    """Return the space that would be built; one that does not exist yet has the id 0. Raises `Refused` for a bad template."""
    own = (await providers.by_name(tx, options.provider)).space
    recipe = chunking.recipe(
        own.template if options.template is None else options.template,
        own.chunk_tokens if options.chunk_tokens is None else options.chunk_tokens,
    )
    wanted = replace(own, id=0, active=False, template=recipe.template, chunk_tokens=recipe.tokens)
    same = [
        one
        for one in await providers.every_space(tx)
        if replace(one, id=0, active=False, text_tokens=own.text_tokens) == wanted
    ]
    return same[0] if same else wanted


async def fill(
    resources: Resources,
    until: Until = never,
    *,
    whole: bool = False,
    progress: Progress | None = None,
) -> None:
    """Fill the spaces that are not searched, one step of each after the other, for a while, until `until` holds, or `whole`.

    Rows that people search come first. What fails is logged, and does not stop the others. With `whole` what other
    processes still do is waited for, too.
    """
    ends = monotonic() + ROUND_SECONDS
    patient = monotonic() + PATIENCE_SECONDS
    while not until() and (whole or monotonic() < ends):
        if await _round(resources, until, progress):
            patient = monotonic() + PATIENCE_SECONDS
        elif whole and monotonic() < patient and await _others_work(resources):
            await asyncio.sleep(BUILD_PAUSE_SECONDS)
        else:
            break
    await activate_complete(resources)


async def _round(resources: Resources, until: Until, progress: Progress | None) -> bool:
    """Take a step of each build; return whether there was anything to do."""
    worked = False
    for one, dataset in await opened(resources):
        if until():
            break
        await _yield_to_live(resources)
        try:
            worked |= await step(resources, one, dataset, until, progress)
        except DatasetGone:
            continue
        except EvervecError as error:
            logger.warning("space not filled", dataset=dataset.name, space=one.space_id, error=str(error))
    return worked


async def _others_work(resources: Resources) -> bool:
    """Return whether a build waits for transactions that do not know of it, or another process embeds rows of one."""
    async with resources.database.read() as tx:
        return await space_builds.wait_for_others(tx)


async def _yield_to_live(resources: Resources) -> None:
    ends = monotonic() + YIELD_SECONDS
    while monotonic() < ends:
        async with resources.database.read() as tx:
            if not await rows.live_rows_wait(tx):
                return
        await asyncio.sleep(BUILD_PAUSE_SECONDS)
