"""The view of an attachment in our schema: its rows by their own key, with chunk, text, vector and state, for any SQL."""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from uuid import UUID

import asyncpg

from evervec import log
from evervec.domain.attachment import AttachedTable
from evervec.errors import Refused
from evervec.store.attached.keys import value_of
from evervec.store.database.connections import quoted
from evervec.store.database.rights import CHUNKS_VIEW
from evervec.store.database.session import ReadTx, Tx
from evervec.store.schema.views import SHOW

logger = log.get("attached")

LONGEST_NAME = 63
"""Bytes of a name that PostgreSQL does not cut."""

OWN_COLUMNS = ("chunk", "text", "title", "embedding", "embedding_status", "error_message")

IS_VIEW = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'v')
"""
# a view has a type of its own name
TAKEN = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)
    OR EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2)
    OR EXISTS (SELECT FROM sources WHERE view = $2)
"""
# of all datasets of a project that is deleted, nothing is shown
PROJECT_LIVES = """
EXISTS (SELECT FROM {schema}.sources s JOIN {schema}.projects p ON p.id = s.project_id
        WHERE s.id = '{source}' AND p.deleted_at IS NULL)
"""
SHOWN_OF_ONE = """
SELECT {columns} FROM {schema}.{chunks} r
WHERE r.dataset_id = '{dataset}'
  AND EXISTS (SELECT FROM {schema}.datasets d WHERE d.id = '{dataset}' AND d.deleted_at IS NULL) AND {live}
"""
# an array that is made once is a condition on the rows of the index; a join would be one on what it returned
SHOWN_OF_ALL = """
SELECT {columns} FROM {schema}.{chunks} r LEFT JOIN {schema}.datasets d ON d.id = r.dataset_id
WHERE r.dataset_id = ANY(ARRAY(SELECT t.id FROM {schema}.datasets t WHERE t.source_id = '{source}' AND t.deleted_at IS NULL
                               UNION ALL SELECT '{source}'::uuid)) AND {live}
"""
# the space of the datasets that a table fills, or will fill; NULL where they are of several, or of none yet: no index fits all
SPACE = """
SELECT CASE count(DISTINCT space_id) WHEN 1 THEN nullif(min(space_id), 0)
            WHEN 0 THEN (SELECT s.id FROM embedding_spaces s WHERE s.state = 'active') END
FROM datasets WHERE deleted_at IS NULL AND ($1::uuid IS NULL AND source_id = $2 OR id = $1)
"""


async def _chunks(tx: Tx, source_id: UUID, dataset_id: UUID | None) -> str:
    """Return the name of the view that shows the chunks of a table."""
    space_id = await tx.fetchval(SPACE, dataset_id, source_id)
    name = CHUNKS_VIEW if space_id is None else f"{CHUNKS_VIEW}_{space_id}"
    if not await tx.fetchval("SELECT coalesce(has_table_privilege(to_regclass($1)::oid, 'SELECT'), false)", name):
        await tx.execute(f"SELECT {SHOW}()")  # this role got its rights after the view was made
    return name


async def make(
    tx: Tx, schema: str, source_id: UUID, table: AttachedTable, wanted: Sequence[str], dataset_id: UUID | None
) -> str:
    """Make the view of an attachment, or renew it, and return its name as SQL writes it.

    It gets the first of the `wanted` names that is free, and keeps it. Without `dataset_id` it shows all datasets that the
    table fills, and says which. Raises `Refused` if it has to change while other views read it.
    """
    name = await tx.fetchval("SELECT view FROM sources WHERE id = $1", source_id)
    if name is None or not await tx.fetchval(IS_VIEW, schema, name):
        name = await _free_name(tx, schema, source_id, wanted)
        await tx.execute("UPDATE sources SET view = $2 WHERE id = $1", source_id, name)
    place = f"{quoted(schema)}.{quoted(name)}"
    query = _query(quoted(schema), source_id, table, dataset_id, await _chunks(tx, source_id, dataset_id))
    await tx.execute("SAVEPOINT evervec_view")
    try:
        await tx.execute(f"CREATE OR REPLACE VIEW {place} AS {query}")
    except asyncpg.InvalidTableDefinitionError:  # other columns than it had
        await tx.execute("ROLLBACK TO SAVEPOINT evervec_view")
        await _drop(tx, place)
        await tx.execute(f"CREATE VIEW {place} AS {query}")
    return str(await tx.fetchval("SELECT format('%I.%I', $1::text, $2::text)", schema, name))


