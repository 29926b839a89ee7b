"""The sources of datasets: registered once, opened for every run."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from evervec.domain.documents.document import ChangedIds, SourceReader
from evervec.domain.naming import slug
from evervec.domain.sources import SourceType
from evervec.errors import NoSourceError, Refused, SourceMissingError, UnknownDatasetError
from evervec.pipeline.indexing.sql_source import SqlSource
from evervec.pipeline.resources import Resources
from evervec.sources.files.file_source import FileSource
from evervec.sources.files.file_uris import normalize, path_of, uri_of
from evervec.sources.files.nested_roots import outermost_roots
from evervec.sources.files.roots import Root
from evervec.sources.sql.description import SourceDescription
from evervec.sources.sql.loading import describe
from evervec.store import datasets, sources
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.foreign.reader import ForeignTables, open_foreign
from evervec.store.sources import SourceRecord

NAMED_PATHS = 5
"""Paths of a dataset that a message names."""


@dataclass(frozen=True)
class FileSelection:
    """The files of a dataset: folders and files, with globs to include and exclude, and the largest size in bytes.

    Documents from roots that are `gone` are removed, documents from roots that are `away` (unreadable) stay.
    """

    roots: Sequence[Path]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    most_bytes: int = 20_000_000
    gone: Sequence[Path] = ()
    away: Sequence[Root] = ()

    def spec(self) -> dict[str, object]:
        """Return the selection as it is stored; the uri of a folder ends in a slash."""
        return {
            "roots": sorted({uri_of(root) + ("/" if root.is_dir() else "") for root in self.roots}),
            "include": list(self.include),
            "exclude": list(self.exclude),
            "most_bytes": self.most_bytes,
        }

    @classmethod
    def of(
        cls, spec: Mapping[str, Any], scope: Sequence[str] | None = None, *, forget_missing: bool = False
    ) -> "FileSelection":
        """Return a stored selection, limited to the roots of `scope` and those in them: the former have to exist.

        Any other root may be gone, or away when it can not be read. With `forget_missing` all of these are gone.
        """
        stored, named = _roots(spec), {path_of(uri) for uri in scope or ()}
        inside = [path for path in stored if path not in named and (not scope or not named.isdisjoint(path.parents))]
        missing = [
            stored[path]
            for path in (*(named & stored.keys() if forget_missing else ()), *inside)
            if stored[path].unreadable_reason()
        ]
        gone = {root.path for root in missing if forget_missing or root.is_gone()}
        away = [root for root in missing if root.path not in gone]
        roots = [path for path in (*sorted(named), *inside) if path not in gone]
        return cls(roots, spec["include"], spec["exclude"], spec["most_bytes"], list(gone), away)

    def require(self, dataset: str) -> None:
        """Raise `SourceMissingError` when none of the roots can be read."""
        if self.away and len(self.away) == len(self.roots):
            count, first = len(self.away) + len(self.gone), self.away[0]
            which = "the only path" if count == 1 else f"one of the {count} paths, of which none can be read,"
            raise SourceMissingError(
                path=str(first.path), reason=first.unreadable_reason(), which=which, dataset=dataset
            )


def files_source(files: FileSelection, *, checksum: bool = False) -> FileSource:
    """Return a reader of the selected files. Raises `UnreadablePathError` for a root that does not exist."""
    return FileSource(
        files.roots,
        include=files.include,
        exclude=files.exclude,
        most_bytes=files.most_bytes,
        checksum=checksum,
        gone=files.gone,
        away=files.away,
    )


async def without_missing(database: Database, project: str, dataset: str, files: FileSelection) -> FileSelection:
    """Return the selection with those roots as gone that are registered and can not be read."""
    async with database.read() as tx:
        stored = await sources.find(tx, slug("Project", project), slug("Dataset", dataset))
    known = {} if stored is None or stored.type != SourceType.FILES else _roots(stored.spec)
    paths = {normalize(path): path for path in files.roots}
    gone = [path for path in paths if path in known and known[path].unreadable_reason()]
    return replace(files, roots=[given for path, given in paths.items() if path not in gone], gone=gone)


async def forget_missing_roots(database: Database, dataset_id: UUID, source: SourceReader) -> None:
    """Remove the roots that are gone from the registered source; a dataset without any root has no source."""
    if isinstance(source, FileSource) and source.gone:
        uris = [uri + slash for uri in source.gone for slash in ("", "/")]
        await database.with_retries(lambda tx: sources.remove_roots(tx, dataset_id, uris))


async def register_files(
    database: Database, project: str, dataset: str, files: FileSelection
) -> tuple[DatasetRef, Sequence[str]]:
    """Create the dataset if it is new, and register these files as its source, besides those registered before.

    Return also the uris of the roots that these files are, or are in. Raises `Refused` when the dataset has other filters
    for other paths: their documents would be removed.
    """
    spec = files.spec()
    async with database.transaction() as tx:
        target = await datasets.ensure(tx, project, dataset)
        stored = await sources.by_name(tx, target.project_id, target.slug)
        known = stored.spec if stored is not None and stored.type == SourceType.FILES else spec
        scope = await asyncio.to_thread(_widen, spec, known, files.gone, dataset)
        record = await sources.save(tx, target.project_id, target.slug, SourceType.FILES, spec)
        await sources.assign(tx, target.id, record.id)
    return target, scope


def _widen(spec: dict[str, object], stored: dict[str, object], gone: Sequence[Path], dataset: str) -> list[str]:
    """Add the registered roots to a new selection; return the given ones, each as the outermost root that holds it."""
    known = set(_texts(stored["roots"]))
    named = {*_texts(spec["roots"]), *(uri for uri in known if path_of(uri) in gone)}
    homes = outermost_roots(named | known)
    filters = [(one["include"], one["exclude"]) for one in (spec, stored)]
    if filters[0] != filters[1] and not all(homes[uri] in named for uri in known):
        raise Refused(
            reason=f"Dataset {dataset!r} takes {_filters(stored)} from {_listed(known)}. Other filters would remove what they "
            "brought: name all of these paths, give the same filters, or use a dataset of its own."
        )
    spec["roots"] = sorted(set(homes.values()))
    return sorted({homes[uri] for uri in named})


def _listed(uris: Collection[str]) -> str:
    """Return the number of paths and the first of them, for a message."""
    first = ", ".join(repr(str(path_of(uri))) for uri in sorted(uris)[:NAMED_PATHS])
    more = f" and {len(uris) - NAMED_PATHS} more" if len(uris) > NAMED_PATHS else ""
    return f"{len(uris)} path{'s' * (len(uris) != 1)} ({first}{more})"


def _filters(stored: dict[str, object]) -> str:
    include, exclude = " ".join(_texts(stored["include"])), " ".join(_texts(stored["exclude"]))
    return f"{include or 'every text file'}{f' without {exclude}' if exclude else ''}"


def _roots(spec: Mapping[str, Any]) -> dict[Path, Root]:
    return {path: Root(path, uri.endswith("/")) for uri in spec["roots"] for path in [path_of(uri)]}


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


async def check(
    resources: Resources,
    dataset_id: UUID,
    changed: ChangedIds | None,
    scope: Sequence[str] | None = None,
    *,
    forget_missing: bool = False,
) -> None:
    """Check that a dataset can be indexed, within the scope, and that its source has the tables and accepts the ids.

    Raises `UnknownDatasetError`, `NoSourceError`, `UnknownTableError`, `Refused`.
    """
    source = await open_source(resources, dataset_id, scope, forget_missing=forget_missing)
    try:
        if changed is not None:
            await asyncio.to_thread(source.named, changed)
    finally:
        await source.aclose()


async def open_source(
    resources: Resources,
    dataset_id: UUID,
    scope: Sequence[str] | None = None,
    *,
    checksum: bool = False,
    forget_missing: bool = False,
) -> SourceReader:
    """Open the source of a dataset; the caller closes it. With `forget_missing` unreadable files count as gone.

    Raises `UnknownDatasetError`, `NoSourceError`, `UnreadablePathError`.
    """
    async with resources.database.read() as tx:
        dataset = await datasets.by_id(tx, dataset_id)
        if dataset is None:
            raise UnknownDatasetError(dataset=str(dataset_id), known="those of `evervec status`")
        found = await sources.of_dataset(tx, dataset_id)
    if found is None:
        raise NoSourceError(dataset=f"{dataset.project}/{dataset.slug}")
    record, tenant = found
    if record.type == SourceType.FILES:
        return await asyncio.to_thread(
            _opened, record, scope, f"{dataset.project}/{dataset.slug}", checksum, forget_missing
        )
    if record.type == SourceType.ATTACHED:
        raise Refused(
            reason=f"Dataset {dataset.project}/{dataset.slug} follows table {record.name} by itself, so there is nothing to "
            "index. `evervec attachments` shows how far it is."
        )
    description = describe(record.spec, f"source {record.name!r}")
    return SqlSource(description, await open_foreign_of(resources, record), tenant)


def _opened(
    record: SourceRecord, scope: Sequence[str] | None, dataset: str, checksum: bool, forget_missing: bool
) -> SourceReader:
    files = FileSelection.of(record.spec, scope, forget_missing=forget_missing)
    files.require(dataset)
    return files_source(files, checksum=checksum)


async def register_sql(resources: Resources, description: SourceDescription) -> SourceRecord:
    """Register a source of SQL tables. A single dataset is created at once, those of tenants when they are first seen."""
    url = None if description.url is None else resources.seal(description.url.get_secret_value())
    async with resources.database.transaction() as tx:
        project_id = await datasets.ensure_project(tx, description.project)
        record = await sources.save(
            tx, project_id, description.name, SourceType.SQL, description.model_dump(mode="json"), url_encrypted=url
        )
        if description.dataset is not None:
            dataset = await datasets.ensure(tx, description.project, description.dataset)
            await sources.assign(tx, dataset.id, record.id)
    return record


async def open_foreign_of(resources: Resources, record: SourceRecord) -> ForeignTables:
    """Open the tables of an SQL source, in its own database or in ours; the caller closes them."""
    description = describe(record.spec, f"source {record.name!r}")
    at = resources.database if record.url_encrypted is None else resources.unseal(record.url_encrypted)
    return await open_foreign(description, at)
