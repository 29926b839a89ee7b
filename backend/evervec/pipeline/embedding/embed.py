"""The embedding engine, one for every kind of row: rows are claimed and embedded until nothing is free to claim."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from uuid import UUID

from evervec.domain.spending import Reason
from evervec.pipeline.budget.allowance import closed
from evervec.pipeline.embedding.claimed_rows import ClaimedRows, EmbedCounts, ProviderPaused, Sent
from evervec.pipeline.leases import Lease
from evervec.pipeline.resources import Resources
from evervec.store import breakers, datasets
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.schema.embeddables import Embeddable
from evervec.store.spaces import spaces
from evervec.store.words import filling

Progress = Callable[[int], None]
Claim = Callable[[Tx, Lease], Awaitable[list[ClaimedRow]]]
Until = Callable[[], bool]


TIME_SLICE_SECONDS = 10.0
"""Seconds that one dataset is worked on before the next one gets its turn."""


def never() -> bool:
    """Return False: work goes on until nothing is left."""
    return False


def within_time_slice(until: Until, seconds: float = TIME_SLICE_SECONDS) -> Until:
    """Return a condition that holds as soon as `until` holds or so many seconds are over."""
    ends = monotonic() + seconds
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
    async with resources.database.read() as tx:
        by_dataset = await rows.datasets_of(tx, embeddable, wanted)
        known = [(await datasets.by_id(tx, dataset_id), ids) for dataset_id, ids in by_dataset.items()]
    total = EmbedCounts()
    for dataset, ids in known:
        if dataset is not None:
            total.add(await _embed_rows_of(resources, dataset, embeddable, ids, provider_id, sent, reason))
    total.skipped = len(wanted) - total.success - total.failed
    return total


async def _embed_rows_of(
    resources: Resources,
    dataset: DatasetRef,
    embeddable: Embeddable,
    wanted: Sequence[int],
    provider_id: UUID | None,
    sent: Sent | None,
    reason: Reason,
) -> EmbedCounts:
    left = set[int]()

    async def loop(parts: Iterator[list[int]]) -> EmbedCounts:
        total = EmbedCounts()
        for part in parts:

            async def claim(tx: Tx, lease: Lease, part: list[int] = part) -> list[ClaimedRow]:
                claimed = await rows.claim_ids(
                    tx,
                    dataset.id,
                    embeddable,
                    part,
                    space_id=dataset.space_id,
                    limit=len(part),
                    owner=lease.owner,
                    lease=lease.seconds,
                )
                left.update(set(part) - {row.row_id for row in claimed})
                return claimed

            total.add(await _embed_claim(resources, dataset, provider_id, claim, sent, reason))
        return total

    size = resources.settings.embed_batch
    parts = _parts(wanted, size)
    total = await _two_at_once(lambda: loop(parts))
    if len(wanted) > size:
        # rows whose text the other claim was embedding: its vector can be copied now
        total.add(await loop(_parts(sorted(left), size)))
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
    space_id: int | None = None,
    reason: Reason = Reason.LIVE,
) -> EmbedCounts:
    """Embed the pending rows of a dataset until none is free to claim, or until `until`, asked before each claim, holds.

    `space_id` is another space than the one that is searched. Two claims are in flight: one waits for the provider while
    the other one uses the database. Then the words of its rows are made that are due.
    """
    size = batch or resources.settings.embed_batch
    async with resources.database.read() as tx:
        dataset = await datasets.by_id(tx, dataset_id)
        beside = [] if space_id is None else await spaces.others(tx, [dataset_id])
    if dataset is None:  # deleted meanwhile
        return EmbedCounts()
    into = dataset
    if space_id is not None:
        chosen = next((one.provider_id for one in beside if one.space_id == space_id), None)
        into = replace(dataset, space_id=space_id, provider_id=chosen)

    async def claim(tx: Tx, lease: Lease) -> list[ClaimedRow]:
        return await rows.claim_dataset(
            tx, dataset_id, space_id=into.space_id, kind=kind, limit=size, owner=lease.owner, lease=lease.seconds
        )

    async def loop() -> EmbedCounts:
        total = EmbedCounts()
        while not until():
            counts = await _embed_claim(resources, into, provider_id, claim, sent, reason)
            if counts == EmbedCounts():
                break
            total.add(counts)
            if progress is not None:
                progress(counts.success + counts.failed)
            if counts.skipped and not counts.success:
                break
        return total

    total = await _two_at_once(loop)
    # last, so that no row waits for its vector because of the words of others
    while space_id is None and not until() and await filling.fill(resources.database, dataset_id):
        continue
    return total


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
    dataset: DatasetRef,
    provider_id: UUID | None,
    claim: Claim,
    sent: Sent | None,
    reason: Reason,
) -> EmbedCounts:
    """Claim rows once and embed them."""
    provider = await resources.provider_of(dataset, provider_id)
    if await closed(resources.database, provider, dataset.id):
        return EmbedCounts()
    claimed = ClaimedRows(resources, provider, sent, reason=reason)

    async def once(tx: Tx) -> list[ClaimedRow]:
        found = await claim(tx, claimed.lease)
        if found and await breakers.is_open(tx, provider.endpoint):
            raise ProviderPaused  # by another worker, that left these rows, since the provider was read
        return found

    async with claimed.admitted() as may_claim, claimed.lease.renewed(claimed.unfinished):
        if may_claim:
            with suppress(ProviderPaused):  # the claim is rolled back
                await claimed.embed(await resources.database.with_retries(once))
    return claimed.counts
