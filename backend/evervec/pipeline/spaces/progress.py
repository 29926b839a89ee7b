"""How far the spaces are that are written to beside those that are searched: built, or kept for a rollback."""

from collections.abc import Sequence
from dataclasses import dataclass

from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import space_coverage, spaces
from evervec.store.spaces.space_coverage import SpaceCoverage


@dataclass(frozen=True)
class BuildStatus:
    """How much of a dataset is embedded in a space that is not searched; `state` is `next` or `previous`.

    `missing` rows would not be found after a flip: they wait, or failed, or are in `documents` without chunks. `coverage` is
    the share of the rows that have their vector. `seconds_left` is how long the rest takes at the rate of the last minute,
    None where nothing was embedded in it. `indexed` is whether HNSW could answer, and `searched` the space that answers now.
    """

    project: str
    dataset: str
    space: str
    space_id: int
    state: str
    automatic: bool
    rows: int
    embedded: int
    pending: int
    failed: int
    documents: int
    missing: int
    coverage: float
    seconds_left: float | None
    indexed: bool
    searched: str


async def builds(resources: Resources, *, dataset: str | None = None) -> list[BuildStatus]:
    """Return how far the spaces of a dataset, or of all, are that are not searched. Raises `UnknownDatasetError`."""
    async with resources.database.read() as tx:
        return await builds_of(tx, await datasets.find(tx, dataset))


async def builds_of(tx: ReadTx, scope: Sequence[DatasetRef]) -> list[BuildStatus]:
    """Return how far the spaces of some datasets are that are not searched."""
    by_id = {one.id: one for one in scope}
    others = await spaces.others(tx, list(by_id))
    if not others:
        return []
    known = {one.id: str(one) for one in await providers.every_space(tx)}
    found: list[BuildStatus] = []
    for other in others:
        covered, of = await space_coverage.coverage(tx, other.dataset_id, other.space_id), by_id[other.dataset_id]
        found.append(
            BuildStatus(
                project=of.project,
                dataset=of.slug,
                space=known[other.space_id],
                space_id=other.space_id,
                state=other.state,
                automatic=other.automatic,
                rows=covered.rows,
                embedded=covered.embedded,
                pending=covered.pending,
                failed=covered.failed,
                documents=covered.documents,
                missing=covered.missing,
                coverage=_share(covered, taken_in=other.taken_in),
                seconds_left=_seconds_left(covered, taken_in=other.taken_in),
                indexed=other.indexed,
                searched=known[of.space_id],
            )
        )
    return found


def _share(covered: SpaceCoverage, *, taken_in: bool) -> float:
    """Return the share of the rows with a vector, rounded down: what is not whole is not 1."""
    if not covered.rows:
        return 1.0 if taken_in and not covered.documents else 0.0
    share = covered.embedded / (covered.rows + covered.documents)
    return share if share in (0.0, 1.0) else int(share * 1000) / 1000


def _seconds_left(covered: SpaceCoverage, *, taken_in: bool) -> float | None:
    if not covered.waiting and taken_in:
        return 0.0
    if not covered.lately or not taken_in:
        return None
    return round(covered.waiting / covered.lately * 60, 1)
