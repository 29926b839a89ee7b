"""Providers are added after a probe of their width, tested, and switched without mixing two spaces."""

from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter
from uuid import uuid4

from evervec import log
from evervec.domain.documents.chunking import CHUNK_TOKENS, TEMPLATE, Recipe
from evervec.domain.naming import slug
from evervec.domain.vectors import check_vectors
from evervec.domain.vendors import BATCH_TYPES, FREE_TYPES, LOCAL, ONNX, TYPES, require_batch
from evervec.embedders.catalog import open_embedder
from evervec.errors import PoolerError, Refused
from evervec.pipeline.resources import Resources
from evervec.store import breakers, datasets, providers, spaces
from evervec.store.batch import batch_queue
from evervec.store.database.session import Database, Tx
from evervec.store.embeddings import vectors
from evervec.store.providers import Provider, ProviderDraft

logger = log.get("providers")


@dataclass(frozen=True)
class ProviderCheck:
    """The answer of a provider to two short texts."""

    dimensions: int
    milliseconds: float


async def ensure_default(resources: Resources) -> None:
    """Add and activate the local model on a database without any provider; else build indexes that a crash left unfinished.

    Where only a pooler is reached, a search reads every vector until a process with a direct address has built them.
    """
    async with resources.database.read() as tx:
        existing = await providers.every(tx)
    try:
        if existing:
            await build_indexes(resources)
        else:
            await add(resources, _first(resources.settings.local_model))
    except PoolerError as error:
        logger.warning("indexes not built", reason=str(error))


def _first(local_model: str) -> ProviderDraft:
    """Return the provider of an empty database: WordLlama, unless another local model is asked for by name."""
    if local_model in ("auto", "wordllama"):
        return ProviderDraft(LOCAL.type, LOCAL.type)
    return ProviderDraft(local_model, ONNX.type, model=local_model)


async def build_indexes(resources: Resources) -> None:
    """Build the indexes of spaces that are searched where they are missing. Raises `PoolerError` where only a pooler is reached."""
    async with resources.database.read() as tx:
        searched = [await providers.space(tx, space_id) for space_id in await spaces.searched(tx)]
    for space in searched:
        await vectors.build_indexes(resources.database, space.id, space.dimensions)


async def add(resources: Resources, draft: ProviderDraft, *, activate: bool = True) -> Provider:
    """Probe a provider, save it, and use it unless datasets have vectors of another space.

    A `template` or `chunk_tokens` other than those of its space make another space. Raises
    `Refused` for an unknown type and for a template or a price that can not be used, a `ProviderError` when the provider
    does not answer as an embedder.
    """
    if draft.type not in TYPES:
        raise Refused(reason=f"There is no provider type {draft.type!r}. Types: {', '.join(TYPES)}.")
    if draft.base_url == "":
        raise Refused(
            reason=f"The address of provider {draft.name!r} is empty. Leave it out for the default address of its type."
        )
    Recipe(
        TEMPLATE if draft.template is None else draft.template,
        CHUNK_TOKENS if draft.chunk_tokens is None else draft.chunk_tokens,
    )
    price = _price(draft)
    client = open_embedder(
        draft.type,
        base_url=draft.base_url,
        model=draft.model,
        api_key=draft.api_key,
        name=draft.name,
        dimensions=draft.dimensions,
        encoder=draft.encoder,
    )
    try:
        probe = await client.probe()
    finally:
        await client.aclose()
    draft = replace(draft, name=slug("Provider", draft.name), model=client.model, usd_per_million_tokens=price)
    sealed = None if draft.api_key is None else resources.seal(draft.api_key)
    endpoint = resources.endpoint(draft)
    async with resources.database.transaction() as tx:
        added = await providers.add(tx, draft, probe, api_key_encrypted=sealed, endpoint=endpoint)
        former = await spaces.default(tx)
        members = [one.id for one in await datasets.live(tx) if one.space_id == former]
        is_free = added.space.id == former or not await spaces.has_vectors(tx, members, former)
    if activate and is_free:
        return await use(resources, added.name)
    return added


