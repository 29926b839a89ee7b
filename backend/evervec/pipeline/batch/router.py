"""Which lane a text takes: what people wait for is embedded online, what can wait goes to batch jobs at half the price."""

from evervec.domain.vendors import BATCH_TYPES, require_batch
from evervec.pipeline.resources import Resources

WORTH_A_JOB = 500
"""Rows that are worth a batch job if nobody said so: fewer cost next to nothing, and are done online in seconds."""


async def choose_batch(resources: Resources, request: bool | None, rows: int) -> bool:
    """Return whether so many rows of a backfill go to the batch API: as requested, else if there is one and it pays.

    New and edited rows never do by themselves. Raises `NoBatchError` for a request that the provider can not fulfil.
    """
    if request is None:
        return rows >= WORTH_A_JOB and (await resources.provider()).type in BATCH_TYPES
    if request:
        await require_batch_api(resources)
    return request


async def require_batch_api(resources: Resources) -> None:
    """Raises `NoBatchError` unless the active provider has a batch API."""
    provider = await resources.provider()
    require_batch(provider.name, provider.type)
