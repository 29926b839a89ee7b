"""The ledger as every entry point shows it: what was sent and saved, since when and by what."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.budget import ledger
from evervec.store.budget.ledger import GROUPS, SpendLine


@dataclass(frozen=True)
class SpendReport:
    """What was sent to providers since a day (UTC), summed up by day, provider, model, dataset or reason."""

    since: date | None
    by: list[str]
    lines: list[SpendLine]
    total: SpendLine


async def report(
    resources: Resources, by: Sequence[str], *, since: date | None = None, dataset: str | None = None
) -> SpendReport:
    """Return the ledger. Raises `Refused` for a word that it can not be grouped by, and for an unknown dataset."""
    unknown = [word for word in by if word not in GROUPS]
    if unknown:
        raise Refused(reason=f"Spend can not be shown by {unknown[0]!r}. Choose from {', '.join(GROUPS)}.")
    async with resources.database.read() as tx:
        chosen = None if dataset is None else [one.id for one in await datasets.find(tx, dataset)]
        found = await ledger.lines(tx, list(dict.fromkeys(by)), since=since, dataset_ids=chosen)
        total = await ledger.lines(tx, [], since=since, dataset_ids=chosen)
    return SpendReport(since, list(dict.fromkeys(by)), found, total[0])
