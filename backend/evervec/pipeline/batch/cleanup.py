"""What a crash left at a provider: remote files without a job, and jobs that this database does not know."""

from datetime import timedelta

from evervec import log
from evervec.domain.batch import belongs_to
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.providers import Provider

logger = log.get("batch")

REMOVED_AFTER = timedelta(days=1)
"""What carries our name and belongs to no open job is removed after this time."""

LOOKED_BACK = timedelta(days=3)


async def remove_orphans(resources: Resources, provider: Provider, *, older: timedelta = REMOVED_AFTER) -> int:
    """Remove remote files of ours that belong to no open job and are older than that, and cancel jobs of ours that run
    and that this database does not know, as after a restore; answers how many. Other databases' are left alone."""
    client = resources.clients.batch_client(provider)
    async with resources.database.read() as tx:
        tag, now = await batch_jobs.database_tag(tx), await tx.now()
    removed = 0
    files = [one async for one in client.files() if belongs_to(one.intent, tag)]
    jobs = [one async for one in client.jobs(now - LOOKED_BACK) if belongs_to(one.intent, tag)]
    intents = [file.intent for file in files] + [job.intent for job in jobs]
    async with resources.database.read() as tx:
        open_ = await batch_jobs.open_jobs(tx, [intent for intent in intents if intent is not None])
    for job in jobs:
        assert job.intent is not None  # it is of our tag
        ours = open_.get(job.intent, "")
        # an intent that knows of no job yet may be about to find this one
        if ours is not None and ours != job.external_id and not job.state.over:
            logger.warning("a job that nobody here waits for is cancelled", external_id=job.external_id)
            await client.cancel(job.external_id)
            removed += 1
    for file in files:
        if file.intent not in open_ and (file.created_at is None or now - file.created_at >= older):
            await client.remove_file(file.name)
            removed += 1
    return removed
