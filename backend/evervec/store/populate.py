"""Takes in rows that no trigger saw: an older database, a restore with triggers disabled, text changed behind them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from evervec.store.embeddables import EMBEDDABLES, Embeddable
from evervec.store.session import Database
from evervec.store.triggers import content_hash


@dataclass(frozen=True)
class Step:
    """One committed batch: `reached` is the highest key seen, `taken` the records added or corrected."""

    kind: str
    reached: int
    taken: int
    removed: int


def _take_in(embeddable: Embeddable) -> str:
    kind, table, key, dataset = embeddable.kind, embeddable.table, embeddable.key, embeddable.dataset
    return f"""
    WITH batch AS (
        SELECT r.{key} AS row_id, r.{dataset} AS dataset_id, {content_hash(embeddable)} AS content_hash
        FROM {table} r WHERE r.{key} > $1 ORDER BY r.{key} LIMIT $2 FOR SHARE OF r
    ), taken AS (
        INSERT INTO embeddings AS e (kind, row_id, dataset_id, content_hash)
        SELECT {kind}, b.row_id, b.dataset_id, b.content_hash FROM batch b
        LEFT JOIN embeddings e ON e.kind = {kind} AND e.row_id = b.row_id
        WHERE e.vector_id IS NULL OR e.dataset_id <> b.dataset_id OR e.content_hash IS DISTINCT FROM b.content_hash
        ON CONFLICT (kind, row_id) DO UPDATE SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        RETURNING 1
    )
    SELECT (SELECT max(row_id) FROM batch) AS reached, (SELECT count(*) FROM taken) AS taken
    """


def _remove(embeddable: Embeddable) -> str:
    return f"""
    WITH gone AS (
        DELETE FROM embeddings e WHERE e.kind = {embeddable.kind}
        AND NOT EXISTS (SELECT FROM {embeddable.table} r WHERE r.{embeddable.key} = e.row_id) RETURNING 1
    )
    SELECT count(*) FROM gone
    """


async def run(database: Database, *, batch: int = 5000) -> AsyncIterator[Step]:
    """Compare every row with its record, a short transaction a batch.

    Stopped at any point and run again it goes on where records are missing: what is right is only read.
    """
    for embeddable in EMBEDDABLES:
        reached: int | None = -(2**63)
        while reached is not None:
            async with database.transaction() as tx:
                row = await tx.fetchrow(_take_in(embeddable), reached, batch)
            reached = None if row is None else row["reached"]
            if row is not None and reached is not None:
                yield Step(embeddable.name, reached, row["taken"], 0)
        async with database.transaction() as tx:
            removed = await tx.fetchval(_remove(embeddable))
        if removed:
            yield Step(embeddable.name, 0, 0, removed)
