"""Providers: added once they answered, probed for their width, switched without ever mixing spaces."""

from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from uuid import uuid4

from evervec.domain.chunking import CHUNK_TOKENS, TEMPLATE, Recipe
from evervec.domain.naming import slug
from evervec.domain.vectors import check_vectors
from evervec.embedders.catalog import BATCHED, TYPES, open_embedder
from evervec.errors import NoBatchError, Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers, vectors
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.providers import Provider

FREE = ("local",)
"""Types that embed in this process, where no token costs anything."""


@dataclass(frozen=True)
class ProviderCheck:
    """What a provider answered to two short texts."""

    dimensions: int
    milliseconds: float


async def ensure_default(resources: Resources) -> None:
    """On a database without providers, add the local one and activate its space; else finish what a crash left."""
    async with resources.database.read() as tx:
        existing = await providers.every(tx)
        active = await providers.active(tx)
    if not existing:
        await add(resources, name="local", type_="local")
    elif active is not None:
        await vectors.build_indexes(resources.database, active.space.id, active.space.dimensions)


async def add(
    resources: Resources,
    *,
    name: str,
    type_: str,
    base_url: str | None = None,
    model: str | None = None,
    chat_model: str | None = None,
    api_key: str | None = None,
    template: str | None = None,
    chunk_tokens: int | None = None,
    price: float | None = None,
    dimensions: int | None = None,
    activate: bool = True,
) -> Provider:
    """Probe a provider, keep it, and use it if no vector of another space is lost by that.

    `template` and `chunk_tokens` belong to its space and stay as they are if not given: other ones mean that every
    document is chunked again. `price` is in dollars per million tokens, `dimensions` the width to ask a model for that has several. Raises `Refused` for a type nobody knows, a
    template or a price that can not be used, a `ProviderError` when it does not answer as an embedder.
    """
    if type_ not in TYPES:
        raise Refused(reason=f"There is no provider type {type_!r}. Types: {', '.join(TYPES)}.")
    if base_url == "":
        raise Refused(reason=f"The address of provider {name!r} is empty. Leave it out for the one that its type has.")
    Recipe(TEMPLATE if template is None else template, CHUNK_TOKENS if chunk_tokens is None else chunk_tokens)
    price = _price(type_, price)
    client = open_embedder(type_, base_url=base_url, model=model, api_key=api_key, name=name, dimensions=dimensions)
    try:
        probed = await client.probe()
    finally:
        await client.aclose()
    async with resources.database.transaction() as tx:
        added = await providers.add(
            tx,
            name=slug("Provider", name),
            type_=type_,
            base_url=base_url,
            model=client.model,
            chat_model=chat_model,
            api_key_encrypted=None if api_key is None else resources.seal(api_key),
            dimensions=probed.dimensions,
            text_tokens=probed.text_tokens,
            template=template,
            chunk_tokens=chunk_tokens,
            usd_per_million_tokens=price,
            asked_dimensions=dimensions,
        )
        free = added.space.active or not await providers.embedded_rows(tx)
    if activate and free:
        return await use(resources, added.name)
    return added


def _price(type_: str, price: float | None) -> float | None:
    if price is None:
        return 0.0 if type_ in FREE else None
    if not isfinite(price) or price < 0:
        raise Refused(reason=f"A price of {price} can not be: give dollars per million tokens, 0 for nothing.")
    return price


async def use(resources: Resources, name: str, *, reembed: bool = False, defer: bool = False) -> Provider:
    """Make a provider the active one. Another space means that every row is embedded again: only with `reembed`.

    With `defer` that is left to batch jobs: half the price, and nothing is found until they are done. Raises `Refused`,
    and `NoBatchError` for a provider that can not defer.
    """
    async with resources.database.transaction() as tx:
        chosen = await providers.by_name(tx, name)
        if defer and chosen.type not in BATCHED:
            raise NoBatchError(provider=chosen.name, type=chosen.type, types=" or ".join(BATCHED))
        active = await providers.active(tx)
        # its only provider may just have become one of another type, under its name
        before = await providers.active_space(tx)
        if not chosen.space.active:
            if await providers.embedded_rows(tx) and not reembed:
                raise Refused(
                    reason=f"Rows are embedded in {active.space if active else 'another space'}; {name!r} embeds into "
                    f"{chosen.space}. `evervec providers use {name} --reembed` drops those vectors and embeds again."
                )
            await providers.activate(tx, chosen.space)
            await batch_jobs.release_other_spaces(tx, chosen.space.id)
        if defer:
            live = [one.id for one in await datasets.live(tx)]
            await batch_queue.mark_datasets(tx, live, hours=resources.settings.batch_hours)
        if chosen.type not in BATCHED:
            await batch_queue.unmark(tx)
        await providers.use(tx, chosen.id)
    await vectors.build_indexes(resources.database, chosen.space.id, chosen.space.dimensions)
    if before not in (None, chosen.space.id):
        await vectors.drop_indexes(resources.database, before)
    async with resources.database.read() as tx:
        return await providers.by_id(tx, chosen.id)


async def test(resources: Resources, name: str) -> ProviderCheck:
    """Ask a provider for two vectors. Raises a `ProviderError`."""
    async with resources.database.read() as tx:
        chosen = await providers.by_name(tx, name)
    client = resources.models.open(chosen)
    started = perf_counter()
    try:
        # a text that nobody has asked before, so that no cache answers
        answer = await client.embed(["Every row embedded.", uuid4().hex])
        check_vectors(answer, count=2, dimensions=chosen.space.dimensions, provider=chosen.name)
    finally:
        await client.aclose()
    async with resources.database.transaction() as tx:
        await providers.unpause(tx, chosen.id)
    return ProviderCheck(answer.shape[1], round((perf_counter() - started) * 1000, 1))


async def remove(resources: Resources, name: str) -> None:
    """Forget a provider. Raises `Refused` for the last one of the active space while there are datasets."""
    async with resources.database.transaction() as tx:
        chosen = await providers.by_name(tx, name)
        others = [p for p in await providers.every(tx) if p.space.active and p.id != chosen.id]
        if chosen.space.active and not others and await datasets.live(tx):
            raise Refused(
                reason=f"{name!r} is the only provider of the active space: without it nothing is embedded or found. "
                "Add another one first."
            )
        await providers.remove(tx, name)


async def listed(resources: Resources) -> list[Provider]:
    """All providers, oldest first."""
    async with resources.database.read() as tx:
        return await providers.every(tx)
