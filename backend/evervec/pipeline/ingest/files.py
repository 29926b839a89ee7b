"""Files and folders are registered as the source of a dataset, and indexed."""

from uuid import uuid4

from evervec.domain.naming import slug
from evervec.domain.spending import cost
from evervec.errors import UnknownDatasetError, UnknownProjectError
from evervec.pipeline import chunking
from evervec.pipeline.batch import router
from evervec.pipeline.budget import prices
from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.indexing.run import Indexing, Progress, RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.runs import RunRecord

TRIGGER = "cli"


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
        return await _count_only(resources, project, dataset, files, options, progress)
    target, scope = await source_registry.register_files(resources.database, project, dataset, files)
    request = RunRequest(full=True, trigger=TRIGGER, scope=scope, embeds=embeds, deferred=deferred)
    return await requests.index(resources, target.id, request, options, progress)


async def _count_only(
    resources: Resources,
    project: str,
    dataset: str,
    files: FileSelection,
    options: RunOptions,
    progress: Progress | None,
) -> RunRecord:
    """Perform a dry run that is not saved; not even a new dataset is created for it."""
    try:
        async with resources.database.read() as tx:
            now = await tx.now()
            found = await datasets.find(tx, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
        dataset_id = found[0].id
    except (UnknownDatasetError, UnknownProjectError):
        dataset_id = uuid4()
    run = RunRecord.unsaved(dataset_id, mode="full", trigger=TRIGGER, at=now)
    source = source_registry.files_source(files, checksum=options.checksum)
    chunker = await chunking.by_id(resources, dataset_id)
    await Indexing(resources, run, source, chunker, options, progress).perform()
    run.cost_usd = cost(run.counts.tokens, prices.of_embedding(chunker.provider))
    return run
