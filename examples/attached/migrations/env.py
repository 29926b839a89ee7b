"""Alembic's environment, on the connection that `migrating.py` gives it."""

from alembic import context
from sqlalchemy.schema import CreateSchema

from examples.attached.articles import SCHEMA, metadata

connection = context.config.attributes["connection"]
connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
