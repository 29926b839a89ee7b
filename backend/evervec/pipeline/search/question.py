"""The question of a search: its text embedded for each space that is searched."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evervec.domain.vectors import check_vectors
from evervec.errors import EvervecError
from evervec.pipeline.budget import questions
from evervec.pipeline.resources import Resources, provider_in
from evervec.pipeline.search.scope import Scope
from evervec.store.database.session import ReadTx
from evervec.store.providers import Provider

Query = NDArray[np.float32]


async def providers_of(tx: ReadTx, parts: Sequence[Scope]) -> list[Provider | EvervecError | None]:
    """Return who embeds a question for each scope of one space, or why nobody does; None for a scope without datasets."""
    found: list[Provider | EvervecError | None] = []
    for part in parts:
        try:
            found.append(await provider_in(tx, part.datasets[0]) if part.datasets else None)
        except EvervecError as error:
            found.append(error)
    return found


async def embedded(
    resources: Resources, parts: Sequence[Scope], providers: Sequence[Provider | EvervecError | None], text: str
) -> Sequence[Query | EvervecError]:
    """Return the vector of a question, `(dim,) float32`, for each scope of one space, or why it has none."""
    found = await asyncio.gather(
        *(_for_space(resources, part, provider, text) for part, provider in zip(parts, providers, strict=True)),
        return_exceptions=True,
    )
    given: list[Query | EvervecError] = []
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, EvervecError):
            raise one
        given.append(one)
    return given


async def _for_space(resources: Resources, scope: Scope, provider: Provider | EvervecError | None, text: str) -> Query:
    if isinstance(provider, EvervecError):
        raise provider
    provider = provider or await resources.provider()
    only = scope.datasets[0].id if len(scope.datasets) == 1 else None
    answer = await questions.embed(resources, provider, text, dataset_id=only)
    check_vectors(answer, count=1, dimensions=provider.space.dimensions, provider=provider.name)
    query: Query = answer[0]
    return query
