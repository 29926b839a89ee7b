"""Engines that find the nearest vectors, behind one question: ours, pgvector, and hnswlib and usearch if they are there."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import faiss
import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.build import build
from evervec.mirror.segment import Segment
from evervec.settings import Settings
from evervec.stack.stack import open_stack
from scripts.bench.vectors import DIMENSIONS, Made, Rows

K = 10
THREADS = 2
EFS = (16, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1000)
MISSING = "hnswlib and usearch were left out: pip install -r requirements-rivals.lock"

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Engine:
    """One that has been filled: `ask` answers ids to one query `(dim,)`, `effort` takes the i-th step of `efforts`."""

    name: str
    seconds: float
    memory: int
    file: int
    efforts: Sequence[float]
    effort: Callable[[float], Awaitable[None]]
    ask: Callable[[Rows], Awaitable[Ids]]
    plain: Callable[[Rows], Ids] | None = None


async def ours(made: Made, folder: Path) -> tuple[Engine, Segment]:
    """Return the main segment, tuned when it was built; its efforts are multiples of the lists it chose."""
    started = perf_counter()
    segment = build(vectors(made.rows), IDENTITY, Watermark(1, 1), target=0.99, threads=THREADS)
    seconds = perf_counter() - started
    searched = [segment]

    async def effort(times: float) -> None:
        tuning = segment.tuning
        searched[0] = replace(segment, tuning=replace(tuning, nprobe=max(1, round((tuning.nprobe or 1) * times))))

    def plain(query: Rows) -> Ids:
        now = searched[0]
        found: Ids = now.ids[now.search(query[None], K).positions[0]]
        return found

    file = folder / "ours.faiss"
    faiss.write_index(segment.index, str(file))
    held = file.stat().st_size + segment.ids.nbytes + segment.versions.nbytes + segment.kinds.nbytes
    return Engine(
        "ours",
        seconds,
        segment.memory,
        held,
        (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3),
        effort,
        _awaited(plain),
        plain,
    ), segment


IDENTITY = DatabaseIdentity("bench", 1, 1, 1, DIMENSIONS, "bench")


def vectors(rows: Rows) -> FeedVectors:
    """Rows as the feed brings them; the id is the row."""
    n = len(rows)
    return FeedVectors(np.arange(n), np.ones(n, np.int64), np.ones(n, np.int16), rows)


def libraries() -> bool:
    """Whether both libraries are there."""
    return find_spec("hnswlib") is not None and find_spec("usearch") is not None


def hnswlib(made: Made, folder: Path) -> Engine:
    """M 16, ef_construction 64, as it is compared everywhere."""
    import hnswlib as library

    started = perf_counter()
    index = library.Index("ip", DIMENSIONS)
    index.init_index(len(made.rows), M=16, ef_construction=64, random_seed=1)
    index.add_items(made.rows, np.arange(len(made.rows)), num_threads=THREADS)
    seconds = perf_counter() - started
    index.set_num_threads(1)
    file = folder / "hnswlib"
    index.save_index(str(file))

    async def effort(ef: float) -> None:
        index.set_ef(int(ef))

    def plain(query: Rows) -> Ids:
        found: Ids = index.knn_query(query, K, num_threads=1)[0][0].astype(np.int64)
        return found

    return Engine("hnswlib", seconds, index.index_file_size(), file.stat().st_size, EFS, effort, _awaited(plain), plain)


def usearch(made: Made, folder: Path) -> Engine:
    """Half precision, connectivity 16."""
    from usearch.index import Index

    started = perf_counter()
    index = Index(ndim=DIMENSIONS, metric="ip", dtype="f16", connectivity=16, expansion_add=64)
    index.add(np.arange(len(made.rows)), made.rows, threads=THREADS)
    seconds = perf_counter() - started
    file = folder / "usearch"
    index.save(str(file))

    async def effort(ef: float) -> None:
        index.expansion_search = int(ef)

    def plain(query: Rows) -> Ids:
        return np.asarray(index.search(query, K, threads=1).keys, np.int64)

    return Engine("usearch", seconds, index.memory_usage, file.stat().st_size, EFS, effort, _awaited(plain), plain)


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[asyncpg.Connection]:
    """Start a PostgreSQL with room for the whole index in its buffers; yield one connection to it."""
    settings = Settings(home=home, database_url=None, nats_url=None, nats_port=None)
    async with open_stack(settings) as stack:
        await _run(stack.urls.database_url, "ALTER SYSTEM SET shared_buffers = '2GB'")
        await _run(stack.urls.database_url, "ALTER SYSTEM SET maintenance_work_mem = '2GB'")
    async with open_stack(settings) as stack:
        connection = await asyncpg.connect(stack.urls.database_url)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await connection.set_type_codec("halfvec", schema="public", format="binary", encoder=bytes, decoder=bytes)
        for setting in ("plan_cache_mode = force_generic_plan", "jit = off", "max_parallel_maintenance_workers = 1"):
            await connection.execute(f"SET {setting}")
        yield connection
        await connection.close()


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def pgvector(connection: asyncpg.Connection, made: Made, masks: dict[str, NDArray[np.bool_]]) -> Engine:
    """HNSW on halfvec, m 16, ef_construction 64; each mask becomes a column, so that it can be filtered by."""
    columns = "".join(f", {name} boolean" for name in masks)
    await connection.execute(
        f"DROP TABLE IF EXISTS items; CREATE TABLE items (id int, e halfvec({DIMENSIONS}){columns})"
    )
    await connection.execute("ALTER TABLE items ALTER e SET STORAGE plain")
    await connection.copy_to_table("items", source=_copied(made.rows, list(masks.values())), format="binary")
    started = perf_counter()
    await connection.execute("CREATE INDEX ON items USING hnsw (e halfvec_ip_ops) WITH (m = 16, ef_construction = 64)")
    seconds = perf_counter() - started
    for name in masks:
        await connection.execute(f"CREATE INDEX ON items (id) WHERE {name}")
    await connection.execute("VACUUM ANALYZE items")
    size = await connection.fetchval("SELECT pg_relation_size('items_e_idx')")
    await connection.execute("SET enable_seqscan = off")
    nearest = await connection.prepare(f"SELECT id FROM items ORDER BY e <#> $1 LIMIT {K}")

    async def effort(ef: float) -> None:
        await connection.execute(f"SET hnsw.ef_search = {int(ef)}")

    async def ask(query: Rows) -> Ids:
        return np.fromiter((row[0] for row in await nearest.fetch(half(query))), np.int64)

    return Engine("pgvector", seconds, size, size, EFS, effort, ask)


def half(query: Rows) -> bytes:
    """Return a vector as PostgreSQL sends a halfvec."""
    return struct.pack(">hh", len(query), 0) + query.astype(">f2").tobytes()


def _copied(rows: Rows, masks: list[NDArray[np.bool_]]) -> Any:
    width = rows.shape[1]
    flags = [part for n in range(len(masks)) for part in ((f"l{n}", ">i4"), (f"m{n}", "u1"))]
    vector = [("dim", ">i2"), ("zero", ">i2"), ("vector", ">f2", (width,))]
    record = np.dtype([("fields", ">i2"), ("li", ">i4"), ("id", ">i4"), ("lv", ">i4"), *vector, *flags])

    async def parts() -> AsyncIterator[bytes]:
        yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
        for start in range(0, len(rows), 20_000):
            taken = rows[start : start + 20_000]
            block = np.zeros(len(taken), record)
            block["fields"], block["li"], block["lv"], block["dim"] = 2 + len(masks), 4, 4 + 2 * width, width
            block["id"], block["vector"] = np.arange(start, start + len(taken)), taken
            for n, mask in enumerate(masks):
                block[f"l{n}"], block[f"m{n}"] = 1, mask[start : start + len(taken)]
            yield block.tobytes()
        yield b"\xff\xff"

    return parts()


def _awaited(plain: Callable[[Rows], Ids]) -> Callable[[Rows], Awaitable[Ids]]:
    async def ask(query: Rows) -> Ids:
        return plain(query)

    return ask
