"""What Evervec's triggers cost those who write: COPY of new messages, and updates that have nothing to do with text."""

from collections.abc import Sequence
from functools import partial

from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings.hnsw import build_indexes
from scripts.bench import clock, texts
from scripts.bench.report import Line, at_least, at_most, rate
from scripts.bench.stack import Bench, copy_messages, dataset, empty

EMBEDDED = """
UPDATE embeddings SET embedding = v.vector::vector, embedded_hash = content_hash, space_id = $1, embedded_at = now()
FROM (SELECT n, array(SELECT random() - 0.5 + n * 0 FROM generate_series(1, $2))::real[] AS vector
      FROM generate_series(0, 999) n) v
WHERE vector_id % 1000 = v.n
"""
OTHER_COLUMN = "UPDATE {table} SET author = author || '.'"


async def run(bench: Bench) -> list[Line]:
    """COPY of 200,000 messages; then another column of 50,000 embedded ones, their HNSW index in place."""
    written = texts.messages(bench.rows(200_000))
    async with bench.resources("import") as resources:
        target = await dataset(resources)
        async with resources.database.transaction() as tx:
            await tx.execute("CREATE TABLE untracked (LIKE messages INCLUDING ALL)")
        return [
            await _copies(resources, target, written),
            await _updates(resources, target, written[: bench.rows(50_000)]),
        ]


async def _copies(resources: Resources, target: DatasetRef, written: Sequence[str]) -> Line:
    copy = partial(_copy, resources, target, written)
    taken = await clock.rounds(3, {"untracked": partial(copy, "untracked"), "messages": partial(copy, "messages")})
    note = texts.described(written)
    return rate("COPY", len(written), taken["messages"], taken["untracked"], at_least(0.1), note)


async def _copy(resources: Resources, target: DatasetRef, written: Sequence[str], table: str) -> float:
    await empty(resources, table)
    return await clock.seconds(copy_messages(resources, target, written, table))


async def _updates(resources: Resources, target: DatasetRef, written: Sequence[str]) -> Line:
    for table in ("untracked", "messages"):
        await _copy(resources, target, written, table)
    await _embed(resources)
    update = partial(_update, resources)
    taken = await clock.rounds(5, {"untracked": partial(update, "untracked"), "messages": partial(update, "messages")})
    ours, bare = (min(taken[table]) * 1000 for table in ("messages", "untracked"))
    return Line(f"UPDATE of another column, {len(written):,} rows", ours, bare, "ms", ours / bare, at_most(1.2))


async def _embed(resources: Resources) -> None:
    """Give every row a vector (random ones: nobody searches here) and the index that production has."""
    space = (await resources.provider()).space
    async with resources.database.transaction() as tx:
        await tx.execute(EMBEDDED, space.id, space.dimensions)
    await build_indexes(resources.database, space.id, space.dimensions)


async def _update(resources: Resources, table: str) -> float:
    async with resources.database.autocommit() as connection:
        await connection.execute(f"VACUUM ANALYZE {table}")
        return await clock.seconds(connection.execute(OTHER_COLUMN.format(table=table)))
