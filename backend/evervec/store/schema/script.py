"""The script that brings a database to this version: what `evervec migrate` does, printed for somebody else to run."""

import asyncio
from collections.abc import Iterator
from io import StringIO

from evervec.errors import SchemaMismatchError
from evervec.store.database import checks, rights
from evervec.store.database.connections import quoted
from evervec.store.database.session import Database
from evervec.store.schema import installation, migrations, moving, triggers, views
from evervec.store.schema.installation import Preparation

INTRODUCTION = """\
-- Brings the schema {schema} from revision {at} to {to}: {what}.
-- Run it as the role that is to own the tables and may create the extension vector, and stop at the first error:
--   psql -v ON_ERROR_STOP=1 -f SCRIPT
-- Several transactions, with indexes built between them: it is no single transaction (no psql -1).
SET client_encoding = 'UTF8';
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
"""
# the first migration needs the type vector; in which schema that is may not be known before
PATH = """\
SELECT pg_catalog.set_config('search_path', '{schema}, ' || pg_catalog.quote_ident(n.nspname), false)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"""
# rows that were written before there were triggers, or while some were missing, are taken in by a worker
COMPARE = """\
INSERT INTO {schema}.trigger_repairs (table_name, reason) VALUES ('embeddings', 'the tables were migrated by a script')
ON CONFLICT (table_name) DO NOTHING"""


async def script(database: Database | None, schema: str, role: str | None = None) -> str:
    """Return what brings a database from its present state to this version, or from nothing without a database.

    With `role` it ends with what that role needs to run Evervec. Raises `SchemaMismatchError` for a database of a newer
    version, and `MissingRightsError` for a role that may not even look.
    """
    if database is None:
        steps, at = installation.from_nothing(schema), None
    else:
        steps, at = await _state(database, schema)
    migrating = "" if at == checks.SCHEMA else await asyncio.to_thread(_migrations, schema, at)
    return "\n".join(_parts(schema, at, role, steps, migrating))


async def _state(database: Database, schema: str) -> tuple[list[Preparation], str | None]:
    async with database.read() as tx:
        await checks.server(tx)
        await rights.usage(tx, schema)
        steps = await installation.plan(tx, schema)
        at = await checks.revision(tx, schema)
        if at is None and schema != moving.OLD_SCHEMA and await moving.is_old(tx):
            at = await moving.revision(tx)
    if at is not None and not migrations.knows(str(at)):
        raise SchemaMismatchError(found=at, wanted=checks.SCHEMA)
    return steps, None if at is None else str(at)


def _migrations(schema: str, at: str | None) -> str:
    from alembic import command

    printed = StringIO()
    config = migrations.config(output=printed)
    config.attributes["schema"] = schema
    command.upgrade(config, f"{at or 'base'}:head", sql=True)
    # it is made before, together with the schema
    made = f"CREATE TABLE {schema}.alembic_version"
    return printed.getvalue().replace(made, made.replace("TABLE", "TABLE IF NOT EXISTS"), 1)


def _parts(schema: str, at: str | None, role: str | None, steps: list[Preparation], migrating: str) -> Iterator[str]:
    name = quoted(schema)
    what = "tables, functions, triggers" + (f", and the rights of {role}" if role else "")
    yield INTRODUCTION.format(schema=name, at=at or "nothing", to=checks.SCHEMA, what=what)
    if steps:
        yield _transaction(step.statement for step in steps)
    if migrating:
        yield f"SET search_path = {name};" if at else f"{PATH.format(schema=name)};"
        yield migrating
    done = [
        *triggers.install(schema),
        *views.install(schema),
        *([COMPARE.format(schema=name)] if at not in (None, checks.SCHEMA) else []),
    ]
    yield _transaction(["SET LOCAL search_path = pg_temp", *done])
    granted = _transaction(_grants(schema, role or "ROLE"))
    if role:
        yield granted
    else:
        yield "-- What a ROLE needs to run Evervec that does not own the tables:"
        yield "".join(f"-- {line}\n" for line in granted.splitlines())
    yield "RESET search_path;\n"


def _grants(schema: str, role: str) -> list[str]:
    from evervec.store.schema.models import metadata

    functions = [function.signature for function in triggers.functions(schema) if function.is_called]
    return rights.grants(
        schema,
        role,
        tables=[one.name for one in metadata.tables.values()],
        views=rights.READ_VIEWS,
        functions=functions,
    )


def _transaction(statements: "Iterator[str] | list[str]") -> str:
    return "\n".join(["BEGIN;", *(f"{statement.strip()};" for statement in statements), "COMMIT;\n"])
