"""What there is of spaces: all of them, and what a build would send."""

from dataclasses import dataclass

from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, space_of
from evervec.store import datasets, providers
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Space
from evervec.store.spaces import space_coverage, spaces


@dataclass(frozen=True)
class SpaceStatus:
    """One space, and how many datasets are searched in it, build it, and keep it for a rollback."""

    id: int
    provider: str
    model: str
    dimensions: int
    template: str
    chunk_tokens: int
    default: bool
    searched: int
    building: int
    kept: int


@dataclass(frozen=True)
class BuildPlan:
    """What a build of a dataset would do: rows to embed, and documents to chunk for it."""

    project: str
    dataset: str
    former: str
    space: str
    rows: int
    documents: int


async def listed(resources: Resources) -> list[SpaceStatus]:
    """Return every space, oldest first."""
    async with resources.database.read() as tx:
        live, others = await datasets.live(tx), await spaces.others(tx)
        return [
            SpaceStatus(
                one.id,
                one.provider,
                one.model,
                one.dimensions,
                one.template,
                one.chunk_tokens,
                one.active,
                sum(dataset.space_id == one.id for dataset in live),
                sum(other.space_id == one.id and other.state == spaces.NEXT for other in others),
                sum(other.space_id == one.id and other.state == spaces.PREVIOUS for other in others),
            )
            for one in await providers.every_space(tx)
        ]


async def plan(resources: Resources, options: BuildOptions, *, dataset: str | None = None) -> list[BuildPlan]:
    """Return what `start` with the same options would build; nothing is changed. Raises as `start` does."""
    async with resources.database.read() as tx:
        target = await space_of(tx, options)
        known = {one.id: one for one in await providers.every_space(tx)}
        building = {(one.dataset_id, one.space_id) for one in await spaces.others(tx)}
        return [
            await _planned(tx, one, known[one.space_id], target)
            for one in await datasets.find(tx, dataset)
            if one.space_id != target.id and (one.id, target.id) not in building
        ]


async def _planned(tx: ReadTx, dataset: DatasetRef, former: Space, target: Space) -> BuildPlan:
    covered = await space_coverage.coverage(tx, dataset.id, former.id)
    documents = await space_coverage.documents_of(tx, dataset.id)
    return BuildPlan(dataset.project, dataset.slug, str(former), str(target), covered.rows, documents)
