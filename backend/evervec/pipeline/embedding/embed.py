"""The embedding engine, one for every kind of row: rows are claimed and embedded until nothing is free to claim."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from uuid import UUID

from evervec.domain.spending import Reason
from evervec.errors import SpaceMismatchError
from evervec.pipeline.budget.allowance import closed
from evervec.pipeline.embedding.claimed_rows import ClaimedRows, EmbedCounts, Sent
from evervec.pipeline.leases import Lease
from evervec.pipeline.resources import Resources
from evervec.store.embeddings import rows
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.schema.embeddables import Embeddable

Progress = Callable[[int], None]
Claim = Callable[[Lease], Awaitable[list[ClaimedRow]]]
Until = Callable[[], bool]


TIME_SLICE_SECONDS = 10.0
"""Seconds that one dataset is worked on before the next one gets its turn."""


def never() -> bool:
    """Return False: work goes on until nothing is left."""
    return False


def within_time_slice(until: Until) -> Until:
    """Return a condition that holds as soon as `until` holds or `TIME_SLICE_SECONDS` are over."""
    ends = monotonic() + TIME_SLICE_SECONDS
    return lambda: until() or monotonic() >= ends


async def embed_rows(
    resources: Resources,
    embeddable: Embeddable,
    row_ids: Sequence[int],
    provider_id: UUID | None = None,
    *,
    sent: Sent | None = None,
    reason: Reason = Reason.LIVE,
) -> EmbedCounts:
    """Embed the given rows of a kind, as an `embed_*_batch_task` asks for.

    Rows that are embedded already, claimed by another worker, empty or deleted are skipped.
    """
    wanted = sorted(set(row_ids))
    left = list[int]()

    async def loop(parts: Iterator[list[int]]) -> EmbedCounts:
        total = EmbedCounts()
        for part in parts:

            async def claim(lease: Lease, part: list[int] = part) -> list[ClaimedRow]:
                claimed = await resources.database.with_retries(
                    lambda tx: rows.claim_ids(
                        tx, embeddable, part, limit=len(part), owner=lease.owner, lease=lease.seconds
                    )
                )
                left.extend(set(part) - {row.row_id for row in claimed})
                return claimed

            total.add(await _embed_claim(resources, provider_id, claim, sent, reason))
        return total

    size = resources.settings.embed_batch
    parts = _parts(wanted, size)
    total = await _two_at_once(lambda: loop(parts))
    if len(wanted) > size:
        # rows whose text the other claim was embedding: its vector can be copied now
        total.add(await loop(_parts(sorted(left), size)))
    total.skipped = len(wanted) - total.success - total.failed
    return total


async def embed_dataset(
    resources: Resources,
    dataset_id: UUID,
    *,
    provider_id: UUID | None = None,
    kind: int | None = None,
    batch: int | None = None,
    until: Until = never,
    progress: Progress | None = None,
    sent: Sent | None = None,
    reason: Reason = Reason.LIVE,
) -> EmbedCounts:
    """Embed the pending rows of a dataset until none is free to claim, or until `until`, asked before each claim, holds.

    Two claims are in flight: one waits for the provider while the other one uses the database.
    """
    size = batch or resources.settings.embed_batch

    async def claim(lease: Lease) -> list[ClaimedRow]:
        return await resources.database.with_retries(
            lambda tx: rows.claim_dataset(tx, dataset_id, kind=kind, limit=size, owner=lease.owner, lease=lease.seconds)
        )

    async def loop() -> EmbedCounts:
        total = EmbedCounts()
        while not until():
            counts = await _embed_claim(resources, provider_id, claim, sent, reason, dataset_id)
            if counts == EmbedCounts():
                break
            total.add(counts)
            if progress is not None:
                progress(counts.success + counts.failed)
            if counts.skipped and not counts.success:
                break
        return total

    return await _two_at_once(loop)


def _parts(row_ids: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(row_ids[start : start + size]) for start in range(0, len(row_ids), size))


async def _two_at_once(loop: Callable[[], Awaitable[EmbedCounts]]) -> EmbedCounts:
    """Run two loops at once: one waits for the provider while the other one uses the database."""
    total = EmbedCounts()
    # wait for both, so that no loop is left running when the other one fails
    for part in await asyncio.gather(loop(), loop(), return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        total.add(part)
    return total


async def _embed_claim(
    resources: Resources,
    provider_id: UUID | None,
    claim: Claim,
    sent: Sent | None,
    reason: Reason,
    dataset_id: UUID | None = None,
) -> EmbedCounts:
    """Claim rows once and embed them."""
    provider = await resources.provider(provider_id)
    if not provider.space.active:
        active = await resources.provider()
        raise SpaceMismatchError(provider=provider.name, wanted=provider.space, active=active.space)
    if await closed(resources.database, provider, dataset_id):
        return EmbedCounts()
    claimed = ClaimedRows(resources, provider, sent, reason=reason)
    async with claimed.admitted() as may_claim, claimed.lease.renewed(claimed.unfinished):
        if may_claim:
            await claimed.embed(await claim(claimed.lease))
    return claimed.counts