def _price(draft: ProviderDraft) -> float | None:
    price = draft.usd_per_million_tokens
    if price is None:
        return 0.0 if draft.type in FREE_TYPES else None
    if not isfinite(price) or price < 0:
        raise Refused(reason=f"The price {price} is not valid: give dollars per million tokens, 0 for a free model.")
    return price


async def use(resources: Resources, name: str, *, reembed: bool = False, by_batch: bool = False) -> Provider:
    """Make a provider the default: new datasets get its space, and it embeds for those of its space.

    Datasets of the former default that have vectors stay in that space, unless `reembed` asks for the new one to be built
    beside it and searched as soon as every row has its vector; with `by_batch` in batch jobs, at half the price. Raises
    `Refused`, and `NoBatchError` for a provider without a batch API.
    """
    async with resources.database.transaction() as tx:
        await spaces.lock_default(tx)
        chosen = await providers.by_name(tx, name)
        if by_batch:
            require_batch(chosen.name, chosen.type)
        former = await spaces.default(tx)
        if former != chosen.space.id:
            await _change_default(tx, chosen, former, reembed=reembed)
        if by_batch:
            live = [one.id for one in await datasets.live(tx)]
            await batch_queue.mark_datasets(tx, live, space_id=chosen.space.id, hours=resources.settings.batch_hours)
        if chosen.type not in BATCH_TYPES:
            await batch_queue.unmark(tx)
        await providers.use(tx, chosen.id)
    await vectors.build_indexes(resources.database, chosen.space.id, chosen.space.dimensions)
    async with resources.database.read() as tx:
        return await providers.by_id(tx, chosen.id)


async def _change_default(tx: Tx, chosen: Provider, former: int, *, reembed: bool) -> None:
    members = [one for one in await datasets.live(tx) if one.space_id == former]
    await spaces.lock(tx, [one.id for one in members])
    if await spaces.has_vectors(tx, [one.id for one in members], former):
        if not reembed:
            raise Refused(
                reason=f"Rows are embedded in {await providers.space(tx, former)}; {chosen.name!r} embeds into "
                f"{chosen.space}. `evervec spaces build --provider {chosen.name}` fills that space while the present one is "
                "searched."
            )
        for one in members:
            await spaces.begin(tx, one.id, chosen.space.id, None, automatic=True)
    else:
        await spaces.move(tx, [one.id for one in members], former, chosen.space.id)
    await spaces.make_default(tx, chosen.space.id)


async def test(resources: Resources, name: str) -> ProviderCheck:
    """Ask a provider for two vectors. Raises a `ProviderError`."""
    async with resources.database.read() as tx:
        chosen = await providers.by_name(tx, name)
    client = resources.clients.open(chosen)
    started = perf_counter()
    try:
        # one text is new, so that no cache answers
        answer = await client.embed(["Every row embedded.", uuid4().hex])
        check_vectors(answer, count=2, dimensions=chosen.space.dimensions, provider=chosen.name)
    finally:
        await client.aclose()
    async with resources.database.transaction() as tx:
        await breakers.close(tx, chosen.endpoint)
    return ProviderCheck(answer.shape[1], round((perf_counter() - started) * 1000, 1))


async def remove(database: Database, name: str) -> None:
    """Remove a provider. Raises `Refused` for the last one that embeds for a space with datasets."""
    async with database.transaction() as tx:
        chosen = await providers.by_name(tx, name)
        await providers.remove(tx, name)
        for one in await datasets.live(tx):
            if await providers.serving(tx, one.space_id, one.provider_id) is None:
                raise Refused(
                    reason=f"{name!r} is the only provider that embeds for dataset {one.name}, in {chosen.space}: without it "
                    "nothing of it is embedded or found. Add another one first."
                )


async def listed(resources: Resources) -> list[Provider]:
    """Return all providers, oldest first."""
    async with resources.database.read() as tx:
        return await providers.every(tx)
