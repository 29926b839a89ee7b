"""The plan of taking text in: it is read and cut as it would be, and what would be sent is counted. Nothing is sent or written."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from uuid import UUID

from evervec.domain.naming import slug
from evervec.pipeline.budget.planning import SendPlan, plan_rows, together
from evervec.pipeline.indexing.dry_run import dry_run
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.indexing.sql_source import SqlSource
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.ingest.sql import open_looked
from evervec.pipeline.ingest.telegram import new_texts
from evervec.pipeline.resources import Resources
from evervec.sources.sql.description import SourceDescription
from evervec.store import datasets
from evervec.store.providers import Provider


async def of_files(resources: Resources, project: str, dataset: str, files: FileSelection) -> SendPlan:
    """Return what indexing files and folders would send; the dataset need not exist.

    Raises what `ingest_files` raises.
    """
    texts: list[str] = []
    await ingest_files(resources, project, dataset, files, _into(texts.extend))
    return await plan_rows(resources, await resources.provider_for(project, dataset), _claims(resources, texts))


async def of_telegram(resources: Resources, path: Path, project: str, dataset: str) -> SendPlan:
    """Return what embedding the new and edited messages of an export would send; what is extracted from them comes later.

    The dataset need not exist. Raises `ExportError` for a file that can not be read to its end.
    """
    async with resources.database.read() as tx:
        there = await datasets.by_slug(tx, slug("Project", project), slug("Dataset", dataset))
    texts = new_texts(resources, path, None if there is None else there.id)
    return await plan_rows(resources, await resources.provider_for(project, dataset), texts)


async def of_sql(resources: Resources, description: SourceDescription, *, full: bool = False) -> SendPlan:
    """Return what a sync of an SQL source would send, for all of its datasets, which need not exist.

    Raises `SourceDownError` or `SourceError`.
    """
    texts: dict[tuple[UUID, int], list[str]] = {}
    providers: dict[tuple[UUID, int], Provider] = {}
    async with open_looked(resources.database, description, full=full) as (found, changed, foreign):
        for tenant in sorted(changed, key=str):
            dataset = description.dataset_of(tenant)
            provider = await resources.provider_for(description.project, dataset)
            key = (provider.id, provider.space.id)  # one provider embeds datasets of several spaces
            providers[key] = provider
            options = _into(texts.setdefault(key, []).extend)
            named = None if full or found.since is None else changed[tenant]
            source = SqlSource(description, foreign, tenant)
            await dry_run(resources, description.project, dataset, source, options, changed=named)
    if not providers:
        nothing = await resources.provider()
        return await plan_rows(resources, nothing, _claims(resources, []))
    return together([await plan_rows(resources, one, _claims(resources, texts[key])) for key, one in providers.items()])


def _into(take: Callable[[Sequence[str]], None]) -> RunOptions:
    return RunOptions(dry=True, planned=take)


async def _claims(resources: Resources, texts: Sequence[str]) -> AsyncIterator[Sequence[str]]:
    size = resources.settings.embed_batch
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
