"""Where the vectors of two spaces of a row live: four layouts, filled while the first space is searched by HNSW.

Run by `python -m scripts.bench.space_layouts`; its numbers are in docs/decisions/0022. Two sets of columns in one table
(`slots`), a record a space in one table (`records`), in a LIST partition a space (`partitions`), in a table a space (`tables`).
Vectors are narrow, and of the slots only some are written and dropped: each write of theirs goes through the HNSW graph of the
space that is searched.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256

import asyncpg
import numpy as np
from rich.console import Console
from rich.table import Table

from evervec.store.embeddings import vector_wire
from scripts.bench import clock
from scripts.bench.stack import Bench, open_bench
from scripts.bench.vectors import Rows

NOW, NEXT = 48, 64
BATCH, FILL_BATCH, REPEATS = 256, 2_000, 9
DATASET = "'6f1c9d7e-0000-4000-8000-000000000001'::uuid"
RECORD = """
    vector_id bigint NOT NULL, space smallint NOT NULL, dataset_id uuid NOT NULL, content_hash bytea NOT NULL,
    embedding vector, embedded_hash bytea, changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    pending_id bigint GENERATED ALWAYS AS (CASE WHEN embedded_hash IS DISTINCT FROM content_hash THEN vector_id END) STORED
"""
INDEXES = """
    CREATE INDEX ON {table} (dataset_id, pending_id) WHERE pending_id IS NOT NULL;
    CREATE INDEX ON {table} (dataset_id, changed_xid, vector_id) WHERE embedding IS NOT NULL;
    CREATE INDEX ON {table} (embedded_hash) WHERE embedded_hash IS NOT NULL;
"""
HNSW = "CREATE INDEX {name} ON {table} USING hnsw ((embedding::halfvec({width})) halfvec_cosine_ops) {where}"
WRITE = """
    UPDATE {table} e SET embedding = v.vector, embedded_hash = v.hash, changed_xid = pg_current_xact_id()
    FROM unnest($1::bigint[], $2::bytea[], $3::vector[]) AS v (id, hash, vector)
    WHERE e.vector_id = v.id AND e.vector_id = ANY($1) AND e.content_hash = v.hash {space}
"""
CLAIM = """
    SELECT vector_id FROM {table} WHERE dataset_id = {dataset} AND pending_id IS NOT NULL {space}
    ORDER BY pending_id LIMIT 256 FOR UPDATE SKIP LOCKED
