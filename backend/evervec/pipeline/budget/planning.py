"""A plan: what sending some texts takes, by the selection and the packing of the engine, before anything is sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from evervec.domain import packing
from evervec.domain.batch import DISCOUNT
from evervec.domain.limits import CEILINGS
from evervec.domain.spending import cost
from evervec.domain.vendors import BATCH_TYPES
from evervec.pipeline.budget import prices
from evervec.pipeline.resources import Resources
from evervec.store.budget import budgets, ledger, planned_rows
from evervec.store.budget.budgets import Budget
from evervec.store.budget.ledger import Measured
from evervec.store.providers import Provider

IN_FLIGHT = 2
"""Requests that one worker has on their way."""


@dataclass
class SendPlan:
    """What embedding some rows takes.

    Of `rows` with `unique_texts` different texts, `reused` get the vector of an equal text, and `texts` are sent. `minutes`
    are those of one worker, by the limits of the provider and by what it took in the last 30 days, None where neither is known;
    `usd` None where no price is. `batch_usd` is the price of batch jobs. `stops` says which ceilings leave rows waiting.
    """

    provider: str
    model: str
    rows: int = 0
    unique_texts: int = 0
    reused: int = 0
    texts: int = 0
    tokens: int = 0
    requests: int = 0
    minutes: float | None = None
    usd: float | None = None
    batch_usd: float | None = None
    stops: list[str] = field(default_factory=list)


async def plan_rows(resources: Resources, provider: Provider, claims: AsyncIterator[Sequence[str]]) -> SendPlan:
    """Plan to embed texts, given as the claims that will take them, into a provider's space. Sends and writes nothing."""
    planned = SendPlan(provider.name, provider.model)
    embedder = resources.clients.embedder(provider)
    seen: set[bytes] = set()
    async for texts in claims:
        by_hash = {sha256(text.encode()).digest(): text for text in texts}
        new = by_hash.keys() - seen
        async with resources.database.read() as tx:
            known = await planned_rows.embedded(tx, provider.space, new)
        sent = [text for digest, text in by_hash.items() if digest in new and digest not in known]
        seen |= new
        sizes = await asyncio.to_thread(embedder.count_tokens, sent)
        planned.rows += len(texts)
        planned.texts += len(sent)
        planned.tokens += sum(sizes)
        planned.requests += sum(1 for _ in packing.pack(sizes, embedder.limits))
    planned.unique_texts = len(seen)
    planned.reused = planned.rows - planned.texts
    await _judge(resources, provider, planned)
    return planned


def together(plans: Sequence[SendPlan]) -> SendPlan:
    """Return one plan of those of several providers, which one worker sends to one after the other."""
    if len(plans) == 1:
        return plans[0]
    total = SendPlan(
        ", ".join(dict.fromkeys(one.provider for one in plans)), ", ".join(dict.fromkeys(one.model for one in plans))
    )
    for name in ("rows", "unique_texts", "reused", "texts", "tokens", "requests"):
        setattr(total, name, sum(getattr(one, name) for one in plans))
    for name in ("minutes", "usd"):
        known = [getattr(one, name) for one in plans]
        setattr(total, name, None if None in known else sum(known))
    # what has no batch jobs is sent online
    parts = [one.usd if one.batch_usd is None else one.batch_usd for one in plans]
    if any(one.batch_usd is not None for one in plans) and None not in parts:
        total.batch_usd = sum(part for part in parts if part is not None)
    total.stops = [stop for one in plans for stop in one.stops]
    return total


async def _judge(resources: Resources, provider: Provider, planned: SendPlan) -> None:
    """Add what the plan takes: minutes and dollars, and the ceilings that it does not fit under."""
    planned.usd = cost(planned.tokens, prices.of_embedding(provider))
    if planned.usd is not None and provider.type in BATCH_TYPES:
        planned.batch_usd = planned.usd * DISCOUNT
    async with resources.database.read() as tx:
        measured = await ledger.measured(tx, provider.name, provider.model)
        limits = await budgets.of(tx, provider_id=provider.id)
    planned.minutes = _minutes(planned, limits, measured)
    planned.stops = [] if limits is None else _stops(planned, limits)


def _minutes(planned: SendPlan, budget: Budget | None, measured: Measured) -> float | None:
    if not planned.texts:
        return 0.0
    known = []
    if measured.tokens:
        known.append(planned.tokens * measured.seconds / measured.tokens / IN_FLIGHT / 60)
    if budget is not None and budget.limits.requests_per_minute:
        known.append(planned.requests / budget.limits.requests_per_minute / budget.share)
    if budget is not None and budget.limits.tokens_per_minute:
        known.append(planned.tokens / budget.limits.tokens_per_minute / budget.share)
    return round(max(known), 2) if known else None


def _stops(planned: SendPlan, budget: Budget) -> list[str]:
    """Return a sentence for each ceiling that the plan does not fit under."""
    said = []
    for name in CEILINGS:
        limit = getattr(budget.limits, name)
        what, _, period = name.partition("_per_")
        needed = planned.tokens if what == "tokens" else planned.usd
        if limit is not None and needed is not None and budget.used(name) + needed > limit:
            left = max(0, limit - budget.used(name))
            unit = "tokens" if what == "tokens" else "dollars"
            said.append(f"{budget.owner} has {left:,.6g} {unit} left this {period}, of {limit:,.6g}")
    return said
