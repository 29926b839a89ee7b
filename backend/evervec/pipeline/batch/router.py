"""Online or by batch job: what people wait for is embedded online, what can wait goes to batch jobs at half the price."""

from collections.abc import Sequence

from evervec.domain.vendors import BATCH_TYPES, require_batch
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef

WORTH_A_JOB = 500
"""Rows that are worth a batch job unless the caller decides: fewer cost almost nothing and take seconds online."""


async def choose_batch(
    resources: Resources, requested: bool | None, waiting: Sequence[tuple[DatasetRef, int]]
) -> list[DatasetRef]:
    """Return the datasets whose rows of a backfill go to batch jobs: as requested, else if it pays. None: all go online.

    `waiting` counts the rows of each. New and edited rows never go there by themselves. A dataset goes only to the provider
    that embeds it. Raises `NoBatchError` for a request that no provider of theirs can meet.
    """
    if requested is False:
        return []
    able = [(one, rows) for one, rows in waiting if (await resources.provider_of(one)).type in BATCH_TYPES]
    if requested and not able:
        provider = await resources.provider_of(waiting[0][0]) if len(waiting) == 1 else await resources.provider()
        require_batch(provider.name, provider.type)
    if requested or sum(rows for _, rows in able) >= WORTH_A_JOB:
        return [one for one, _ in able]
    return []


async def require_batch_api(resources: Resources, project: str, dataset: str | None) -> None:
    """Raise `NoBatchError` unless who embeds a dataset, which may be new, has a batch API; None: one that is certainly new."""
    provider = await resources.provider() if dataset is None else await resources.provider_for(project, dataset)
    require_batch(provider.name, provider.type)
