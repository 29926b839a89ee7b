"""The shop's own tables: made, filled, changed by what the API delivers; what becomes of that in an index is not known here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import orjson

from evervec.store.database.session import ReadTx, Tx
from examples.marketplace.market import TABLES, Row

SCHEMA = Path(__file__).with_name("shop.sql")


async def create(tx: Tx) -> None:
    """Make the schema `shop`; raises when it is there."""
    await tx.execute(SCHEMA.read_text(encoding="utf-8"))


async def take(tx: Tx, table: str, rows: Sequence[Row]) -> None:
    """Take in rows of one table. One that is there already is only written, with a new time, where it differs."""
    columns = list(rows[0])
    # when an order was placed is not a change
    changing = [name for name in columns if name not in ("id", "placed_at")]
    await tx.execute(
        f"INSERT INTO shop.{table} AS old ({', '.join(columns)}) SELECT {', '.join(columns)} "
        f"FROM jsonb_populate_recordset(NULL::shop.{table}, $1) ON CONFLICT (id) DO UPDATE SET updated_at = now(), "
        f"{', '.join(f'{name} = EXCLUDED.{name}' for name in changing)} "
        f"WHERE ({', '.join(f'old.{name}' for name in changing)}) IS DISTINCT FROM "
        f"({', '.join(f'EXCLUDED.{name}' for name in changing)})",
        orjson.dumps(rows, default=str).decode(),
    )


async def open_with(tx: Tx, opening: Mapping[str, Sequence[Row]]) -> None:
    """Make the tables and fill them."""
    await create(tx)
    for table in TABLES:
        await take(tx, table, opening[table])


async def written_since(tx: ReadTx, moment: datetime) -> int:
    """How many rows are new or changed since then."""
    tables = " UNION ALL ".join(f"SELECT updated_at FROM shop.{table}" for table in TABLES)
    count: int = await tx.fetchval(f"SELECT count(*) FROM ({tables}) AS rows WHERE updated_at > $1", moment)
    return count


async def withdraw(tx: Tx, gone: Mapping[str, Sequence[int]]) -> dict[str, set[str]]:
    """Delete orders, and products with their stocks; return what was deleted, by seller, as `table/id`."""
    deleted: dict[str, set[str]] = {}
    for table, column, ids in (
        ("orders", "id", gone["orders"]),
        ("stocks", "product_id", gone["products"]),
        ("products", "id", gone["products"]),
    ):
        rows = await tx.fetch(f"DELETE FROM shop.{table} WHERE {column} = ANY($1) RETURNING seller_id, id", list(ids))
        for row in rows:
            deleted.setdefault(row["seller_id"], set()).add(f"{table}/{row['id']}")
    return deleted
