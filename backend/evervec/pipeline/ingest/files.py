"""Files come in: their dataset remembers where they are, and is indexed from there."""

from uuid import uuid4

from evervec.domain.naming import slug
from evervec.errors import UnknownDatasetError, UnknownProjectError
from evervec.pipeline import chunking
from evervec.pipeline.batch import router
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
    """Index files and folders into a dataset: what changed is chunked and embedded, what is gone goes.

    Where nothing is found any more is let go if the options say so, also a path that is not there itself.
    With `deferred` it is left to batch jobs to be embedded. Raises `NoBatchError`, `UnreadablePathError`, `Refused` for filters that would remove what other paths brought, `IndexRunningError`.
    """
    if deferred:
        await router.require_batch_api(resources)
    if options.allow_empty:
        files = await source_registry.without_missing(resources.database, project, dataset, files)
    source_registry.files_source(files)  # a path that is not there is refused before anything is made
    if options.dry:
        return await _counted(resources, project, dataset, files, options, progress)
    target, scope = await source_registry.register_files(resources.database, project, dataset, files)
    request = RunRequest(full=True, trigger=TRIGGER, scope=scope, embeds=embeds, deferred=deferred)
    return await requests.index(resources, target.id, request, options, progress)


async def _counted(
    resources: Resources,
    project: str,
    dataset: str,
    files: FileSelection,
    options: RunOptions,
    progress: Progress | None,
) -> RunRecord:
    """A run that is nowhere but here: not even a new dataset is made for it."""
    try:
        async with resources.database.read() as tx:
            now = await tx.now()
            found = await datasets.find(tx, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
        dataset_id = found[0].id
    except (UnknownDatasetError, UnknownProjectError):
        dataset_id = uuid4()
    run = RunRecord.unsaved(dataset_id, mode="full", trigger=TRIGGER, at=now)
    source = source_registry.files_source(files, checksum=options.checksum)
    chunker = await chunking.active(resources)
    await Indexing(resources, run, source, chunker, options, progress).perform()
    price = chunker.provider.usd_per_million_tokens
    run.cost_usd = None if price is None else run.counts.tokens * price / 1_000_000
    return run
