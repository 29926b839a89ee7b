"""A shop whose orders are indexed: its table, how it is described, and what becomes of its rows; for tests alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from evervec.pipeline.indexing import source_registry
from evervec.pipeline.resources import Resources
from evervec.sources.sql import loading
from evervec.sources.sql.description import SourceDescription
from evervec.store import datasets
from evervec.store.datasets import DatasetRef

# every change has its own time, as an ORM would write it; `up` holds whoever reads a paused
# order, and loses the connection over one of an outage
SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, title text NOT NULL DEFAULT 'Order', note text, price integer NOT NULL DEFAULT 1,
    seller text NOT NULL DEFAULT 'ann', updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON shop.orders (updated_at);
CREATE FUNCTION shop.touched() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touched();
CREATE TABLE shop.outage (at bigint);
CREATE TABLE shop.pause (at bigint);
CREATE FUNCTION shop.up(id bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN
    IF EXISTS (SELECT FROM shop.pause WHERE at = id) THEN PERFORM pg_advisory_xact_lock_shared(7); END IF;
    IF EXISTS (SELECT FROM shop.outage WHERE at = id) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN true;
END';
"""
ORDERS = {"table": "shop.orders", "key": "id", "updated_at": "updated_at", "title": "{title}", "template": "{note}"}


async def open_shop(psql: Any, orders: int = 0) -> None:
    """Make the tables, and so many orders, numbered from 1, each with its own note."""
    await psql.execute(SHOP)
    await add(psql, 1, orders)


async def add(psql: Any, first: int, last: int, seller: str = "ann") -> None:
    """Orders from the first to the last number."""
    await psql.execute(
        "INSERT INTO shop.orders (id, note, seller) SELECT n, 'The note of order number ' || n, $3 "
        "FROM generate_series($1::bigint, $2::bigint) n",
        first,
        last,
        seller,
    )


def described(*, url: str | None = None, split: bool = False, **changes: Any) -> SourceDescription:
    """Source `shop` of project p: all orders in dataset `orders`, or, `split`, each seller's in one of his own."""
    belonging = {"dataset_column": "seller"} if split else {"dataset": "orders"}
    fields = {"name": "shop", "project": "p", "tables": {"orders": {**ORDERS, **changes}}, **belonging}
    return loading.describe(fields | ({} if url is None else {"url": url}), "shop.yaml")


async def keep(resources: Resources, description: SourceDescription) -> UUID:
    """Remember the source; answers the id of its dataset."""
    await source_registry.register_sql(resources, description)
    return (await dataset(resources, description.dataset or "")).id


async def dataset(resources: Resources, name: str) -> DatasetRef:
    """Create a dataset of project p."""
    async with resources.database.read() as tx:
        return (await datasets.find(tx, f"p/{name}"))[0]


async def notes(psql: Any, dataset_id: UUID) -> dict[str, Any]:
    """Return the text that is searched for each record, by uri; None for one that is not embedded."""
    rows = await psql.fetch(
        "SELECT d.uri, c.vector_text, e.embedding IS NOT NULL AS embedded FROM documents d "
        "LEFT JOIN chunks c ON c.document_id = d.id LEFT JOIN embeddings e ON e.kind = 4 AND e.row_id = c.id "
        "WHERE d.dataset_id = $1 ORDER BY d.id",
        dataset_id,
    )
    return {row["uri"]: row["vector_text"] if row["embedded"] else None for row in rows}


@asynccontextmanager
async def paused(psql: Any, *, at: int) -> AsyncIterator[None]:
    """Whoever reads this order through a source that is filtered by `shop.up(id)` waits until the block ends."""
    await psql.execute("INSERT INTO shop.pause VALUES ($1)", at)
    await psql.execute("SELECT pg_advisory_lock(7)")
    try:
        yield
    finally:
        await psql.execute("DELETE FROM shop.pause")
        await psql.execute("SELECT pg_advisory_unlock(7)")


async def embedded(psql: Any, least: int) -> None:
    """Wait until so many chunks have a vector."""
    async with asyncio.timeout(60):
        while await psql.fetchval("SELECT count(embedding) FROM embeddings") < least:
            await asyncio.sleep(0.01)


def uris(numbers: Sequence[int]) -> list[str]:
    """Return the uris of orders."""
    return [f"orders/{number}" for number in numbers]
