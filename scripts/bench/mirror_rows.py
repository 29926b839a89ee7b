"""Rows for the benchmarks of the mirror: vectors put straight into `embeddings`, and a process that follows them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import numpy as np
from numpy.typing import NDArray

from evervec.pipeline.mirrors.follower import follow
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vector_wire
from scripts.bench.stack import default_space

Rows = NDArray[np.float32]

COLUMNS = ["kind", "row_id", "dataset_id", "content_hash", "embedding", "embedded_hash", "space_id", "embedded_at"]
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
SLICE = 10_000
PATIENCE = 300.0


async def space(resources: Resources, dimensions: int) -> int:
    """Make a space of that width without HNSW indexes, for datasets that are made afterwards; return its id."""
    return (await default_space(resources, dimensions)).id


async def fill(resources: Resources, target: DatasetRef, space_id: int, vectors: Rows, *, first: int = 0) -> None:
    """One record for each vector `(n, dim)`, row ids from `first` on, by binary COPY; there are no messages behind them."""
    connection = await asyncpg.connect(resources.database.url)
    try:
        await connection.copy_to_table(
            "embeddings", source=_pieces(target.id, space_id, vectors, first), columns=COLUMNS, format="binary"
        )
    finally:
        await connection.close()


async def settled(resources: Resources) -> None:
    """Vacuumed and on disk: what was just written does not slow down what is measured."""
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE embeddings")
        await connection.execute("CHECKPOINT")


async def _pieces(dataset_id: UUID, space_id: int, vectors: Rows, first: int) -> AsyncIterator[bytes]:
    """Yield the rows in PostgreSQL's binary COPY format: the length of each field, and the field, all big-endian."""
    row = _row(vectors.shape[1])
    yield HEADER
    for start in range(0, len(vectors), SLICE):
        part = vectors[start : start + SLICE]
        rows = np.zeros(len(part), row)
        numbers = np.arange(first + start, first + start + len(part))
        rows["fields"], rows["kind"], rows["row_id"], rows["space_id"] = len(COLUMNS), 1, numbers, space_id
        rows["dataset_id"] = np.void(dataset_id.bytes)
        rows["dimensions"], rows["vector"] = vectors.shape[1], part
        rows["hash"]["number"] = rows["embedded"]["number"] = numbers
        for name, size in _sizes(vectors.shape[1]).items():
            rows[f"{name}_bytes"] = size
        yield rows.tobytes()
    yield TRAILER


def _sizes(width: int) -> dict[str, int]:
    return {
        "kind": 2,
        "row_id": 8,
        "dataset_id": 16,
        "hash": 32,
        "vector": 4 + 4 * width,
        "embedded": 32,
        "space_id": 4,
        "embedded_at": 8,
    }


def _row(width: int) -> np.dtype[np.void]:
    digest = np.dtype([("number", ">i8"), ("rest", "V24")])
    return np.dtype(
        [
            ("fields", ">i2"),
            *(("kind_bytes", ">i4"), ("kind", ">i2")),
            *(("row_id_bytes", ">i4"), ("row_id", ">i8")),
            *(("dataset_id_bytes", ">i4"), ("dataset_id", "V16")),
            *(("hash_bytes", ">i4"), ("hash", digest)),
            *(("vector_bytes", ">i4"), *vector_wire.fields(width)),
            *(("embedded_bytes", ">i4"), ("embedded", digest)),
            *(("space_id_bytes", ">i4"), ("space_id", ">i4")),
            *(("embedded_at_bytes", ">i4"), ("embedded_at", ">i8")),
        ]
    )


@asynccontextmanager
async def following(resources: Resources) -> AsyncIterator[Mirrors]:
    """Follow the feed with this process while inside, as a worker does."""
    finish = asyncio.Event()
    assert isinstance(resources.broker, JetStreamBroker)
    task = asyncio.create_task(follow(resources.mirrors, resources.doorbell, finish))
    try:
        yield resources.mirrors
    finally:
        finish.set()
        await task


async def ready(mirrors: Mirrors, *wanted: DatasetRef) -> None:
    """Wait until these mirrors are searched and were checked. Raises `TimeoutError` after five minutes."""
    await until(lambda: all(is_ready(mirrors, dataset) for dataset in wanted), PATIENCE, every=0.002)


async def until(holds: Callable[[], bool], seconds: float, *, every: float) -> None:
    """Wait for something to hold, looking again and again. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # what is waited for rings no doorbell
            await asyncio.sleep(every)


def is_ready(mirrors: Mirrors, dataset: DatasetRef) -> bool:
    """Whether a mirror is searched and was checked, which its start ends with."""
    mirror = mirrors.mirror(dataset)
    return mirror.index is not None and mirror.last_check is not None and mirror.last_check.in_sync