VIEWS_OF = """
SELECT DISTINCT o.id, format('%I.%I', $1::text, o.view) AS place, pg_get_viewdef(v.oid) AS query,
       pg_get_userbyid(v.relowner) AS owner, pg_has_role(v.relowner, 'USAGE') AS ours
FROM datasets d JOIN sources o ON o.id = d.source_id -- of a source without a view the name is NULL, which `format` refuses
JOIN pg_class v ON v.oid = to_regclass(quote_ident($1::text) || '.' || quote_ident(o.view))
WHERE d.id = ANY($2)
"""


async def renew(tx: Tx, schema: str, dataset_ids: Sequence[UUID]) -> None:
    """Let the views of attached tables select from the space that their datasets are searched in now.

    One that belongs to a role whose rights this one has not stays as it is, which is logged.
    """
    for row in await tx.fetch(VIEWS_OF, schema, list(dataset_ids)):
        query = re.sub(rf"\b{CHUNKS_VIEW}(_\d+)?\b", await _chunks(tx, row["id"], None), row["query"])
        if query != row["query"] and not row["ours"]:
            logger.warning(
                "view shows the former space",
                view=row["place"],
                advice=f"attach its table again as role {row['owner']}",
            )
        elif query != row["query"]:
            await tx.execute(f"CREATE OR REPLACE VIEW {row['place']} AS {query}")


async def remove(tx: Tx, schema: str, source_id: UUID) -> None:
    """Remove the view of an attachment, if it is there. Raises `Refused` that names what reads it."""
    name = await tx.fetchval("SELECT view FROM sources WHERE id = $1", source_id)
    if name is not None:
        await _drop(tx, f"{quoted(schema)}.{quoted(name)}")


async def hides(tx: ReadTx, schema: str, table: AttachedTable) -> str | None:
    """Return the statement that helps if this role finds something of ours under a table's name without its schema, or None.

    `tx` resolves names as the server is set. `"$user"` in the search path is our schema to a role of the same name.
    """
    role = await tx.fetchval(
        "SELECT quote_ident(current_user) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.oid = to_regclass(quote_ident($2)) AND n.nspname = $1",
        schema,
        table.name,
    )
    return None if role is None else f"ALTER ROLE {role} SET search_path = {quoted(table.schema)}"


async def place(tx: ReadTx, schema: str, name: str | None) -> str | None:
    """Return a view's name as SQL writes it, None if it is not there."""
    if name is None or not await tx.fetchval(IS_VIEW, schema, name):
        return None
    return str(await tx.fetchval("SELECT format('%I.%I', $1::text, $2::text)", schema, name))


def names(project: str, name: str, source_id: UUID) -> Iterator[str]:
    """Return the names that a view may have, in the order in which they are tried."""
    for one in (name, f"{name}_rows", f"{project}_{name}", f"{project}_{name}_{source_id.hex}"):
        yield _fitting(one)


def _fitting(name: str) -> str:
    """Return a name that PostgreSQL does not cut: the end of a long one becomes a digest of it."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{digest}"


async def _free_name(tx: Tx, schema: str, source_id: UUID, wanted: Sequence[str]) -> str:
    await tx.execute("UPDATE sources SET view = NULL WHERE id = $1", source_id)
    for name in wanted:
        if not await tx.fetchval(TAKEN, schema, name):
            return name
    raise Refused(reason=f"No name for its view is free in schema {schema}: tried {', '.join(wanted)}.")


async def _drop(tx: Tx, place: str) -> None:
    try:
        await tx.execute(f"DROP VIEW IF EXISTS {place}")
    except asyncpg.DependentObjectsStillExistError as error:
        raise Refused(
            reason=f"The view {place} is read by something of yours ({error.detail}). Drop that first, then run this again."
        ) from error


def _query(schema: str, source_id: UUID, table: AttachedTable, dataset_id: UUID | None, chunks: str) -> str:
    live = PROJECT_LIVES.format(schema=schema, source=source_id)
    columns = [
        f"{value_of(column.type, f'(r.key ->> {number})')} AS {quoted(column.name)}"
        for number, column in enumerate(table.key)
    ]
    taken = {column.name for column in table.key}
    own = [(name, f"r.{name}") for name in OWN_COLUMNS]
    if dataset_id is None:
        own.append(("dataset", "d.slug"))
    columns += [f"{value} AS {quoted(f'evervec_{name}' if name in taken else name)}" for name, value in own]
    chosen = SHOWN_OF_ALL if dataset_id is None else SHOWN_OF_ONE
    return chosen.format(
        schema=schema,
        chunks=chunks,
        columns=", ".join(columns),
        source=source_id,
        dataset=dataset_id,
        live=live,
    )
