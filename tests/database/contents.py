"""Everything that a database of Evervec holds, to be compared with another one, and what a filled one looks like."""

import re

from evervec.store.schema.embeddables import ATOM, CHUNK, EMBEDDABLES, MESSAGE, TOPIC
from tests.database import rows
from tests.database.places import SCHEMA
from tests.database.programs import Psql

OBJECTS = """
SELECT 'trigger', c.relname || '.' || t.tgname, t.tgenabled::text || pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND c.relnamespace = '{schema}'::regnamespace
UNION ALL SELECT 'function', p.proname, p.prosrc || coalesce(p.proconfig::text, '') || p.prosecdef || coalesce(p.proacl::text, '')
FROM pg_proc p WHERE p.pronamespace = '{schema}'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL SELECT c.relkind::text, c.relname, coalesce(pg_get_indexdef(i.indexrelid), pg_get_viewdef(v.oid), '')
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class v ON v.oid = c.oid AND v.relkind = 'v'
WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind IN ('r', 'i', 'v', 'S')
-- without parentheses: PostgreSQL prints more of them after a restore
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, translate(pg_get_constraintdef(oid), '()', '')
FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace
ORDER BY 1, 2
"""


def fill(psql: Psql, schema: str = SCHEMA) -> None:
    """Fill a database with rows in every state: embedded, edited since, given up, blank, deleted with a tombstone."""
    psql(
        f"INSERT INTO {schema}.embedding_spaces (provider, model, dimensions, state, activated_at) "
        f"SELECT 'local', 'm', 3, 'active', now() WHERE NOT EXISTS (SELECT FROM {schema}.embedding_spaces)"
    )
    if psql.value(f"SELECT to_regprocedure('{schema}.evervec_add_space(integer)') IS NOT NULL") == "t":
        psql(f"SELECT {schema}.evervec_add_space(id) FROM {schema}.embedding_spaces")
    rows.furnish(psql, schema)
    for embeddable in EMBEDDABLES:
        psql(rows.insert(embeddable, {key: f"{embeddable.name} {key}" for key in range(1, 7)}, schema))
    rows.embed_all(psql, schema)
    for table, column in ((one.table, one.columns[0]) for one in EMBEDDABLES):
        psql(
            f"UPDATE {schema}.{table} SET {column} = {column} || ' edited' WHERE id = 2",
            f"DELETE FROM {schema}.{table} WHERE id = 4",
        )
    psql(
        f"UPDATE {schema}.{MESSAGE.table} SET content = ' ' WHERE id = 5",
        f"UPDATE {schema}.embeddings SET embedding = NULL, failed_hash = content_hash WHERE row_id = 3 AND kind = {ATOM.kind}",
        f"INSERT INTO {schema}.embed_work (vector_id, content_hash, last_error) SELECT vector_id, content_hash, 'refused' "
        f"FROM {schema}.embeddings WHERE failed_hash IS NOT NULL",
    )


def contents(psql: Psql, schema: str = SCHEMA, *, without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return every row of every table of a schema as text."""
    tables = psql(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    return {
        table: [line for (line,) in psql(f'SELECT t::text FROM {schema}."{table}" t ORDER BY 1')]
        for (table,) in tables
        if table not in without
    }


def vectors(psql: Psql, schema: str = SCHEMA) -> list[list[str]]:
    """Return every record of a schema without its space: in older versions one that has no vector is in none."""
    return psql(
        "SELECT vector_id, kind, row_id, dataset_id, content_hash, embedding, embedded_hash, embedded_at, failed_hash, "
        f"changed_xid FROM {schema}.embeddings ORDER BY vector_id"
    )


def objects(psql: Psql, schema: str = SCHEMA) -> list[tuple[str, ...]]:
    """Return every object of a schema with its definition; the schema's own name is replaced, so that two compare."""
    found = psql.given(search_path='""').script(f"COPY ({OBJECTS.format(schema=schema)}) TO STDOUT;\n")
    return [tuple(re.sub(rf"\b{schema}\.", "SCHEMA.", line).split("\t")) for (line,) in found]


def noticed(psql: Psql, schema: str = SCHEMA) -> None:
    """Assert that whatever is written now is tracked: inserted, edited, deleted, in every kind, by any session."""
    writer = psql.given(search_path='""')
    for embeddable in (MESSAGE, TOPIC, ATOM, CHUNK):
        table = f"{schema}.{embeddable.table}"
        gone = psql.number(f"SELECT count(*) FROM {schema}.vector_tombstones")
        writer(rows.insert(embeddable, {101: "written later"}, schema))
        assert rows.recorded(psql, embeddable, schema)[101] == rows.digest("written later")
        writer(f"UPDATE {table} SET {embeddable.columns[0]} = 'edited later' WHERE id = 1")
        assert rows.recorded(psql, embeddable, schema)[1] == rows.digest("edited later")
        writer(f"DELETE FROM {table} WHERE id = 6")
        assert psql.number(f"SELECT count(*) FROM {schema}.vector_tombstones") == gone + 1
    assert rows.untracked(psql, schema) == 0
