"""The engine's functions for programs that drive it themselves, under the names of the systems that Evervec replaces.

Each takes an open core first: a `SemanticCore`, whose answer is awaited (or returned, where no event loop runs), or a
`SyncSemanticCore`. A dataset or project that was deleted meanwhile has nothing to do, and is no error.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

from evervec.library.blocking import SyncSemanticCore
from evervec.library.core import SemanticCore

if TYPE_CHECKING:
    # a second of imports, which the first call makes
    import numpy as np
    from numpy.typing import NDArray

    from evervec.domain.documents.document import IncomingDocument, SkippedDocument
    from evervec.pipeline.resources import Resources
    from evervec.pipeline.upkeep.mirror_check import DatasetBuild, DatasetCheck
    from evervec.store.datasets import DatasetRef
    from evervec.store.embeddings.waiting_chunks import WaitingChunk
    from evervec.store.runs import RunRecord
    from evervec.store.spaces.unchunked import UnchunkedDocument

__all__ = [
    "check_index_sync",
    "extract_data_by_ids",
    "get_faiss_index_path",
    "get_files_needing_chunking",
    "get_max_vector_id",
    "get_non_vectorized_chunks",
    "get_project_datasets",
    "get_projects_with_vectorization_count",
    "index_dataset",
    "rebuild_from_database",
    "update_vectors_bulk",
]

P = ParamSpec("P")
T = TypeVar("T")
Core = SemanticCore | SyncSemanticCore


def of_core(
    function: "Callable[Concatenate[Resources, P], Coroutine[Any, Any, T]]",
) -> Callable[Concatenate[Core, P], Coroutine[Any, Any, T]]:
    """Return a function of a core: it opens the core first, and is awaited as the methods of the core are."""

    @wraps(function)
    def call(core: Core, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        opened = core._core if isinstance(core, SyncSemanticCore) else core
        carry_out = core._carry_out if isinstance(core, SyncSemanticCore) else core._opening.run

        async def called() -> T:
            return await function(opened._resources, *args, **kwargs)

        return cast("Coroutine[Any, Any, T]", carry_out(called))

    return call


@of_core
async def get_projects_with_vectorization_count(resources: "Resources") -> list[tuple[UUID, str | None, int]]:
    """Return `(project id, root path, pending)` of all live projects, smallest first, so that none waits behind a large one.

    `pending` counts documents still to be chunked and rows still to be embedded, over all datasets.
    """
    from evervec.pipeline.upkeep import sweep

    return await sweep.get_projects_with_vectorization_count(resources)


@of_core
async def get_project_datasets(resources: "Resources", project_id: UUID | str) -> "list[DatasetRef]":
    """Return the live datasets of a project, by name: its `id`, `slug`, and the space in which it is searched."""
    from evervec.store import datasets

    wanted = _uuid(project_id)
    async with resources.database.read() as tx:
        return [one for one in await datasets.live(tx) if one.project_id == wanted]


@of_core
async def get_files_needing_chunking(
    resources: "Resources", dataset_id: UUID | str, limit: int = 100
) -> "list[UnchunkedDocument]":
    """Return documents that wait for their chunks: written as a text, or chunked in another way than now."""
    from evervec.domain.documents.chunking import CHUNKING
    from evervec.store.spaces import unchunked

    async with resources.database.read() as tx:
        return await unchunked.in_dataset(tx, _uuid(dataset_id), CHUNKING, limit=limit)


@of_core
async def get_non_vectorized_chunks(
    resources: "Resources", dataset_id: UUID | str, after: int = 0, limit: int = 1_000
) -> "list[WaitingChunk]":
    """Return chunks that wait for a vector, in the order of their `vector_id`, behind the vector id `after`.

    They are not claimed: workers may embed them, too. `update_vectors_bulk` takes them with the vectors that you make.
    """
    from evervec.store.embeddings import waiting_chunks

    async with resources.database.read() as tx:
        return await waiting_chunks.in_dataset(tx, _uuid(dataset_id), after=after, limit=limit)


@of_core
async def get_max_vector_id(resources: "Resources", dataset_id: UUID | str | None = None) -> int:
    """Return the highest vector id of a dataset, or of all, 0 where there is none. PostgreSQL gives ids out, each once."""
    from evervec.store.embeddings import waiting_chunks

    async with resources.database.read() as tx:
        return await waiting_chunks.newest_vector_id(tx, None if dataset_id is None else _uuid(dataset_id))


def get_faiss_index_path(faiss_dir: str | PathLike[str], project_id: UUID | str, dataset_id: UUID | str) -> Path:
    """Return the file of a dataset's mirror, `{faiss_dir}/{project_id}/{dataset_id}.bin`. Raises `Refused` for no UUID."""
    from evervec.mirror.disk import paths

    return paths.get_faiss_index_path(Path(faiss_dir), _uuid(project_id), _uuid(dataset_id))


