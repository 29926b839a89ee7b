"""The build of another space: begun, filled beside the one that is searched, indexed. Whoever stops in it, another goes on."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from evervec import log
from evervec.domain.documents.chunking import ChunkDraft
from evervec.errors import EvervecError, PoolerError, Refused
from evervec.pipeline import chunking
from evervec.pipeline.chunking import Chunker, DatasetGone, lock_dataset
from evervec.pipeline.embedding.embed import Until, embed_dataset, never
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.turn import activate_complete
from evervec.store import datasets, documents, providers, spaces, unchunked
from evervec.store.database.session import ReadTx, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows, vectors
from evervec.store.providers import Provider, Space
from evervec.store.spaces import OtherSpace
from evervec.store.unchunked import UnchunkedDocument

logger = log.get("spaces")

TAKEN_IN = 5_000
CHUNKED_DOCUMENTS = 50
CLAIMS = 2
"""Claims of a build before it looks again whether rows wait that people search: none of these waits for more than that."""
YIELD_SECONDS = 1.0
"""Longest pause of a build for rows that people search; after it one more step is taken, so that it always ends."""
ROUND_SECONDS = 30.0
BUILD_PAUSE_SECONDS = 0.1

Progress = Callable[[int], None]


@dataclass(frozen=True)
class BuildOptions:
    """What is built: the provider that embeds, and how texts are made and cut, None: as its own space has it.

    An `automatic` build is searched as soon as every row has its vector.
    """

    provider: str
    template: str | None = None
    chunk_tokens: int | None = None
    automatic: bool = False


async def start(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> list[DatasetRef]:
    """Begin to write datasets, or all, to another space, too; return those that were not in it. A second call changes nothing.

    Raises `Refused` for a dataset that builds another space, or whose vectors of that space are being removed.
    """
    async with resources.database.transaction() as tx:
        chosen = await _space(tx, options)
        scope = await datasets.find(tx, dataset)
        await spaces.lock(tx, [one.id for one in scope])
        there = {(one.dataset_id, one.space_id): one for one in await spaces.others(tx, [one.id for one in scope])}
        building = {one.dataset_id: one for one in there.values() if one.state == spaces.NEXT}
        begun = []
        for one in scope:
            known = there.get((one.id, chosen.space.id))
            if one.space_id == chosen.space.id or (known is not None and known.state == spaces.NEXT):
                continue
            if one.id in building:
                other = await providers.space(tx, building[one.id].space_id)
                raise Refused(
                    reason=f"Dataset {one.name} is building {other} already. Let it end, or give it up with `evervec spaces "
                    f"drop --dataset {one.name}`."
                )
            if (one.id, chosen.space.id) in await spaces.dropped(tx):
                raise Refused(
                    reason=f"The vectors that dataset {one.name} had in {chosen.space} are being removed: try again in a moment."
                )
            await spaces.start(tx, one.id, chosen.space.id, chosen.id, automatic=options.automatic)
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

    Rows that people search come first. What fails is logged, and does not stop the others.
    """
    ends = monotonic() + ROUND_SECONDS
    while not until() and (whole or monotonic() < ends):
        worked = False
        for one, dataset in await _open(resources):
            if until():
                return
            await _yield_to_live(resources)
            try:
                worked |= await _step(resources, one, dataset, until, progress)
            except DatasetGone:
                continue
            except EvervecError as error:
                logger.warning("space not filled", dataset=dataset.name, space=one.space_id, error=str(error))
        if not worked:
            break
    await activate_complete(resources)


async def _open(resources: Resources) -> list[tuple[OtherSpace, DatasetRef]]:
    async with resources.database.read() as tx:
        live = {one.id: one for one in await datasets.live(tx)}
        return [
            (one, replace(live[one.dataset_id], space_id=one.space_id, provider_id=one.provider_id))
            for one in await spaces.others(tx)
            if one.dataset_id in live
        ]