"""


@dataclass(frozen=True)
class Layout:
    """The statements of one layout; {width} and {space} are those of the space that is written or read."""

    name: str
    make: str
    fill: tuple[str, ...]
    hnsw: str
    write: dict[int, str]
    claim: str
    drop: tuple[str, ...]
    search: str
    size: str


def _filled(table: str, space: int) -> str:
    return (
        f"INSERT INTO {table} (vector_id, space, dataset_id, content_hash) "
        f"SELECT id, {space}, {DATASET}, sha256(int8send(id)) FROM generate_series(1, $1::bigint) id"
    )


def layouts() -> list[Layout]:
    """Return the four."""
    slots = Layout(
        "slots",
        """
        CREATE TABLE slots (vector_id bigint PRIMARY KEY, dataset_id uuid NOT NULL, content_hash bytea NOT NULL,
            embedding vector, embedded_hash bytea, changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            embedding_2 vector, embedded_hash_2 bytea, changed_xid_2 xid8 NOT NULL DEFAULT pg_current_xact_id(),
            pending_id bigint GENERATED ALWAYS AS (CASE WHEN embedded_hash IS DISTINCT FROM content_hash THEN vector_id END) STORED,
            pending_id_2 bigint GENERATED ALWAYS AS (CASE WHEN embedded_hash_2 IS DISTINCT FROM content_hash THEN vector_id END) STORED);
        CREATE INDEX ON slots (dataset_id, pending_id_2) WHERE pending_id_2 IS NOT NULL;
        CREATE INDEX ON slots (dataset_id, changed_xid_2, vector_id) WHERE embedding_2 IS NOT NULL;
        CREATE INDEX ON slots (embedded_hash_2) WHERE embedded_hash_2 IS NOT NULL;
        """
        + INDEXES.format(table="slots"),
        (
            f"INSERT INTO slots (vector_id, dataset_id, content_hash) SELECT id, {DATASET}, sha256(int8send(id)) "
            "FROM generate_series(1, $1::bigint) id",
        ),
        HNSW.format(name="slots_hnsw", table="slots", width=NOW, where=""),
        {
            NOW: WRITE.format(table="slots", space=""),
            NEXT: WRITE.format(table="slots", space="")
            .replace("SET embedding =", "SET embedding_2 =")
            .replace("embedded_hash =", "embedded_hash_2 =")
            .replace("changed_xid =", "changed_xid_2 ="),
        },
        CLAIM.format(table="slots", dataset=DATASET, space="").replace("pending_id", "pending_id_2"),
        ("UPDATE slots SET embedding_2 = NULL, embedded_hash_2 = NULL WHERE vector_id <= {written}",),
        f"SELECT vector_id FROM slots ORDER BY embedding::halfvec({NOW}) <=> $1::vector::halfvec({NOW}) LIMIT 10",
        "SELECT pg_total_relation_size('slots')",
    )
    one = Layout(
        "records",
        f"CREATE TABLE records ({RECORD}, PRIMARY KEY (space, vector_id));" + INDEXES.format(table="records"),
        (_filled("records", 1), _filled("records", 2)),
        HNSW.format(name="records_hnsw", table="records", width=NOW, where="WHERE space = 1"),
        {width: WRITE.format(table="records", space=f"AND space = {at}") for at, width in ((1, NOW), (2, NEXT))},
        CLAIM.format(table="records", dataset=DATASET, space="AND space = 2"),
        ("DELETE FROM records WHERE space = 2",),
        f"SELECT vector_id FROM records WHERE space = 1 ORDER BY embedding::halfvec({NOW}) <=> $1::vector::halfvec({NOW}) LIMIT 10",
        "SELECT pg_total_relation_size('records')",
    )
    parts = Layout(
        "partitions",
        f"CREATE TABLE partitions ({RECORD}, PRIMARY KEY (space, vector_id)) PARTITION BY LIST (space);"
        "CREATE TABLE partitions_1 PARTITION OF partitions FOR VALUES IN (1);"
        "CREATE TABLE partitions_2 PARTITION OF partitions FOR VALUES IN (2);" + INDEXES.format(table="partitions"),
        (_filled("partitions", 1), _filled("partitions", 2)),
        HNSW.format(name="partitions_hnsw", table="partitions_1", width=NOW, where=""),
        {width: WRITE.format(table="partitions", space=f"AND space = {at}") for at, width in ((1, NOW), (2, NEXT))},
        CLAIM.format(table="partitions", dataset=DATASET, space="AND space = 2"),
        ("ALTER TABLE partitions DETACH PARTITION partitions_2", "DROP TABLE partitions_2"),
        f"SELECT vector_id FROM partitions WHERE space = 1 ORDER BY embedding::halfvec({NOW}) <=> $1::vector::halfvec({NOW}) LIMIT 10",
        "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('partitions')",
    )
    tables = Layout(
        "tables",
        "".join(
            f"CREATE TABLE tables_{at} ({RECORD}, PRIMARY KEY (vector_id));" + INDEXES.format(table=f"tables_{at}")
            for at in (1, 2)
        ),
        (_filled("tables_1", 1), _filled("tables_2", 2)),
        HNSW.format(name="tables_hnsw", table="tables_1", width=NOW, where=""),
        {width: WRITE.format(table=f"tables_{at}", space="") for at, width in ((1, NOW), (2, NEXT))},
        CLAIM.format(table="tables_2", dataset=DATASET, space=""),
        ("DROP TABLE tables_2",),
        f"SELECT vector_id FROM tables_1 ORDER BY embedding::halfvec({NOW}) <=> $1::vector::halfvec({NOW}) LIMIT 10",
        "SELECT pg_total_relation_size('tables_1') + coalesce(pg_total_relation_size(to_regclass('tables_2')), 0)",
    )
    return [slots, one, parts, tables]


@dataclass
class Measured:
    """What one layout takes. `drop_seconds` of slots is that of the rows that were written, times the part that these are of all."""

    layout: str
    next_rows_per_second: float = 0.0
    live_rows_per_second: float = 0.0
    claim_milliseconds: float = 0.0
    search_milliseconds: float = 0.0
    search_uses_hnsw: bool = False
    megabytes: float = 0.0
    drop_seconds: float = 0.0
    megabytes_after_drop: float = 0.0


@asynccontextmanager
async def connected(bench: Bench) -> AsyncIterator[asyncpg.Connection]:
    """Open a database of its own."""
    async with bench.resources("layouts") as resources, resources.database.autocommit() as connection:
        await connection.execute("SET search_path = public, evervec")
        await connection.execute("SET maintenance_work_mem = '1GB'")
        await connection.execute("SET statement_timeout = 0")
        yield connection


def _random(count: int, width: int, seed: int = 0) -> Rows:
    drawn = np.random.default_rng((width, seed)).standard_normal((count, width), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


async def measure(connection: asyncpg.Connection, layout: Layout, rows: int, written: int) -> Measured:
    """Fill one layout, then write, claim, search and drop."""
    found = Measured(layout.name)
    await _prepare(connection, layout, rows)
    found.next_rows_per_second = await _rate(connection, layout, NEXT, written)
    found.live_rows_per_second = await _rate(connection, layout, NOW, 8 * BATCH)
    found.claim_milliseconds = await _milliseconds(connection, layout.claim)
    query = vector_wire.pack_one(_random(1, NOW)[0])
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {layout.search}", query))
    found.search_uses_hnsw = "hnsw" in plan
    found.search_milliseconds = await _milliseconds(connection, layout.search, query)
    if layout.name != "slots":  # it would take as long as another graph of all of them
        await _fill(connection, layout, NEXT, range(written + 1, rows + 1))
    found.megabytes = await _size(connection, layout)
    for statement in layout.drop:
        found.drop_seconds += await clock.seconds(connection.execute(statement.format(written=written)))
    if layout.name == "slots":
        found.drop_seconds *= rows / written
    if layout.name in ("slots", "records"):  # the others are gone with their files
        await connection.execute("VACUUM")
    found.megabytes_after_drop = await _size(connection, layout)
    return found


async def _prepare(connection: asyncpg.Connection, layout: Layout, rows: int) -> None:
    await connection.execute(layout.make)
    for statement in layout.fill:
        await connection.execute(statement, rows)
    await _fill(connection, layout, NOW, range(1, rows + 1))
    await connection.execute("VACUUM ANALYZE")
    await connection.execute(layout.hnsw)
    await connection.execute("CHECKPOINT")


async def _fill(connection: asyncpg.Connection, layout: Layout, width: int, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), FILL_BATCH):
        await _write(connection, layout, width, ids[start : start + FILL_BATCH])


async def _rate(connection: asyncpg.Connection, layout: Layout, width: int, count: int) -> float:
    """Return the rows a second of the median batch."""
    taken = [
        await clock.seconds(_write(connection, layout, width, range(start + 1, start + 1 + BATCH)))
        for start in range(0, count, BATCH)
    ]
    return BATCH / statistics.median(taken)


async def _write(connection: asyncpg.Connection, layout: Layout, width: int, ids: Sequence[int]) -> None:
    hashes = [sha256(one.to_bytes(8, "big")).digest() for one in ids]
    made = vector_wire.pack(_random(len(ids), width, ids[0]))
    await connection.execute(layout.write[width], list(ids), hashes, made)


async def _milliseconds(connection: asyncpg.Connection, sql: str, *values: object) -> float:
    taken = [await clock.seconds(connection.fetch(sql, *values)) for _ in range(REPEATS)]
    return 1000 * statistics.median(taken)


async def _size(connection: asyncpg.Connection, layout: Layout) -> float:
    return int(await connection.fetchval(layout.size)) / 1e6


async def main(rows: int, written: int) -> None:
    """Measure all, print a table on stderr and JSON on stdout."""
    found: list[Measured] = []
    async with open_bench(quick=False) as bench, connected(bench) as connection:
        for layout in layouts():
            sys.stderr.write(f"{layout.name} …\n")
            found.append(await measure(connection, layout, rows, written))
            sys.stderr.write(json.dumps(asdict(found[-1])) + "\n")  # it takes minutes, and may be stopped
    table = Table(*asdict(found[0]), box=None)
    for one in found:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in asdict(one).values()))
    Console(stderr=True, width=200).print(table)
    sys.stdout.write(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--written", type=int, default=5_120)
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.written))
