"""Which lane a text takes: what people wait for is embedded online, what can wait goes to batch jobs at half the price."""

from evervec.embedders.catalog import BATCHED
from evervec.errors import NoBatchError
from evervec.pipeline.resources import Resources

LEAST = 500
"""Rows that are worth a batch job if nobody said so: fewer cost next to nothing, and are done online in seconds."""


async def lane(resources: Resources, wish: bool | None, rows: int) -> bool:
    """Whether so many rows of a backfill go to the batch lane: as wished, else where there is one and it is worth it.

    New and edited rows never do by themselves. Raises `NoBatchError` for a wish that the provider can not fulfil.
    """
    if wish is None:
        return rows >= LEAST and (await resources.provider()).type in BATCHED
    if wish:
        await require(resources)
    return wish


async def require(resources: Resources) -> None:
    """Raises `NoBatchError` unless the active provider has a batch API."""
    provider = await resources.provider()
    if provider.type not in BATCHED:
        raise NoBatchError(provider=provider.name, type=provider.type, types=" or ".join(BATCHED))
