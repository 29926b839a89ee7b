"""The question of a search: its text embedded for each space that is searched."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evervec.domain.vectors import check_vectors
from evervec.errors import EvervecError
from evervec.pipeline.budget import questions
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.scope import Scope


async def embedded(
    resources: Resources, parts: Sequence[Scope], text: str
) -> Sequence[NDArray[np.float32] | EvervecError]:
    """Return the vector of a question, `(dim,) float32`, for each scope of one space, or why it has none.

    Raises what the providers raise if none of them embedded it.
    """
    found = await asyncio.gather(*(_for_space(resources, part, text) for part in parts), return_exceptions=True)
    given: list[NDArray[np.float32] | EvervecError] = []
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, EvervecError):
            raise one
        given.append(one)
    failed = [one for one in given if isinstance(one, EvervecError)]
    if len(failed) == len(given):
        raise failed[0]
    return given


async def _for_space(resources: Resources, scope: Scope, text: str) -> NDArray[np.float32]:
    provider = await resources.provider_of(scope.datasets[0]) if scope.datasets else await resources.provider()
    only = scope.datasets[0].id if len(scope.datasets) == 1 else None
    answer = await questions.embed(resources, provider, text, dataset_id=only)
    check_vectors(answer, count=1, dimensions=provider.space.dimensions, provider=provider.name)
    query: NDArray[np.float32] = answer[0]
    return query