async def _yield_to_live(resources: Resources) -> None:
    ends = monotonic() + YIELD_SECONDS
    while monotonic() < ends:
        async with resources.database.read() as tx:
            if not await rows.live_rows_wait(tx):
                return
        await asyncio.sleep(BUILD_PAUSE_SECONDS)


async def _step(
    resources: Resources, one: OtherSpace, dataset: DatasetRef, until: Until, progress: Progress | None
) -> bool:
    """Do the next part of a build; return whether there was anything to do."""
    if not one.taken_in:
        return await _take_in(resources, one, until)
    if await _chunk(resources, dataset):
        return True
    left = CLAIMS

    def enough() -> bool:
        nonlocal left
        left -= 1
        return left < 0 or until()

    counts = await embed_dataset(
        resources, dataset.id, space_id=dataset.space_id, provider_id=None, until=enough, progress=progress
    )
    if counts.success + counts.failed:
        return True
    return not one.indexed and await _index(resources, one)


async def _take_in(resources: Resources, one: OtherSpace, until: Until) -> bool:
    """Give every row a record in the space; return False while transactions are open that do not know of it."""
    async with resources.database.read() as tx:
        if not await spaces.older_writers_ended(tx, one.dataset_id, one.space_id):
            return False
        present = await datasets.by_id(tx, one.dataset_id)
    if present is None:
        raise DatasetGone
    reached: int | None = 0
    while reached is not None and not until():
        after = reached
        reached = await resources.database.with_retries(
            lambda tx, after=after: spaces.take_in(  # type: ignore[misc]
                tx, one.dataset_id, one.space_id, present=present.space_id, after=after, limit=TAKEN_IN
            )
        )
    if reached is None:
        async with resources.database.transaction() as tx:
            await spaces.documents_due(tx, one.dataset_id, one.space_id)
            await spaces.taken_in(tx, one.dataset_id, one.space_id)
    return True


async def _chunk(resources: Resources, dataset: DatasetRef) -> bool:
    """Make the chunks of some documents for the space; return whether there were any."""
    async with resources.database.read() as tx:
        read = await unchunked.for_space(tx, dataset.id, dataset.space_id, limit=CHUNKED_DOCUMENTS)
    if not read:
        return False
    chunker = await chunking.of_dataset(resources, dataset)
    chunked = await asyncio.to_thread(chunker.chunk, [one.document for one in read])
    await _write(resources, chunker, dataset, list(zip(read, (chunks for _, chunks in chunked), strict=True)))
    return True


async def _write(
    resources: Resources,
    chunker: Chunker,
    dataset: DatasetRef,
    pairs: Sequence[tuple[UnchunkedDocument, Sequence[ChunkDraft]]],
) -> None:
    async def once(tx: Tx) -> None:
        await lock_dataset(tx, dataset.id)
        unchanged = await unchunked.lock_unchanged(tx, [one for one, _ in pairs])
        same = [(one.id, chunks) for one, chunks in pairs if one.id in unchanged]
        await documents.replace_chunks(tx, dataset.id, chunker.provider.space.id, same)

    await resources.database.with_retries(once)


async def _index(resources: Resources, one: OtherSpace) -> bool:
    """Index the vectors of a space, once nothing is left to fill of any dataset that builds it."""
    async with resources.database.read() as tx:
        building = [other for other in await spaces.others(tx) if other.space_id == one.space_id]
        waiting = [await spaces.pending(tx, other.dataset_id, other.space_id) for other in building]
        if any(waiting) or not all(other.taken_in for other in building):
            return False
        space = await providers.space(tx, one.space_id)
    try:
        await vectors.build_indexes(resources.database, space.id, space.dimensions)
    except PoolerError as error:
        logger.warning("indexes not built", space=str(space), reason=str(error))
    async with resources.database.transaction() as tx:
        for other in building:
            await spaces.indexed(tx, other.dataset_id, other.space_id)
    await resources.doorbell.changed({other.dataset_id for other in building})
    return True
