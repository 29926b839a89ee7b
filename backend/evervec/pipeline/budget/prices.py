"""What tokens cost: the price that the operator gave, else the one of `genai-prices`, a price list that comes as a package.

The list takes most of a second to load, so what it says of an embedding model is kept in the provider's record.
"""

import asyncio
from dataclasses import dataclass
from functools import cache

from evervec.domain.vendors import BY_TYPE, FREE_TYPES
from evervec.store import providers
from evervec.store.database.session import Database
from evervec.store.providers import Provider

_SAMPLE_TOKENS = 1000
"""Few: the list has higher prices for very long requests."""


@dataclass(frozen=True)
class Rate:
    """A model of a provider, and dollars per million tokens, of those that go in and those that come out; None: nobody knows."""

    model: str
    usd: float | None
    output_usd: float | None = 0.0


@dataclass(frozen=True)
class ListedPrice:
    """Dollars per million tokens, of those that go in and those that come out."""

    tokens: float
    output_tokens: float


def of_embedding(provider: Provider) -> float | None:
    """Return the dollars per million tokens of a provider's embedding model, the operator's own first; None where nobody knows."""
    if provider.usd_per_million_tokens is not None:
        return provider.usd_per_million_tokens
    return 0.0 if provider.type in FREE_TYPES else provider.listed_usd


async def of_chat(provider: Provider) -> Rate:
    """Return the rate of a provider's chat model, as the list says."""
    model = provider.chat_model or ""
    if BY_TYPE[provider.type].price_list is None:  # a model of one's own
        return Rate(model, 0.0)
    found = await asyncio.to_thread(listed, provider.type, model, provider.base_url)
    return Rate(model, None, None) if found is None else Rate(model, found.tokens, found.output_tokens)


async def refresh(database: Database) -> None:
    """Save what the list says of each provider's embedding model: a new release of it may say something else."""
    async with database.read() as tx:
        known = await providers.every(tx)
    for provider in known:
        usd = await asyncio.to_thread(_embedding, provider.type, provider.model, provider.base_url)
        if usd != provider.listed_usd:
            async with database.transaction() as tx:
                await providers.set_listed_price(tx, provider.id, usd)


def _embedding(type_: str, model: str, base_url: str | None) -> float | None:
    found = listed(type_, model, base_url)
    return None if found is None else found.tokens


@cache
def listed(type_: str, model: str, base_url: str | None) -> ListedPrice | None:
    """Return what the list says of a model; None at an address, or of a model, that it does not know."""
    name = BY_TYPE[type_].price_list
    if name is None:
        return None
    from genai_prices import Usage, calc_price

    try:
        used = Usage(input_tokens=_SAMPLE_TOKENS, output_tokens=_SAMPLE_TOKENS)
        if base_url is None:
            found = calc_price(used, model, provider_id=name)
        else:
            found = calc_price(used, model, provider_api_url=base_url)
    except LookupError:
        return None
    per_million = 1_000_000 / _SAMPLE_TOKENS
    return ListedPrice(float(found.input_price) * per_million, float(found.output_price) * per_million)
