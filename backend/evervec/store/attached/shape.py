"""Inspects a table before it is attached: what it is, who may read it, its key, and what its text is made of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

from evervec.domain.attachment import AttachedColumn, AttachedTable
from evervec.errors import MissingRightsError, SourceError
from evervec.store.attached.expressions import Expressions, filled_in, joined, resolved
from evervec.store.attached.keys import FORMS
from evervec.store.database.connections import quoted
from evervec.store.database.session import Database, Tx

TIMES: Final = ("timestamp with time zone", "timestamp without time zone")
TRIGGERED: Final = "rp"
"""pg_class.relkind of what has triggers for each row: tables, and partitioned ones."""
KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}

# what an unqualified name and an expression mean to everybody else in this database
USUAL_PATH = "SELECT set_config('search_path', (SELECT reset_val FROM pg_settings WHERE name = 'search_path'), true)"
# a role that is called like our schema finds what is in it first, also the views that are named as tables of others
WITHOUT_OURS = """
SELECT set_config('search_path', coalesce((
    SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.place) FROM unnest(current_schemas(false)) WITH ORDINALITY s (name, place)
    WHERE s.name <> $1), ''), true)
"""
BARE_PATH = "SELECT set_config('search_path', '', true)"

ATTACHABLE = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       greatest(c.reltuples, 0)::bigint AS rows, pg_get_userbyid(c.relowner) AS owner, current_user AS reader,
       c.relkind = 'p' OR c.relispartition AS partitioned,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable,
       pg_has_role(c.relowner, 'USAGE') AS owned, row_security_active(c.oid) AS hidden,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid) AND c.relkind = 'r'
           AND NOT c.relispartition AS inherited
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)
"""
# `to_regclass` fails in a schema that one may not use
SHUT_OUT = "SELECT current_user FROM pg_namespace WHERE nspname = $1 AND NOT has_schema_privilege(oid, 'USAGE')"
# the function of the triggers, and the view, are made in our schema
MAY_NOT_CREATE = "SELECT current_user WHERE NOT has_schema_privilege($1, 'CREATE')"
TABLE_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attnum, a.attname, a.attnotnull, a.atttypid AS type FROM pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, b.attname, b.attnotnull OR t.typnotnull, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type
    WHERE t.typtype = 'd'
)
SELECT b.attnum AS number, b.attname AS name, bool_or(b.attnotnull) OVER (PARTITION BY b.attnum) AS filled,
       CASE WHEN t.oid = 'bpchar'::regtype THEN 'bpchar' WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, -1)
            ELSE format('%I.%I', n.nspname, t.typname) END AS type, t.typtype = 'e' AS enum
