"""What a batch job takes, counted in the ledger when the provider has it."""

from evervec.domain.batch import DISCOUNT, JobType
from evervec.domain.spending import LedgerKey, Reason, Spent, cost, shared_out
from evervec.store.batch import batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.budget import ledger
from evervec.store.database.session import Tx
from evervec.store.providers import Provider


async def count(tx: Tx, job: BatchJobRecord, provider: Provider) -> None:
    """Count a job that was just submitted, shared out among the datasets of its rows. Pictures and sounds have no tokens."""
    rows = await batch_queue.datasets_of(tx, job.id) if job.job_type is JobType.EMBEDDING else {None: 1}
    weights = list(rows.values())
    texts = shared_out(job.stats["texts"], weights)
    tokens = shared_out(job.stats["tokens"], weights)
    entries = {}
    for place, (dataset_id, some) in enumerate(zip(rows, tokens, strict=True)):
        money = cost(some, job.usd_per_million_tokens)
        entries[LedgerKey(provider.name, job.model, dataset_id, Reason.BATCH)] = Spent(
            requests=int(place == 0),
            texts=texts[place],
            tokens=some,
            usd=(money or 0.0) * DISCOUNT,
            unpriced_tokens=some if money is None else 0,
            reused=weights[place] - texts[place] if job.job_type is JobType.EMBEDDING else 0,
            saved_usd=(money or 0.0) * (1 - DISCOUNT),
        )
    await ledger.add(tx, entries)
