"""Which source fills a dataset: registered once, opened for every run."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from evervec.domain.document import ChangedIds, Source
from evervec.errors import NoSourceError, Refused, UnknownDatasetError
from evervec.pipeline.resources import Resources
from evervec.pipeline.sql_source import SqlSource
from evervec.sources.files.source import FileSource
from evervec.sources.files.uris import path_of, uri_of
from evervec.sources.sql.description import Description
from evervec.sources.sql.loading import describe
from evervec.store import datasets, sources
from evervec.store.datasets import Dataset
from evervec.store.foreign import Foreign, open_foreign
from evervec.store.sources import SourceRecord

FILES, SQL = "files", "sql"


@dataclass(frozen=True)
class Files:
    """A dataset's files: folders and files, with globs of what to take and to leave, and the largest one in bytes."""

    roots: Sequence[Path]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    most_bytes: int = 20_000_000
    gone: Sequence[Path] = ()

    def spec(self) -> dict[str, object]:
        """As it is kept; the uri of a folder ends in a slash."""
        return {
            "roots": sorted({uri_of(root) + ("/" if root.is_dir() else "") for root in self.roots}),
            "include": list(self.include),
            "exclude": list(self.exclude),
            "most_bytes": self.most_bytes,
        }

    @classmethod
    def of(cls, spec: Mapping[str, Any], scope: Sequence[str] | None = None) -> "Files":
        """What was kept; of its roots only those of `scope`, if one is given. A file may be gone, a folder is missed."""
        wanted = {path_of(uri): uri.endswith("/") for uri in (scope or spec["roots"])}
        gone = [path for path, folder in wanted.items() if not folder and not path.exists() and scope is None]
        roots = [path for path in wanted if path not in gone]
        return cls(roots, spec["include"], spec["exclude"], spec["most_bytes"], gone)


def files_source(files: Files, *, checksum: bool = False) -> FileSource:
    """The source of some files. Raises `PathRefusedError` for a root that is not there."""
    return FileSource(
        files.roots,
        include=files.include,
        exclude=files.exclude,
        most_bytes=files.most_bytes,
        checksum=checksum,
        gone=files.gone,
    )


async def keep_files(resources: Resources, project: str, dataset: str, files: Files) -> Dataset:
    """Make the dataset if it is new, and remember that it is filled from these files, with those it was before.

    Raises `Refused` when the dataset has other filters for paths that are not among these: they would go as gone.
    """
    spec = files.spec()
    async with resources.database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
        kept = await sources.by_name(tx, target.project_id, target.slug)
        if kept is not None and kept.type == FILES:
            _widen(spec, kept.spec, dataset)
        record = await sources.keep(tx, target.project_id, target.slug, FILES, spec)
        await sources.fill(tx, target.id, record.id)
    return target


def _widen(spec: dict[str, object], kept: dict[str, object], dataset: str) -> None:
    """Take over the roots that are known already."""
    roots, known = set(_texts(spec["roots"])), set(_texts(kept["roots"]))
    filters = [(one["include"], one["exclude"]) for one in (spec, kept)]
    if not known <= roots and filters[0] != filters[1]:
        raise Refused(
            reason=f"Dataset {dataset!r} takes {_said(kept)} from {len(known)} paths. Other filters would remove what they "
            "brought: name all of these paths, give the same filters, or use a dataset of its own."
        )
    spec["roots"] = sorted(roots | known)


def _said(kept: dict[str, object]) -> str:
    include, exclude = " ".join(_texts(kept["include"])), " ".join(_texts(kept["exclude"]))
    return f"{include or 'every text file'}{f' without {exclude}' if exclude else ''}"


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


async def check(
    resources: Resources, dataset_id: UUID, changed: ChangedIds | None, scope: Sequence[str] | None = None
) -> None:
    """That a dataset can be indexed, as far as the scope goes, and that its source knows the tables and can read the ids.

    Raises `UnknownDatasetError`, `NoSourceError`, `UnknownTableError`, `Refused`.
    """
    source = await open_source(resources, dataset_id, scope)
    try:
        if changed is not None:
            await asyncio.to_thread(source.named, changed)
    finally:
        await source.aclose()


async def open_source(
    resources: Resources, dataset_id: UUID, scope: Sequence[str] | None = None, *, checksum: bool = False
) -> Source:
    """The source of a dataset, opened; for the caller to close. Raises `UnknownDatasetError` or `NoSourceError`."""
    async with resources.database.read() as tx:
        dataset = await datasets.by_id(tx, dataset_id)
        if dataset is None:
            raise UnknownDatasetError(dataset=str(dataset_id), known="those of `evervec status`")
        found = await sources.of_dataset(tx, dataset_id)
    if found is None:
        raise NoSourceError(dataset=f"{dataset.project}/{dataset.slug}")
    record, tenant = found
    if record.type == FILES:
        return files_source(Files.of(record.spec, scope), checksum=checksum)
    description = describe(record.spec, f"source {record.name!r}")
    return SqlSource(description, await open_foreign_of(resources, record), tenant)


async def keep_sql(resources: Resources, description: Description) -> SourceRecord:
    """Remember a source of SQL tables. One dataset for all of it is made at once, those of tenants when they are seen."""
    url = None if description.url is None else resources.seal(description.url.get_secret_value())
    async with resources.database.transaction() as tx:
        project_id = await datasets.ensure_project(tx, description.project)
        record = await sources.keep(
            tx, project_id, description.name, SQL, description.model_dump(mode="json"), url_encrypted=url
        )
        if description.dataset is not None:
            dataset = await datasets.ensure(tx, description.project, description.dataset)
            await sources.fill(tx, dataset.id, record.id)
    return record


async def open_foreign_of(resources: Resources, record: SourceRecord) -> Foreign:
    """The tables of an SQL source, in its own database or in ours; for the caller to close."""
    description = describe(record.spec, f"source {record.name!r}")
    at = resources.database if record.url_encrypted is None else resources.unseal(record.url_encrypted)
    return await open_foreign(description, at)
