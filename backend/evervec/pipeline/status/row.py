"""All that is known of one row: its text, its vector in each space, the versions that it had, its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

from evervec.errors import Refused, UnknownRowError
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import MOST_HITS, similar
from evervec.store import datasets
from evervec.store.embeddings import neighbours, records_of_row
from evervec.store.embeddings.hits import SearchHit
from evervec.store.embeddings.records_of_row import RowRecord, RowVersion
from evervec.store.schema.embeddables import BY_NAME


@dataclass(frozen=True)
class RowReport:
    """A row: what a search would show of it, its records by space (that which is searched first), versions and neighbours."""

    project: str
    row: SearchHit
    records: Sequence[RowRecord]
    versions: Sequence[RowVersion]
    neighbours: Sequence[SearchHit]


async def one(resources: Resources, kind: str, row_id: int, *, k: int = 5) -> RowReport:
    """Return a row with up to k neighbours of its kind, none where it has no vector.

    Raises `UnknownRowError` for a row that does not exist or whose dataset was deleted, `Refused` for an unknown kind.
    """
    if kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    if not 0 <= k <= MOST_HITS:
        raise Refused(reason=f"k is {k}, it must be between 0 and {MOST_HITS}.")
    embeddable = BY_NAME[kind]
    async with resources.database.read() as tx:
        records = await records_of_row.of_row(tx, embeddable, row_id)
        dataset = await datasets.by_id(tx, records[0].dataset_id) if records else None
        if dataset is None:
            raise UnknownRowError(kind=kind, row_id=row_id)
        found = await neighbours.rejoin(
            tx, None, [records[0].vector_id], dataset_ids=[dataset.id], kinds=[embeddable], without_vector=True
        )
        versions = await records_of_row.versions(tx, embeddable, row_id)
    if not found:  # its text is NULL, or it was deleted while triggers were off
        raise UnknownRowError(kind=kind, row_id=row_id)
    has_vector = k and records[0].searched and records[0].embedded_at is not None
    near = (await similar(resources, kind, row_id, k=k)).hits if has_vector else []
    return RowReport(dataset.project, found[0], records, versions, near)
