"""Finding what waits in a large table: the count of pending rows, and a claim of a hundred of them."""

import statistics
from collections.abc import Awaitable, Callable
from time import perf_counter
from uuid import uuid4

from evervec.pipeline.resources import Resources
from evervec.store import monitor
from evervec.store.database.session import Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.schema import triggers
from scripts.bench.report import Line, below
from scripts.bench.stack import Bench, dataset, without_hnsw

PENDING, CLAIMED, BOUND_MS, REPEATS = 1000, 100, 5.0, 50

# The messages and their records are made without the triggers, which would only make the preparation longer.
FILL = (
    "ALTER TABLE messages DISABLE TRIGGER USER",
    """
    INSERT INTO messages (dataset_id, chat, external_id, author, content)
    SELECT '{dataset}', 'bench', n, 'ada', 'message number ' || n FROM generate_series(1, {count}) n
    """,
    "ALTER TABLE messages ENABLE TRIGGER USER",
    *(
        f"ALTER TABLE messages ENABLE ALWAYS TRIGGER {trigger.name}"
        for trigger in triggers.declared()
        if trigger.table == "messages"
    ),
    """
    INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, embedded_at)
    SELECT 1, m.id, m.dataset_id, h.hash, v.vector, CASE WHEN NOT v.waits THEN h.hash END,
           CASE WHEN NOT v.waits THEN {space} END, CASE WHEN NOT v.waits THEN now() END
    FROM messages m
    CROSS JOIN LATERAL (SELECT sha256(convert_to(m.content, 'UTF8')) AS hash) h
    CROSS JOIN LATERAL (SELECT m.id % {every} = 0 AS waits, CASE WHEN m.id % {every} <> 0 THEN '{vector}'::vector END AS vector) v
    """,
)


async def run(bench: Bench) -> list[Line]:
    """1,000,000 rows, 1,000 of them pending and spread over the whole table."""
    async with bench.resources("pending") as resources:
        await without_hnsw(resources)
        target = await dataset(resources)
        count = bench.rows(1_000_000)
        await _fill(resources, target, count)
        timed = {
            "count of a dataset": lambda tx: rows.pending_by_kind(tx, target.id, target.space_id),
            "count of everything": lambda tx: monitor.pending(tx, None),
            f"claim of {CLAIMED} with their texts": lambda tx: _claim(tx, target),
        }
        return [await _line(resources, f"{name}, {count:,} rows", work) for name, work in timed.items()]


async def _fill(resources: Resources, target: DatasetRef, count: int) -> None:
    space = (await resources.provider()).space
    vector = "[" + ",".join(["0.0625"] * space.dimensions) + "]"
    values = {"dataset": target.id, "count": count, "space": space.id, "every": count // PENDING, "vector": vector}
    async with resources.database.transaction() as tx:
        for statement in FILL:
            await tx.execute(statement.format(**values))
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE")
    async with resources.database.read() as tx:
        if await rows.pending_by_kind(tx, target.id, target.space_id) != {1: PENDING}:
            raise RuntimeError("the table is not filled as it should be")


async def _claim(tx: Tx, target: DatasetRef) -> None:
    claimed = await rows.claim_dataset(tx, target.id, space_id=target.space_id, limit=CLAIMED, owner=uuid4(), lease=60)
    if len(claimed) != CLAIMED:
        raise RuntimeError(f"{len(claimed)} of {CLAIMED} rows were claimed")


async def _line(resources: Resources, name: str, work: Callable[[Tx], Awaitable[object]]) -> Line:
    taken = [await _milliseconds(resources, work) for _ in range(REPEATS)]
    median = statistics.median(taken)
    return Line(name, median, BOUND_MS, "ms", median / BOUND_MS, below(1), f"slowest of {REPEATS}: {max(taken):.1f} ms")


async def _milliseconds(resources: Resources, work: Callable[[Tx], Awaitable[object]]) -> float:
    """One call and its commit; the leases are handed back afterwards."""
    started = perf_counter()
    async with resources.database.transaction() as tx:
        await work(tx)
    taken = (perf_counter() - started) * 1000
    async with resources.database.transaction() as tx:
        await tx.execute("DELETE FROM embed_work")
    return taken
