"""Documents that were handed over and are there: got, listed, described anew, deleted."""

from collections.abc import Mapping, Sequence
from typing import Any

from evervec.domain.documents import metadata
from evervec.domain.naming import slug
from evervec.errors import Refused, UnknownDocumentError
from evervec.pipeline.resources import Resources
from evervec.store import datasets, document_records, documents, sources
from evervec.store.database.session import ReadTx, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.document_records import DocumentEntry, DocumentRecord

MOST_LISTED_DOCUMENTS = 1_000


async def get(resources: Resources, uris: Sequence[str], *, project: str, dataset: str) -> list[DocumentRecord]:
    """Return those of some documents that are there, with text and metadata, by uri. Raises `UnknownDatasetError`."""
    async with resources.database.read() as tx:
        target = await _named(tx, project, dataset)
        return await document_records.get(tx, target.id, uris)


async def page(
    resources: Resources,
    *,
    project: str,
    dataset: str,
    prefix: str = "",
    after: str = "",
    limit: int = 100,
    said: Mapping[str, Any] | None = None,
) -> list[DocumentEntry]:
    """Return the next documents behind the uri `after`, by uri, of those whose metadata has what is `said`.

    Raises `UnknownDatasetError`, and `Refused` for a bad limit and for metadata that JSON does not have.
    """
    if not 1 <= limit <= MOST_LISTED_DOCUMENTS:
        raise Refused(reason=f"limit is {limit}, it must be between 1 and {MOST_LISTED_DOCUMENTS:,}.")
    wanted = metadata.checked(said or {})
    async with resources.database.read() as tx:
        target = await _named(tx, project, dataset)
        return await document_records.page(tx, target.id, prefix=prefix, after=after, limit=limit, metadata=wanted)


async def change_metadata(
    resources: Resources, uri: str, change: Mapping[str, Any], *, project: str, dataset: str, replace: bool = False
) -> dict[str, Any]:
    """Change the metadata of a document, and return all of it; chunks and vectors stay as they are.

    A name whose value is None is removed, names that are not in `change` stay unless it replaces all. Raises
    `UnknownDatasetError`, `UnknownDocumentError`, and `Refused` for metadata that JSON does not have.
    """
    checked = metadata.checked(change)
    async with resources.database.read() as tx:
        target = await _named(tx, project, dataset)

    async def once(tx: Tx) -> dict[str, Any]:
        found = await document_records.change_metadata(tx, target.id, uri, checked, replace=replace)
        if found is None:
            raise UnknownDocumentError(dataset=target.name, uri=uri)
        metadata.require_small(found)
        return found

    return await resources.database.with_retries(once)


async def delete(resources: Resources, uris: Sequence[str], *, project: str, dataset: str) -> int:
    """Delete documents of a dataset by their uris, with chunks and vectors; return how many there were.

    Raises `UnknownDatasetError`, and `Refused` for a dataset that is filled from a source, which would bring them back.
    """
    async with resources.database.read() as tx:
        target = await _named(tx, project, dataset)
        if await sources.of_dataset(tx, target.id) is not None:
            raise Refused(
                reason=f"Dataset {target.project}/{target.slug} is filled from a source, which would bring the documents "
                "back. Delete them there."
            )

    async def once(tx: Tx) -> int:
        found = await documents.by_uri(tx, target.id, uris)
        return (await documents.remove(tx, [one.id for one in found.values()])).documents_deleted

    return await resources.database.with_retries(once)


async def _named(tx: ReadTx, project: str, dataset: str) -> DatasetRef:
    (target,) = await datasets.find(tx, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
    return target
