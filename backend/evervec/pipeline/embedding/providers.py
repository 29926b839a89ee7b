"""Providers are added after a probe of their width, tested, and switched without mixing two spaces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter
from uuid import UUID, uuid4

from evervec import log
from evervec.domain import usage
from evervec.domain.documents.chunking import CHUNK_TOKENS, TEMPLATE, Recipe
from evervec.domain.naming import slug
from evervec.domain.protocols import ModelProbe
from evervec.domain.spending import Reason
from evervec.domain.text import estimate_tokens
from evervec.domain.vectors import WIDEST, check_vectors
from evervec.domain.vendors import (
    API_KEY_TYPES,
    BATCH_TYPES,
    FREE_TYPES,
    KEYLESS_TYPES,
    LOCAL,
    ONNX,
    TYPES,
    WIDTH_TYPES,
    require_batch,
)
from evervec.embedders.catalog import open_embedder
from evervec.embedders.vectors import PROBE_TEXTS
from evervec.errors import ConfigError, PoolerError, Refused
from evervec.pipeline.budget import prices
from evervec.pipeline.budget.allowance import Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.embedding import health
from evervec.pipeline.resources import Resources
from evervec.store import breakers, datasets, providers
from evervec.store.attached import views
from evervec.store.batch import batch_queue
from evervec.store.database.session import Database, Tx
from evervec.store.embeddings import hnsw
from evervec.store.providers import Provider, ProviderDraft
from evervec.store.spaces import space_builds, spaces

logger = log.get("providers")


@dataclass(frozen=True)
class ProviderCheck:
    """The answer of a provider to two short texts, and whether its model still embeds as it did."""

    dimensions: int
    milliseconds: float
    similarity: float
    drifted: bool


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
        await hnsw.build_indexes(resources.database, space.id, space.dimensions)


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
    _require_key(draft)
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
    started = perf_counter()
    try:
        with usage.measured() as used:
            probe = _with_policy(await client.probe(), draft)
    finally:
        await client.aclose()
    seconds = perf_counter() - started
    _require_width(draft, probe.dimensions)
    draft = replace(draft, name=slug("Provider", draft.name), model=client.model, usd_per_million_tokens=price)
    sealed = None if draft.api_key is None else resources.seal(draft.api_key)
    endpoint = resources.endpoint(draft)
    async with resources.database.transaction() as tx:
        added = await providers.add(tx, draft, probe, api_key_encrypted=sealed, endpoint=endpoint)
        former = await spaces.default(tx)
        members = [one.id for one in await datasets.live(tx) if one.space_id == former]
        is_free = added.space.id == former or not await spaces.has_vectors(tx, members, former)
    await prices.refresh(resources.database)
    async with resources.database.read() as tx:
        added = await providers.by_id(tx, added.id)
    if added.type not in FREE_TYPES:
        meter = Meter(resources.database, added, Reason.PROBE)
        meter.probed(_load(PROBE_TEXTS), used.tokens, seconds)
        await meter.flush()
    return await use(resources, added.name) if activate and is_free else added


def _with_policy(probe: ModelProbe, draft: ProviderDraft) -> ModelProbe:
    """Return the probe of a model whose space refuses long texts: it has other vectors than one that embeds them."""
    if not draft.encoder.refuses_long_texts:
        return probe
    return replace(probe, variant=", ".join(part for part in (probe.variant, "long texts refused") if part))


def _require_key(draft: ProviderDraft) -> None:
    """Raise `ConfigError` where a key is missing, `Refused` where it is said in vain that none is needed."""
    if draft.no_key and (draft.api_key is not None or draft.base_url is None):
        raise Refused(
            reason="--no-key is for a server of your own: give its address with --base-url, and no key beside it."
        )
    if draft.type in API_KEY_TYPES and not draft.api_key and not (draft.no_key and draft.type in KEYLESS_TYPES):
        raise ConfigError(
            draft.name,
            "it needs an API key: set EVERVEC_PROVIDER_KEY and run `evervec providers add` again"
            + (", with --no-key for a server of your own that asks for none." if draft.type in KEYLESS_TYPES else "."),
        )


def _load(texts: Sequence[str]) -> Load:
    return Load(len(texts), sum(map(estimate_tokens, texts)))


def _require_width(draft: ProviderDraft, width: int) -> None:
    """Raise `ConfigError` for vectors that no index can hold."""
    if width > WIDEST:
        narrower = "Ask for narrower ones with --dimensions, or choose" if draft.type in WIDTH_TYPES else "Choose"
        raise ConfigError(
            draft.name,
            f"its vectors have {width:,} dimensions, and an index holds {WIDEST:,} at most. {narrower} another model.",
        )


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
        batch_hours = resources.settings.batch_hours if by_batch else None
        if former != chosen.space.id:
            moved = await _change_default(tx, chosen, former, reembed=reembed, batch_hours=batch_hours)
            await views.renew(tx, resources.database.schema, moved)
            await spaces.drop_unused(tx, former)
        await providers.use(tx, chosen.id)
        await _mark(tx, chosen, batch_hours)
    async with resources.database.read() as tx:
        searched = chosen.space.id in await spaces.searched(tx)  # a build indexes its space when that is filled
    if searched:
        await hnsw.build_indexes(resources.database, chosen.space.id, chosen.space.dimensions)
    async with resources.database.read() as tx:
        return await providers.by_id(tx, chosen.id)


async def _mark(tx: Tx, chosen: Provider, batch_hours: float | None) -> None:
    """Let the rows that a provider embeds wait for batch jobs, or no longer where it has none."""
    served = [
        one.id
        for one in await datasets.live(tx)
        if one.space_id == chosen.space.id and one.provider_id in (None, chosen.id)
    ]
    if batch_hours is not None:
        await batch_queue.mark_datasets(tx, served, hours=batch_hours)
    if chosen.type not in BATCH_TYPES:
        await batch_queue.unmark(tx, served)


async def _change_default(
    tx: Tx, chosen: Provider, former: int, *, reembed: bool, batch_hours: float | None
) -> list[UUID]:
    """Return the datasets that are searched in the space of another provider at once, since they have no vectors."""
    live = await datasets.live(tx)
    await spaces.lock(tx, [one.id for one in live])
    building = {one.dataset_id for one in await spaces.others(tx) if (one.space_id, one.state) == (former, spaces.NEXT)}
    members = {one.id: one for one in live if one.space_id == former or one.id in building}
    filled = bool(building) or await spaces.has_vectors(tx, list(members), former)
    if filled:
        if not reembed:
            raise Refused(
                reason=f"Rows are embedded in {await providers.space(tx, former)}; {chosen.name!r} embeds into "
                f"{chosen.space}. `evervec spaces build --provider {chosen.name}` fills that space while the present one is "
                "searched."
            )
        for one in members.values():
            await space_builds.start(tx, one, chosen.space, None, automatic=True, batch_hours=batch_hours)
    else:
        await spaces.move(tx, list(members), former, chosen.space.id)
    await spaces.make_default(tx, chosen.space.id)
    return [] if filled else list(members)


async def test(resources: Resources, name: str) -> ProviderCheck:
    """Ask a provider for two vectors, and compare a known text with what it was. Raises a `ProviderError`."""
    async with resources.database.read() as tx:
        chosen = await providers.by_name(tx, name)
    client = resources.clients.open(chosen)
    meter = Meter(resources.database, chosen, Reason.PROBE)
    started = perf_counter()
    try:
        # one text is new, so that no cache answers
        texts = ["Every row embedded.", uuid4().hex]
        answer = await meter.send(lambda: client.embed(texts), {None: _load(texts)}, whatever=True)
        check_vectors(answer, count=2, dimensions=chosen.space.dimensions, provider=chosen.name)
    finally:
        await client.aclose()
        await meter.flush()
    async with resources.database.transaction() as tx:
        await breakers.close(tx, chosen.endpoint)
    milliseconds = round((perf_counter() - started) * 1000, 1)
    checked = await health.check(resources, chosen)
    return ProviderCheck(answer.shape[1], milliseconds, round(checked.similarity, 4), checked.drifted)


async def remove(database: Database, name: str) -> None:
    """Remove a provider. Raises `Refused` for the last one that embeds into a space that a dataset is searched in or has."""
    async with database.transaction() as tx:
        chosen = await providers.by_name(tx, name)
        await providers.remove(tx, name)
        live = {one.id: one for one in await datasets.live(tx)}
        for one in live.values():
            if await providers.serving(tx, one.space_id, one.provider_id) is None:
                raise Refused(
                    reason=f"{name!r} is the only provider that embeds for dataset {one.name}, in {chosen.space}: without it "
                    "nothing of it is embedded or found. Add another one first."
                )
        for other in await spaces.others(tx, list(live)):
            if await providers.serving(tx, other.space_id, other.provider_id) is None:
                dataset = live[other.dataset_id].name
                raise Refused(
                    reason=f"{name!r} is the only provider that embeds into the {other.state} space of dataset {dataset}: "
                    f"without it that would never be whole. Give it up first: `evervec spaces drop --dataset {dataset} "
                    f"--state {other.state}`."
                )


async def listed(resources: Resources) -> list[Provider]:
    """Return all providers, oldest first, each with its own space; that of the default one counts as active."""
    async with resources.database.read() as tx:
        every, default = await providers.every(tx), await providers.active(tx)
    return [
        replace(one, space=replace(one.space, active=True)) if default is not None and one.id == default.id else one
        for one in every
    ]
