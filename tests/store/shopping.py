"""A shop in another schema, as small and as large as tests need it, and descriptions of its tables."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from evervec.errors import SourceError
from evervec.sources.sql import loading
from evervec.sources.sql.description import SourceDescription
from evervec.store.foreign.reader import open_foreign

ROWS = 100_000
TENANTS = 1_000
NEVER = timedelta(0)

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id integer PRIMARY KEY, number text, seller_id integer, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON shop.orders (updated_at);
CREATE INDEX ON shop.orders (seller_id);
"""
MARKET = f"""
{SHOP}
INSERT INTO shop.orders
SELECT n, 'A-' || n, n % {TENANTS}, '2026-01-01', '2026-01-01'::timestamptz + n * interval '1 s' FROM generate_series(1, {ROWS}) n;
CREATE TABLE shop.texts AS SELECT 'k' || id AS id, number FROM shop.orders;
CREATE TABLE shop.uuids AS SELECT sha256(int4send(id))::bytea AS raw, number FROM shop.orders;
ALTER TABLE shop.uuids ADD id uuid;
UPDATE shop.uuids SET id = encode(substr(raw, 1, 16), 'hex')::uuid;
ALTER TABLE shop.texts ALTER id TYPE varchar(20), ADD PRIMARY KEY (id);
ALTER TABLE shop.uuids ADD PRIMARY KEY (id);
"""
THREE_ORDERS = f"""
{SHOP}
INSERT INTO shop.orders (id, number, seller_id) VALUES (1, 'A', 7), (2, 'B', 7), (3, NULL, 8);
"""
ORDERS = {
    "table": "shop.orders",
    "key": "id",
    "updated_at": "updated_at",
    "template": "Order {number}",
    "dataset_column": "seller_id",
}


def described(**changes: Any) -> SourceDescription:
    """Return the orders, described in another way than usual."""
    return tables(orders={**ORDERS, **changes})


def tables(**given: Any) -> SourceDescription:
    """Describe a source of these tables."""
    split = any(table.get("dataset_column") for table in given.values())
    belonging = {} if split else {"dataset": "main"}
    return loading.describe({"name": "shop", "project": "p", "tables": given, **belonging}, "s.yaml")


async def gathered(batches: AsyncIterator[list[Any]]) -> list[Any]:
    """Return everything that a reader yields."""
    return [item async for batch in batches for item in batch]


async def refusal(url: str, description: SourceDescription) -> str:
    """Return the error for a description that does not fit."""
    with pytest.raises(SourceError) as refused:
        await open_foreign(description, url)
    return str(refused.value)