@of_core
async def check_index_sync(
    resources: "Resources",
    *,
    dataset: str | None = None,
    project: str | None = None,
    deep: bool = False,
    repair: bool = True,
) -> "list[DatasetCheck]":
    """Compare mirrors with the database, and repair what differs unless `repair` is False; `deep` compares every number.

    Each answer counts missing, extra and stale vectors. Raises `UnknownDatasetError` and `UnknownProjectError`.
    """
    from evervec.pipeline.upkeep import mirror_check

    return await mirror_check.check_index_sync(resources, dataset=dataset, project=project, deep=deep, repair=repair)


@of_core
async def rebuild_from_database(
    resources: "Resources", *, dataset: str | None = None, project: str | None = None
) -> "list[DatasetBuild]":
    """Build mirrors anew from the database, also where a valid one exists. Raises as `check_index_sync`."""
    from evervec.pipeline.upkeep import mirror_check

    return await mirror_check.rebuild_from_database(resources, dataset=dataset, project=project)


@of_core
async def index_dataset(
    resources: "Resources",
    dataset_id: UUID | str,
    changed_ids: Mapping[str, Sequence[str | int]] | None = None,
    full_rebuild: bool = False,
) -> "RunRecord":
    """Read the source of a dataset, chunk and embed what changed, and return the finished run with its counts.

    With `changed_ids` (`{"orders": [17]}`) only those records are read, without them everything is compared;
    `full_rebuild` also removes what is gone. Raises `IndexRunningError`, `UnknownDatasetError`, `NoSourceError` and others.
    """
    from evervec.pipeline.indexing import requests

    return await requests.index_dataset(resources, _uuid(dataset_id), changed_ids, full_rebuild)


@of_core
async def extract_data_by_ids(
    resources: "Resources", dataset_id: UUID | str, changed_ids: Mapping[str, Sequence[str | int]]
) -> "list[IncomingDocument | SkippedDocument]":
    """Read some records of a dataset's source by their keys, as the documents that `index_dataset` would chunk.

    One that does not exist is a `SkippedDocument` whose `reason` is `gone`. Raises `NoSourceError`, `UnknownTableError`,
    and `SourceError` for an id of a wrong type.
    """
    from evervec.domain.documents.document import ListedDocument
    from evervec.pipeline.indexing.source_registry import open_source

    source = await open_source(resources, _uuid(dataset_id))
    try:
        listed = [ListedDocument(uri) for uri in source.named(changed_ids)]
        return [one async for some in source.read(listed) for one in some]
    finally:
        await source.aclose()


@of_core
async def update_vectors_bulk(
    resources: "Resources", chunks: "Sequence[WaitingChunk]", vectors: "NDArray[np.float32]"
) -> set[int]:
    """Write `(n, dim) float32` of the chunks of `get_non_vectorized_chunks`, in one statement a space.

    Return the ids of the vectors that were written: a chunk whose text was changed meanwhile keeps waiting. Mirrors are told.
    Raises `BadResponseError` for another number of vectors, `ConfigError` for another width, `Refused` for a vector that is
    zero or not finite.
    """
    from evervec.pipeline.embedding import given_vectors

    return await given_vectors.write(resources, chunks, vectors)


def _uuid(given: UUID | str) -> UUID:
    from evervec.errors import Refused

    if isinstance(given, UUID):
        return given
    try:
        return UUID(given)
    except ValueError:
        raise Refused(reason=f"{given[:100]!r} is not an id: give the UUID of a project or dataset.") from None
