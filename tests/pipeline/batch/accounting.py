"""What must add up after a batch job, however it ended: every row is told once, and none waits with nobody to take it."""

from typing import Any

from evervec.store.batch import batch_jobs
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.database.session import Database

STUCK = """
SELECT e.vector_id, w.* FROM embeddings e LEFT JOIN embed_work w USING (vector_id)
WHERE e.pending_id IS NOT NULL AND w.lease_owner IS NOT NULL
  AND NOT EXISTS (SELECT FROM batch_items i WHERE i.vector_id = e.vector_id AND i.job_id = w.lease_owner)
"""
ORPHANS = "SELECT count(*) FROM batch_items i JOIN batch_jobs j ON j.id = i.job_id WHERE j.finished_at IS NOT NULL"


async def jobs(database: Database) -> list[BatchJobRecord]:
    """Every job, oldest first."""
    async with database.read() as tx:
        return list(reversed(await batch_jobs.every(tx, limit=10_000)))


async def assert_all_accounted(database: Database, psql: Any) -> None:
    """Each job that is over has told what became of each of its rows, and no row is held by what is over."""
    for job in await jobs(database):
        told = sum(job.stats[name] for name in ("ready", "failed", "dropped", "returned"))
        if job.finished_at is not None:
            assert job.stats["rows"] == told, job
    assert await psql.fetchval(ORPHANS) == 0
    assert await psql.fetch(STUCK) == []