FROM base b JOIN pg_type t ON t.oid = b.type JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'd' ORDER BY b.attnum
"""
# a deferred constraint or a partial index does not prove that all rows are unique now
UNIQUE_INDEXES = """
SELECT i.indisprimary, ARRAY(
    SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns
FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""


INDEXED_BY = """
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid)
"""


class DescribedAttachment(Protocol):
    """What is needed of the description of an attached table; names are unquoted, expressions are SQL."""

    @property
    def relation(self) -> Sequence[str]:
        """Return the table's name, with its schema before it if one is given."""
        ...

    @property
    def text(self) -> str | None:
        """Return the expression of the text, None if it is made of `columns`."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Return the columns whose values are the text."""
        ...

    @property
    def template_lines(self) -> Sequence[Sequence[tuple[str, str | None]]]:
        """Return the lines of its template: the texts before columns, with the columns' names; None after the last one."""
        ...

    @property
    def title(self) -> str | None:
        """Return the column or the expression of the title."""
        ...

    @property
    def where(self) -> str | None:
        """Return the condition that rows must meet."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """Return the columns that are kept with a row."""
        ...

    @property
    def dataset_column(self) -> str | None:
        """Return the column that names the dataset of a row."""
        ...

    @property
    def capture(self) -> str:
        """Return how its changes are noticed: by triggers, or without them."""
        ...

    @property
    def poll_column(self) -> str | None:
        """Return the column with the time of a row's last change."""
        ...

    @property
    def key(self) -> Sequence[str]:
        """Return the columns that identify a row where no index does."""
        ...


@dataclass(frozen=True)
class Shape:
    """A table that can be attached; `rows` is the planner's estimate, `columns` the types of all columns."""

    table: AttachedTable
    columns: Mapping[str, str]
    rows: int
    partitioned: bool
    inherited: bool
    warnings: tuple[str, ...]


class _Undone(Exception):
    """Ends the transaction of an inspection: nothing of it stays."""


async def probe(database: Database, described: DescribedAttachment, *, elsewhere: bool = False) -> Shape:
    """Inspect a table in a transaction that is rolled back.

    One that is `elsewhere` is in a database that is not ours: somebody else may put triggers on it for us. Raises
    `SourceError` or `MissingRightsError` if it can not be attached.
    """
    found: list[Shape] = []
    try:
        async with database.transaction() as tx:
            found.append(await _inspect(tx, database.schema, described, elsewhere=elsewhere))
            raise _Undone
    except _Undone:
        return found[0]


async def _inspect(tx: Tx, schema: str, described: DescribedAttachment, *, elsewhere: bool) -> Shape:
    found = await _find(tx, schema, described, elsewhere=elsewhere)
    where, place = f"Table {found['schema']}.{found['name']}", f"{quoted(found['schema'])}.{quoted(found['name'])}"
    await tx.execute(BARE_PATH)
    rows = await tx.fetch(TABLE_COLUMNS, found["oid"])
    columns = {row["name"]: AttachedColumn(row["name"], row["type"], row["number"]) for row in rows}
    _require_columns(where, described, columns)
    unique = await tx.fetch(UNIQUE_INDEXES, found["oid"])
    filled = {row["name"] for row in rows if row["filled"]}
    if described.key:
        # nothing else proves it; two rows of one key are found when they are read
        unique = [{"columns": list(described.key)}]
        filled |= await _without_nulls(tx, where, place, described.key)
    key = _key(where, unique, columns, filled, _enums(rows))
    await tx.execute(USUAL_PATH)
    probe_name = f"{'pg_temp' if elsewhere else quoted(schema)}.{quoted(f'attached_probe_{uuid4().hex}')}"
    wanted = _expressions(described, columns)
    expressions, read = await resolved(tx, where, place, probe_name, wanted, columns)
    read |= {*described.fields, *filter(None, (described.dataset_column, described.poll_column))}
    table = AttachedTable(
        oid=found["oid"],
        schema=found["schema"],
        name=found["name"],
        key=tuple(key),
        reads=tuple(column for column in columns.values() if column.name in read),
        text=expressions.text,
        title=expressions.title,
        where=expressions.where,
        fields=tuple(described.fields),
        dataset_column=described.dataset_column,
    )
    types = {column.name: column.type for column in columns.values()}
    warnings = _warnings(found, described)
    if described.poll_column and not await tx.fetchval(INDEXED_BY, found["oid"], described.poll_column):
        warnings.append(f"no index begins with {described.poll_column!r}: every look reads the whole table.")
    return Shape(table, types, found["rows"], found["partitioned"], found["inherited"], tuple(warnings))


async def _find(tx: Tx, schema: str, described: DescribedAttachment, *, elsewhere: bool) -> Any:
    """Return what the catalogue says of the table. Raises what `probe` raises if it is none that we may attach."""
    where = f"Table {'.'.join(described.relation)}"
    await tx.execute(USUAL_PATH)
    if reader := await tx.fetchval(SHUT_OUT, described.relation[0] if len(described.relation) == 2 else None):
        raise SourceError(where=where, reason=_may_not_read(reader, *described.relation))
    await tx.fetchval(WITHOUT_OURS, schema)
    found = await tx.fetchrow(ATTACHABLE, ".".join(map(quoted, described.relation)))
    if found is None:
        raise SourceError(where=where, reason="there is no such table in this database. Name it with its schema.")
    where = f"Table {found['schema']}.{found['name']}"
    _require_table(where, schema, found, described)
    _require_rights(where, found, owner=described.capture == "triggers" and not elsewhere)
    if not elsewhere and (role := await tx.fetchval(MAY_NOT_CREATE, schema)):
        raise MissingRightsError(
            role=role, schema=schema, statements=f"GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)};"
        )
    return found


def _expressions(described: DescribedAttachment, columns: Collection[str]) -> Expressions:
    """Return the expressions as they were given; a title may be the bare name of a column."""
    text = described.text or (joined(described.columns) if described.columns else filled_in(described.template_lines))
    title = described.title
    return Expressions(text, quoted(title) if title is not None and title in columns else title, described.where)


async def _without_nulls(tx: Tx, where: str, place: str, names: Sequence[str]) -> set[str]:
    """Return the columns of a key; raise `SourceError` if one of them is NULL anywhere."""
    for name in names:
        if await tx.fetchval(f"SELECT EXISTS (SELECT FROM {place} WHERE {quoted(name)} IS NULL)"):
            raise SourceError(where=where, reason=f"--key names {name!r}, which is NULL in some rows.")
    return set(names)


def _require_table(where: str, schema: str, found: Any, described: DescribedAttachment) -> None:
    if found["schema"] == schema:
        raise SourceError(where=where, reason="this is a table of Evervec itself. Its rows are embedded already.")
    if found["schema"] in ("pg_catalog", "information_schema", "pg_toast"):
        raise SourceError(where=where, reason="this is a table of PostgreSQL itself. Name one of your own.")
    if found["kind"] in KINDS and described.capture == "poll":
        if described.poll_column is None or not described.key:
            raise SourceError(
                where=where,
                reason=f"this is {KINDS[found['kind']]}: name the columns of its key by --key, and the one with the time of a "
                "row's last change by --poll-column.",
            )
        return
    if found["kind"] in KINDS:
        raise SourceError(
            where=where,
            reason=f"this is {KINDS[found['kind']]}, which has no triggers for its rows. Attach the table under it, or give "
            "--capture poll with --key and --poll-column.",
        )
    if found["kind"] not in TRIGGERED:
        raise SourceError(where=where, reason="this is no table.")
    if found["persistence"] == "t":
        raise SourceError(where=where, reason="this is a temporary table, which ends with its session.")


def _require_rights(where: str, found: Any, *, owner: bool) -> None:
    reader = quoted(found["reader"])
    if not found["readable"]:
        raise SourceError(where=where, reason=_may_not_read(found["reader"], found["schema"], found["name"]))
    if owner and not found["owned"]:
        raise SourceError(
            where=where,
            reason=f"only its owner {found['owner']} may put triggers on it and switch them on for replicas. "
            f"Run: GRANT {quoted(found['owner'])} TO {reader};",
        )
    if found["hidden"]:
        raise SourceError(
            where=where,
            reason=f"row-level security hides rows of it from {found['reader']}. Run: ALTER ROLE {reader} BYPASSRLS;",
        )


def _may_not_read(reader: str, schema: str, name: str) -> str:
    return (
        f"{reader} may not read it. Run: GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(reader)}; "
        f"GRANT SELECT ON {quoted(schema)}.{quoted(name)} TO {quoted(reader)};"
    )


def _require_columns(where: str, described: DescribedAttachment, columns: Mapping[str, AttachedColumn]) -> None:
    templated = [name for line in described.template_lines for _, name in line if name is not None]
    named = [("--columns", name) for name in described.columns] + [("--template", name) for name in templated]
    named += [("--fields", name) for name in described.fields]
    named += [("--dataset-column", described.dataset_column)] if described.dataset_column else []
    named += [("--poll-column", described.poll_column)] if described.poll_column else []
    named += [("--key", name) for name in described.key]
    for option, name in named:
        if name not in columns:
            raise SourceError(where=where, reason=f"{option} names {name!r}; its columns are {', '.join(columns)}.")
    if described.poll_column and columns[described.poll_column].type not in TIMES:
        raise SourceError(
            where=where,
            reason=f"--poll-column names {described.poll_column!r}, which is of type {columns[described.poll_column].type}; "
            f"it has to be a {' or a '.join(TIMES)}.",
        )
    for option, name in named:
        if option in ("--columns", "--template") and columns[name].type == "bytea":
            raise SourceError(where=where, reason=f"{option} names {name!r}, which holds bytes (bytea) and no text.")


def _enums(rows: Sequence[Any]) -> set[str]:
    return {row["name"] for row in rows if row["enum"]}


def _key(
    where: str, unique: Sequence[Any], columns: Mapping[str, AttachedColumn], filled: set[str], enums: set[str]
) -> list[AttachedColumn]:
    """Return the columns of the primary key, or else of the narrowest unique index without NULLs."""
    reason = "it has no primary key, and no unique index over columns that are NOT NULL"
    for index in unique:
        names = index["columns"]
        empty = [name for name in names if name not in filled]
        odd = [name for name in names if columns[name].type not in FORMS and name not in enums]
        if not empty and not odd:
            return [columns[name] for name in names]
        if empty:
            reason = f"its unique column {empty[0]!r} may be NULL"
        else:
            reason = (
                f"its key {odd[0]!r} is of type {columns[odd[0]].type}; a key is one of {', '.join(FORMS)} or an enum"
            )
            break
    raise SourceError(
        where=where,
        reason=f"{reason}. Its rows need a key: ALTER TABLE … ADD PRIMARY KEY (…), or ALTER COLUMN … SET NOT NULL.",
    )


def _warnings(found: Any, described: DescribedAttachment) -> list[str]:
    if described.capture == "poll" and described.poll_column is None:
        return ["without --poll-column every look reads the head of every row; looks are rarer on a large table."]
    if found["persistence"] == "u":
        return ["it is UNLOGGED: a crash of the server empties it, and no trigger tells."]
    return []
