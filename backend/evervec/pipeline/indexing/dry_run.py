"""An index run that writes nothing: it counts what would be done, and is not saved."""

from uuid import uuid4

from evervec.domain.documents.document import ChangedIds, SourceReader
from evervec.domain.naming import slug
from evervec.domain.spending import cost
from evervec.pipeline import chunking
from evervec.pipeline.budget import prices
from evervec.pipeline.indexing.run import Indexing, Progress, RunOptions
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.runs import RunRecord

TRIGGER = "cli"


async def dry_run(
    resources: Resources,
    project: str,
    dataset: str,
    source: SourceReader,
    options: RunOptions,
    *,
    changed: ChangedIds | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Index everything of a source, or the named ids, with `options` that are dry; not even a new dataset is created for it."""
    async with resources.database.read() as tx:
        now = await tx.now()
        there = await datasets.by_slug(tx, slug("Project", project), slug("Dataset", dataset))
    dataset_id = uuid4() if there is None else there.id
    run = RunRecord.unsaved(dataset_id, mode="full" if changed is None else "delta", trigger=TRIGGER, at=now)
    run.changed = None if changed is None else {table: list(ids) for table, ids in changed.items()}
    chunker = await chunking.by_id(resources, dataset_id)
    await Indexing(resources, run, source, chunker, options, progress).perform()
    run.cost_usd = cost(run.counts.tokens, prices.of_embedding(chunker.provider))
    return run
