"""Online or by batch job: what people wait for is embedded online, what can wait goes to batch jobs at half the price."""

from evervec.domain.vendors import BATCH_TYPES, require_batch
from evervec.pipeline.resources import Resources

WORTH_A_JOB = 500
"""Rows that are worth a batch job unless the caller decides: fewer cost almost nothing and take seconds online."""


async def choose_batch(resources: Resources, requested: bool | None, rows: int) -> bool:
    """Return whether so many rows of a backfill go to batch jobs: as requested, else if the provider has them and it pays.

    New and edited rows never go there by themselves. Raises `NoBatchError` for a request that the provider can not meet.
    """
    if requested is None:
        return rows >= WORTH_A_JOB and (await resources.provider()).type in BATCH_TYPES
    if requested:
        await require_batch_api(resources)
    return requested


async def require_batch_api(resources: Resources) -> None:
    """Raise `NoBatchError` unless the active provider has a batch API."""
    provider = await resources.provider()
    require_batch(provider.name, provider.type)
