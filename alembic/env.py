"""Alembic's entry point: prepare the database, run the migrations, then install what is derived (functions, triggers, view).

Offline (`evervec migrate --sql`) the migrations alone are printed; `store/schema/script.py` prints what is around them.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.runtime.migration import MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.asyncio import create_async_engine

from evervec.settings import Settings
from evervec.store.database.connections import quoted
from evervec.store.database.session import Database
from evervec.store.schema import columns, installation, models, moving, triggers, views

# pgvector.sqlalchemy makes its own types known
ischema_names["xid8"] = columns.Xid8
config = context.config
WORDS_SINCE = "0020"
"""The migration that makes the table of words: before it, no function may write there."""
HEAD = tuple(ScriptDirectory.from_config(config).get_heads())


def database() -> Database:
    given = config.attributes.get("database")
    if isinstance(given, Database):
        return given
    settings = Settings()
    if settings.database_url is None:
        raise SystemExit("Set EVERVEC_DATABASE_URL, or run `evervec migrate` for the embedded PostgreSQL.")
    direct = settings.database_direct_url
    return Database(
        settings.database_url.get_secret_value(),
        direct_url=direct.get_secret_value() if direct else None,
        schema=settings.database_schema,
    )


def ours(name: str | None, type_: str, parent: dict[str, str | None]) -> bool:
    """Return False for HNSW indexes: they belong to a space and are built when it is activated, not by a migration."""
    if type_ == "schema":
        return name == models.metadata.schema
    if type_ == "table":
        return name != "alembic_version"
    return not (type_ == "index" and name is not None and name.startswith("embeddings_hnsw_"))


def functions_of(step: MigrationInfo | None, schema: str) -> Iterator[str]:
    """Install the functions of triggers with a migration that they would not work without: no writer comes in between."""
    made = step.up_revision if step is not None and step.is_upgrade else None
    if step is not None and not step.is_upgrade and step.up_revision_id == WORDS_SINCE:
        yield from triggers.install(schema, words=False)
    if made is not None and getattr(made.module, "installs_functions", False):
        words = made.revision >= WORDS_SINCE
        yield from (*triggers.install(schema, words=words), *views.install(schema))


def run(connection: Connection, schema: str) -> None:
    def applied(*, step: MigrationInfo | None = None, **_: Any) -> None:
        # the first migration needs the type vector; the others must not see tables of other programs in its schema
        connection.exec_driver_sql(f"SET search_path = {quoted(schema)}")
        for statement in functions_of(step, schema):
            connection.exec_driver_sql(statement)

    at = MigrationContext.configure(connection, opts={"version_table_schema": schema}).get_current_heads()
    if at not in ((), HEAD):
        applied()
    connection.commit()
    # or autogenerate would take our schema, which the search path begins with, for one that needs no name
    connection.dialect.default_schema_name = moving.OLD_SCHEMA
    # SQLAlchemy can not reflect a CHECK that is NOT VALID, and Alembic compares none
    checks_of = connection.dialect.get_multi_check_constraints
    vars(connection.dialect)["get_multi_check_constraints"] = lambda *given, **named: [
        (table, []) for table, _ in checks_of(*given, **named)
    ]
    # one transaction a migration: a later one may leave it to build an index while others write
    context.configure(
        connection=connection,
        target_metadata=models.metadata,
        include_name=ours,
        transaction_per_migration=True,
        version_table_schema=schema,
        include_schemas=True,
        on_version_apply=applied,
    )
    with context.begin_transaction():
        context.run_migrations()
    if context.get_context().get_current_heads() == HEAD:
        for statement in (*triggers.install(schema), *views.install(schema)):
            connection.exec_driver_sql(statement)
    connection.commit()


async def online() -> None:
    opened = database()
    await installation.prepare(opened)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=opened.open_direct, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run, opened.schema)
    await engine.dispose()


def offline(schema: str) -> None:
    def applied(*, step: MigrationInfo | None = None, **_: Any) -> None:
        say(f"SET search_path = {quoted(schema)}")
        for statement in functions_of(step, schema):
            say(statement)

    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        target_metadata=models.metadata,
        literal_binds=True,
        transaction_per_migration=True,
        version_table_schema=schema,
        on_version_apply=applied,
    )
    printing = context.get_context().impl

    def say(statement: str) -> None:
        printing.static_output(f"{statement.strip()};\n")

    # what Alembic gives to a migration in place of a connection can not do this, and migrations do it
    vars(printing.connection)["exec_driver_sql"] = say
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    offline(str(config.attributes.get("schema") or Settings().database_schema))
else:
    asyncio.run(online())
