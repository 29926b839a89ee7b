"""Our way of vectors over the wire against pgvector-python's asyncpg codec, in CPU time of the client (docs/decisions/0015)."""

from collections.abc import Awaitable, Callable, Mapping
from time import process_time
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.asyncpg import register_vector

from evervec.store.embeddings import vector_wire
from scripts.bench import clock
from scripts.bench.report import Line, at_least, rate
from scripts.bench.stack import Bench

DIMENSIONS, ROUNDS = 256, 9
FILL = "INSERT INTO wire SELECT v.vector FROM unnest($1::vector[]) AS v (vector)"


async def run(bench: Bench) -> list[Line]:
    """20,000 vectors written as one array parameter, and read as rows into one array."""
    async with bench.resources("wire") as resources:
        url = resources.database.url
        count = bench.rows(20_000)
        vectors = np.random.default_rng(1).standard_normal((count, DIMENSIONS), np.float32)
        ours, theirs = await asyncpg.connect(url), await asyncpg.connect(url)
        await ours.execute(f"CREATE TABLE wire (embedding vector({DIMENSIONS}))")
        await ours.set_type_codec("vector", schema="public", encoder=bytes, decoder=bytes, format="binary")
        await register_vector(theirs)
        written = await clock.rounds(ROUNDS, {
            "ours": _timed(lambda: ours.execute("SELECT $1::vector[] IS NULL", vector_wire.pack(vectors))),
            "theirs": _timed(lambda: theirs.execute("SELECT $1::vector[] IS NULL", [Vector(v) for v in vectors])),
        })  # fmt: skip
        await ours.execute(FILL, vector_wire.pack(vectors))
        read = await clock.rounds(ROUNDS, {
            "ours": _timed(lambda: _read(ours)),
            "theirs": _timed(lambda: _read_theirs(theirs)),
        })  # fmt: skip
        await ours.close()
        await theirs.close()
    return [_line("written", count, written), _line("read", count, read)]


async def _read(connection: Any) -> NDArray[np.float32]:
    rows = await connection.fetch("SELECT embedding FROM wire")
    return vector_wire.unpack([row["embedding"] for row in rows], DIMENSIONS)


async def _read_theirs(connection: Any) -> NDArray[np.float32]:
    rows = await connection.fetch("SELECT embedding FROM wire")
    return np.stack([row["embedding"].to_numpy() for row in rows])


def _timed(work: Callable[[], Awaitable[object]]) -> clock.Timed:
    async def taken() -> float:
        started = process_time()
        await work()
        return process_time() - started

    return taken


def _line(name: str, count: int, taken: Mapping[str, list[float]]) -> Line:
    what = f"{DIMENSIONS} dimensions, {name}"
    return rate(
        what, count, taken["ours"], taken["theirs"], at_least(1.0), "rows a second of CPU, against pgvector-python"
    )
