"""The plan of indexing files: they are listed, read and chunked as a run would, and what would be sent is counted."""

from collections.abc import AsyncIterator, Sequence

from evervec.pipeline.budget.planning import SendPlan, plan_rows
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.resources import Resources


async def plan(resources: Resources, project: str, dataset: str, files: FileSelection) -> SendPlan:
    """Return what indexing files and folders would send; the dataset need not exist. Sends and writes nothing.

    Raises what `ingest_files` raises.
    """
    texts: list[str] = []
    options = RunOptions(dry=True, planned=texts.extend)
    await ingest_files(resources, project, dataset, files, options)
    provider = await resources.provider_for(project, dataset)

    async def claims() -> AsyncIterator[Sequence[str]]:
        size = resources.settings.embed_batch
        for start in range(0, len(texts), size):
            yield texts[start : start + size]

    return await plan_rows(resources, provider, claims())
