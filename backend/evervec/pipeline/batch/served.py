"""Which rows go to which provider in batch jobs: those of a dataset to the one that embeds it, and to no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from evervec.store import providers
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Provider
from evervec.store.spaces import spaces


@dataclass(frozen=True)
class ServedSpace:
    """A provider with one of its spaces, and the datasets that it embeds into that space.

    Of one that is `building` only rows that are marked for batch jobs are sent: the others are filled by the build.
    """

    provider: Provider
    dataset_ids: Sequence[UUID]
    building: bool


async def spaces_of(tx: ReadTx, scope: Sequence[DatasetRef]) -> list[ServedSpace]:
    """Return who embeds some datasets, in the spaces that are searched and in those that are built by batch jobs."""
    grouped: dict[tuple[int, UUID | None, bool], list[UUID]] = {}
    for one in scope:
        grouped.setdefault((one.space_id, one.provider_id, False), []).append(one.id)
    for other in await spaces.others(tx, [one.id for one in scope]):
        if other.batch_hours is not None:
            grouped.setdefault((other.space_id, other.provider_id, True), []).append(other.dataset_id)
    served: dict[tuple[UUID, int, bool], ServedSpace] = {}
    for (space_id, preferred, building), dataset_ids in grouped.items():
        found = await providers.serving(tx, space_id, preferred)
        if found is not None:  # else nobody embeds it, and `evervec status` says so
            key = (found.id, space_id, building)
            before = served[key].dataset_ids if key in served else []
            served[key] = ServedSpace(found, [*before, *dataset_ids], building)
    return list(served.values())
