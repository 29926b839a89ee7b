"""The janitor: background clean-up of deleted datasets and detached tables, and of documents that wait for their chunks."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from evervec import log
from evervec.domain.documents.chunking import CHUNKING, ChunkDraft
from evervec.errors import LeaseLostError
from evervec.pipeline import chunking
from evervec.pipeline.chunking import Chunker, DatasetGone, lock_dataset
from evervec.pipeline.embedding.embed import Until, never, within_time_slice
from evervec.pipeline.leases import held
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.removal import purge
from evervec.store import datasets, leases
from evervec.store.attached import changes
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import spaces, unchunked
from evervec.store.spaces.unchunked import UnchunkedDocument

logger = log.get("janitor")

LEASE = "janitor"

CHUNKED_DOCUMENTS = 50
PURGED_ROWS = 2000


async def clean_up(resources: Resources, until: Until = never) -> None:
    """Remove what deleted datasets and detached tables left, and chunk the documents that wait.

    One process does so at a time; others return at once.
    """
    if not await _is_needed(resources):  # looked at first, since a lease is written
        return
    try:
        async with held(resources.database, LEASE, resources.settings.lease_seconds) as alone:
            if alone is not None:
                await _remove_expired_leases(alone.database)
                await purge_deleted(alone.database, until)
                await _remove_abandoned_changes(alone.database, until)
                await purge(replace(resources, database=alone.database))
                await chunk_waiting(replace(resources, database=alone.database), until)
    except LeaseLostError as error:
        logger.warning("clean-up left to another process", error=str(error))


async def _is_needed(resources: Resources) -> bool:
    async with resources.database.read() as tx:
        left = await datasets.deleted(tx) or await spaces.dropped(tx)
        if left or await leases.has_expired(tx) or await changes.abandoned(tx):
            return True
    async with resources.database.read() as tx:
        return any(pending for _, _, pending in await datasets.pending_by_project(tx, CHUNKING))


async def _remove_expired_leases(database: Database) -> None:
    async with database.transaction() as tx:
        await leases.remove_expired(tx)


async def purge_deleted(database: Database, until: Until = never) -> int:
    """Remove the rows of deleted datasets with their vectors, a short transaction a batch; return how many rows."""
    async with database.read() as tx:
        deleted = await datasets.deleted(tx)
    total = 0
    for dataset_id in deleted:
        removed = 1
        while removed and not until():
            removed = await database.with_retries(partial(datasets.purge, dataset_id=dataset_id, limit=PURGED_ROWS))
            total += removed
    if total:
        logger.info("deleted datasets purged", rows=total)
    return total


async def _remove_abandoned_changes(database: Database, until: Until) -> None:
    async with database.read() as tx:
        abandoned = await changes.abandoned(tx)
    for source_id in abandoned:
        removed = 1
        while removed and not until():
            removed = await database.with_retries(partial(changes.clear, source_id=source_id, limit=PURGED_ROWS))


async def chunk_waiting(resources: Resources, until: Until = never) -> int:
    """Chunk the documents that were written as text, or chunked for another space or template; return how many.

    The smallest project comes first, so that none waits behind a large one.
    """
    async with resources.database.read() as tx:
        waiting = [one for one, _, pending in await datasets.pending_by_project(tx, CHUNKING) if pending]
        live = await datasets.live(tx)
    total = 0
    for project_id in waiting:
        for dataset in live:
            if dataset.project_id == project_id:
                total += await _chunk_dataset(resources, dataset, within_time_slice(until))
    return total


async def _chunk_dataset(resources: Resources, dataset: DatasetRef, until: Until) -> int:
    database, total = resources.database, 0
    while not until():
        async with database.read() as tx:
            read = await unchunked.in_dataset(tx, dataset.id, CHUNKING, limit=CHUNKED_DOCUMENTS)
        if not read:
            break
        chunker = await chunking.of_dataset(resources, dataset)
        chunked = await asyncio.to_thread(chunker.chunk, [one.document for one in read])
        pairs = list(zip(read, (chunks for _, chunks in chunked), strict=True))
        total += await _write(database, chunker, dataset.id, pairs)
    return total


async def _write(
    database: Database,
    chunker: Chunker,
    dataset_id: UUID,
    pairs: Sequence[tuple[UnchunkedDocument, Sequence[ChunkDraft]]],
) -> int:
    async def once(tx: Tx) -> int:
        await lock_dataset(tx, dataset_id)
        unchanged = await unchunked.lock_unchanged(tx, [one for one, _ in pairs])
        same = [(one.document, chunks) for one, chunks in pairs if one.id in unchanged]
        await chunker.write(tx, dataset_id, same)
        return len(same)

    try:
        return await database.with_retries(once)
    except DatasetGone:
        return 0
