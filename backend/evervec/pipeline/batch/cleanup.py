"""What a crash left at a provider is removed: files without a job, and jobs that this database does not know."""

from datetime import timedelta

from evervec import log
from evervec.domain.batch import belongs_to
from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_jobs
from evervec.store.providers import Provider

logger = log.get("batch")

REMOVED_AFTER = timedelta(days=1)
"""Age at which a remote file with our name that belongs to no open job is removed."""

LOOKED_BACK = timedelta(days=3)


async def remove_orphans(resources: Resources, provider: Provider, *, older: timedelta = REMOVED_AFTER) -> int:
    """Remove remote files that belong to no open job, and cancel jobs that this database does not know; return how many.

    Files have to be `older` than that. Unknown jobs are there after a restore. Those of other databases are not touched.
    """
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
        assert job.intent is not None  # it belongs to our tag
        known = open_.get(job.intent, "")
        # an intent without a job may be about to find this one
        if known is not None and known != job.external_id and not job.state.over:
            logger.warning("unknown job cancelled", external_id=job.external_id)
            await client.cancel(job.external_id)
            removed += 1
    for file in files:
        if file.intent not in open_ and (file.created_at is None or now - file.created_at >= older):
            await client.remove_file(file.name)
            removed += 1
    return removed
