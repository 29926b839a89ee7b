"""What a batch job takes: reserved under the ceilings before it is sent, counted in the ledger when the provider has it."""

from collections.abc import Mapping
from uuid import UUID

from evervec.domain.batch import DISCOUNT, JobType
from evervec.domain.spending import LedgerKey, Reason, Spent, cost, shared_out
from evervec.store.batch import batch_jobs, batch_queue
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.budget import budgets, ledger
from evervec.store.budget.budgets import Grant
from evervec.store.database.session import Tx
from evervec.store.providers import Provider


def usd_per_token(usd_per_million_tokens: float | None) -> float:
    """Return what a token costs in a batch job; 0 where no price is known."""
    return (cost(1, usd_per_million_tokens) or 0.0) * DISCOUNT


async def reserve(tx: Tx, job: BatchJobRecord, provider: Provider) -> Grant:
    """Take what a job may need from the budgets, if their ceilings allow it. Pictures and sounds have no tokens."""
    rows = await _rows(tx, job)
    grant = await budgets.take(
        tx,
        provider.id,
        _shared(job.stats["reserved_tokens"], rows),
        usd_per_token=usd_per_token(job.usd_per_million_tokens),
        paced=False,
    )
    if grant.granted:
        await batch_jobs.record_budget(tx, job.id, job.stats["reserved_tokens"])
    return grant


async def give_back(tx: Tx, job: BatchJobRecord, *, keep: int = 0) -> None:
    """Give the budgets back what was taken for a job, but for what it did `keep`."""
    if job.budget_tokens is None:
        return
    await budgets.correct(
        tx,
        job.provider_id,
        _shared(keep - job.budget_tokens, await _rows(tx, job)),
        usd_per_token=usd_per_token(job.usd_per_million_tokens),
        paced=False,
    )
    await batch_jobs.record_budget(tx, job.id, None)


async def count(tx: Tx, job: BatchJobRecord, provider: Provider) -> None:
    """Count a job that was just submitted, shared out among the datasets of its rows."""
    await give_back(tx, job, keep=job.stats["tokens"])
    rows = await _rows(tx, job)
    weights = list(rows.values())
    texts = shared_out(job.stats["texts"], weights)
    entries = {}
    for place, (dataset_id, some) in enumerate(_shared(job.stats["tokens"], rows).items()):
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


async def _rows(tx: Tx, job: BatchJobRecord) -> dict[UUID | None, int]:
    """Return the rows of a job by dataset."""
    return await batch_queue.datasets_of(tx, job.id) if job.job_type is JobType.EMBEDDING else {None: 1}


def _shared(tokens: int, rows: Mapping[UUID | None, int]) -> dict[UUID | None, int]:
    return dict(zip(rows, shared_out(tokens, list(rows.values())), strict=True))
