"""Alembic's entry point: connect, run the migrations, then install what is derived (functions, triggers, views)."""

import asyncio
import os
from urllib.parse import urlsplit

from alembic import context
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.asyncio import create_async_engine

from evervec.store.schema import columns, models, triggers

# pgvector.sqlalchemy makes its own types known
ischema_names["xid8"] = columns.Xid8
config = context.config


def url() -> str:
    given = config.attributes.get("url") or os.environ.get("EVERVEC_DATABASE_URL")
    if not given:
        raise SystemExit("Set EVERVEC_DATABASE_URL, or run `evervec migrate` for the embedded PostgreSQL.")
    return f"postgresql+asyncpg{given[len(urlsplit(given).scheme) :]}"


def ours(name: str | None, type_: str, parent: dict[str, str | None]) -> bool:
    """Return False for HNSW indexes: they belong to a space and are built when it is activated, not by a migration."""
    return not (type_ == "index" and name is not None and name.startswith("embeddings_hnsw_"))


def run(connection: Connection) -> None:
    # one transaction a migration: a later one may leave it to build an index while others write
    context.configure(
        connection=connection, target_metadata=models.metadata, include_name=ours, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
    at = context.get_context().get_current_heads()
    if at and at == (ScriptDirectory.from_config(config).get_current_head(),):
        for statement in triggers.install():
            connection.exec_driver_sql(statement)
    connection.commit()


async def online() -> None:
    engine = create_async_engine(url(), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(online())
