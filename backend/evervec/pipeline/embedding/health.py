"""Health checks: a known text must embed as it did, or nothing more is written by that provider until it does."""

import asyncio
from dataclasses import dataclass

import numpy as np

from evervec import log
from evervec.domain.protocols import Embedder, Vectors
from evervec.domain.spending import Reason
from evervec.domain.vectors import check_vectors, cosine
from evervec.errors import BadResponseError, ProviderError
from evervec.pipeline.budget.allowance import Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.embedding.breaker import EndpointBreaker
from evervec.pipeline.embedding.embed import Until, never
from evervec.pipeline.resources import Resources
from evervec.store import breakers, providers, space_probes
from evervec.store.breakers import DRIFTED
from evervec.store.providers import Provider
from evervec.store.space_probes import KnownVector

logger = log.get("health")

HEALTH_SECONDS = 3600.0
"""Seconds between two checks of a provider; every start of a worker and every outage that is over make one due, too."""

KNOWN_TEXT = "Every row embedded. Every mirror true. Was gestern im Index stand, steht auch morgen darin."
SAME_COSINE = 0.999


@dataclass(frozen=True)
class Health:
    """The result of one check: the cosine between the vectors of the known text then and now."""

    similarity: float
    drifted: bool


async def check_providers(resources: Resources, until: Until = never) -> None:
    """Check the providers that are due; one whose model has changed embeds nothing until it is as it was."""
    while not until():
        async with resources.database.transaction() as tx:
            due = await space_probes.claim_due(tx, seconds=HEALTH_SECONDS)
            provider = None if due is None else await providers.by_id(tx, due)
        if provider is None:
            return
        if provider.breaker.is_open and provider.breaker.code != DRIFTED:
            continue  # it is checked when it works again
        await _check_quietly(resources, provider)


async def make_checks_due(resources: Resources) -> None:
    """Let every provider be checked by the next sweep, as at the start of a worker."""
    async with resources.database.transaction() as tx:
        await space_probes.make_due(tx)


async def _check_quietly(resources: Resources, provider: Provider) -> None:
    try:
        await check(resources, provider)
    except ProviderError as error:
        logger.info("provider not checked", provider=provider.name, code=error.code, error=str(error))
        if provider.breaker.code is None:
            breaker = EndpointBreaker(resources.database, provider, trial_seconds=resources.settings.lease_seconds)
            await breaker.open_(error)


async def check(resources: Resources, provider: Provider) -> Health:
    """Embed the known text and compare it with what it was; stop or free the provider. Raises a `ProviderError`."""
    embedder = resources.clients.embedder(provider)
    now = await _probe(resources, provider, embedder)
    async with resources.database.transaction() as tx:
        then = await space_probes.ensure(tx, provider.space.id, now)
        similarity = cosine(then.vector, now.vector)
        drifted = similarity < SAME_COSINE
        if drifted:
            await breakers.open_(
                tx,
                provider.endpoint,
                seconds=HEALTH_SECONDS,
                code=DRIFTED,
                error=drift_reason(provider, similarity, then, now),
                counted=False,
                known=0,
            )
        elif provider.breaker.code == DRIFTED:
            await breakers.accept(tx, provider.endpoint)
        if not drifted and then.model_digest != now.model_digest:
            await space_probes.keep_digest(tx, provider.space.id, now.model_digest)
    if drifted:
        logger.error("model drifted", provider=provider.name, model=provider.model, cosine=round(similarity, 4))
    return Health(similarity, drifted)


async def _probe(resources: Resources, provider: Provider, embedder: Embedder) -> KnownVector:
    async def embed() -> Vectors:
        return await embedder.embed([KNOWN_TEXT])

    meter = Meter(resources.database, provider, Reason.PROBE)
    try:
        (tokens,) = await asyncio.to_thread(embedder.count_tokens, [KNOWN_TEXT])  # the first call may load a model
        answer = await meter.send(embed, {None: Load(1, tokens)}, whatever=True)
    finally:
        await meter.flush()
    sane = check_vectors(answer, count=1, dimensions=provider.space.dimensions, provider=provider.name)
    if not np.all(sane):
        raise BadResponseError(provider.name, "the vector of a plain sentence is not finite, or zero")
    return KnownVector([float(number) for number in answer[0]], await embedder.model_digest())


def drift_reason(provider: Provider, similarity: float, then: KnownVector, now: KnownVector) -> str:
    """Return what happened to a model, and the next step."""
    digests = ""
    if then.model_digest != now.model_digest and then.model_digest and now.model_digest:
        digests = f" (its digest was {then.model_digest[:19]}, now {now.model_digest[:19]})"
    return (
        f"Model {provider.model!r} of {provider.name!r} does not embed as it did: the vectors of a known text then and now have "
        f"a cosine of {similarity:.3f}, {SAME_COSINE} at least is needed{digests}. Nothing is written with it. Bring the former "
        f"model back, then run `evervec providers test {provider.name}`."
    )
