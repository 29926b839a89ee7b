"""Files and folders are registered as the source of a dataset, and indexed."""

from evervec.pipeline.batch import router
from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.indexing.dry_run import TRIGGER, dry_run
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.indexing.run import Progress, RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.resources import Resources
from evervec.store.runs import RunRecord


async def ingest_files(
    resources: Resources,
    project: str,
    dataset: str,
    files: FileSelection,
    options: RunOptions,
    *,
    embeds: bool = True,
    deferred: bool = False,
    progress: Progress | None = None,
) -> RunRecord:
    """Index files and folders into a dataset: chunk and embed what changed, remove what is gone.

    An empty place, or a path that does not exist any more, counts as gone only if the options allow it. With `deferred`
    embedding is left to batch jobs. Raises `NoBatchError`, `UnreadablePathError`, `Refused` for filters that would remove what other paths brought, `IndexRunningError`.
    """
    if deferred:
        await router.require_batch_api(resources, project, dataset)
    if options.allow_empty:
        files = await source_registry.without_missing(resources.database, project, dataset, files)
    source_registry.files_source(files)  # a path that does not exist is refused before anything is created
    if options.dry:
        source = source_registry.files_source(files, checksum=options.checksum)
        return await dry_run(resources, project, dataset, source, options, progress=progress)
    target, scope = await source_registry.register_files(resources.database, project, dataset, files)
    request = RunRequest(full=True, trigger=TRIGGER, scope=scope, embeds=embeds, deferred=deferred)
    return await requests.index(resources, target.id, request, options, progress)
