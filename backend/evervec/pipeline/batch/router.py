"""Which lane a text takes: what people wait for is embedded online, what can wait goes to batch jobs at half the price."""

from evervec.embedders.catalog import BATCHED
from evervec.errors import NoBatchError
from evervec.pipeline.resources import Resources

WORTH_A_JOB = 500
"""Rows that are worth a batch job if nobody said so: fewer cost next to nothing, and are done online in seconds."""


async def choose_batch(resources: Resources, request: bool | None, rows: int) -> bool:
    """Whether so many rows of a backfill go to the batch lane: as wished, else where there is one and it is worth it.

    New and edited rows never do by themselves. Raises `NoBatchError` for a request that the provider can not fulfil.
    """
    if request is None:
        return rows >= WORTH_A_JOB and (await resources.provider()).type in BATCHED
    if request:
        await require_batch_api(resources)
    return request


async def require_batch_api(resources: Resources) -> None:
    """Raises `NoBatchError` unless the active provider has a batch API."""
    provider = await resources.provider()
    if provider.type not in BATCHED:
        raise NoBatchError(provider=provider.name, type=provider.type, types=" or ".join(BATCHED))
