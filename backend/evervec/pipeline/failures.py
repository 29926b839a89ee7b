"""What was given up on gets another chance, or is left alone for good."""

from evervec.pipeline.resources import Resources
from evervec.store import datasets, messages, rows


async def retry(resources: Resources, *, dataset: str | None = None, row: tuple[int, int] | None = None) -> int:
    """Make failed rows pending again, and messages that were given up extractable; answers how many."""
    async with resources.database.transaction() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        reopened = await rows.retry(tx, ids, row=row)
        return reopened if row is not None else reopened + await messages.retry(tx, ids)


async def discard(resources: Resources, *, dataset: str | None = None, row: tuple[int, int] | None = None) -> int:
    """Count failed rows as empty until their text changes; answers how many."""
    async with resources.database.transaction() as tx:
        return await rows.discard(tx, [d.id for d in await datasets.find(tx, dataset)], row=row)
